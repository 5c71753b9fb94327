"""Sentence encoders: texts become vectors of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r1ranker_ir.errors import CheckpointError, missing_extra
from r1ranker_ir.models.loading import check_exists, way_out
from r1ranker_ir.models.parts import FOREIGN_CODE_HINT, needs_foreign_code

_TEXTS_AT_ONCE = 64


class SentenceEncoder:
    """An `AutoModel` checkpoint whose embeddings are means over its last hidden states; `role` names it in errors."""

    def __init__(self, model: str, role: str = "sentence encoder") -> None:
        self._tokenizer, self._model = _load(model, role)
        limits = (self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        self._max_length = min(limit for limit in limits if limit is not None)
        self.width: int = self._model.config.hidden_size

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A row a text; texts are cut where the encoder's positions end."""
        import torch

        options = {"padding": True, "truncation": True, "max_length": self._max_length, "return_tensors": "pt"}
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found = np.zeros((len(texts), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                places = by_length[start : start + _TEXTS_AT_ONCE]
                batch = self._tokenizer([texts[place] for place in places], **options)
                hidden = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                means = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                found[places] = torch.nn.functional.normalize(means, dim=-1).float().numpy()
        return found


def _load(name: str, role: str) -> tuple[Any, Any]:
    check_exists(name)
    try:
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return tokenizer, AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False).eval()
    # transformers and safetensors raise whatever their file formats provoke: a KeyError as well as an OSError.
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):
            raise missing_extra(f"A {role}", "local", error) from error
        told = f"{' '.join(str(error).split())[:600] or type(error).__name__} — {way_out(name)}"
        if needs_foreign_code(error):
            told = FOREIGN_CODE_HINT
        raise CheckpointError(f"{role} {name!r} can't be loaded: {told}") from error
