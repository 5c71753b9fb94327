"""A sentence encoder as teacher: how near each candidate is to the query becomes what the candidate is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1ranker_ir.errors import CheckpointError, InputError, missing_extra
from r1ranker_ir.models.loading import check_exists, way_out
from r1ranker_ir.models.parts import FOREIGN_CODE_HINT, needs_foreign_code

from .records import Sample

_TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class Teaching:
    """Who teaches (an `AutoModel` checkpoint whose embeddings are means over its last hidden states), and how far."""

    model: str
    temperature: float = 0.05
    share: float = 0.8

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"teacher_temperature is {self.temperature}: give a number above 0, such as 0.05")
        if not 0 <= self.share <= 1:
            raise InputError(f"teacher_share is {self.share}: give a number from 0 to 1")


def soft_gains(similarities: Sequence[float], gains: Sequence[float], teaching: Teaching) -> tuple[float, ...]:
    """share · softmax(similarities / temperature) + (1 − share) · gains / sum(gains); without a gain the softmax."""
    greatest = max(similarities)
    told = [math.exp((each - greatest) / teaching.temperature) for each in similarities]
    total = sum(gains)
    share = teaching.share if total > 0 else 1.0
    return tuple(
        share * each / sum(told) + ((1 - share) * gain / total if total > 0 else 0.0)
        for each, gain in zip(told, gains, strict=True)
    )


class Teacher:
    """Gives samples soft gains."""

    def __init__(self, teaching: Teaching) -> None:
        self._teaching = teaching
        self._tokenizer, self._model = _load(teaching.model)
        limits = (self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        self._max_length = min(limit for limit in limits if limit is not None)

    def taught(self, sample: Sample) -> Sample:
        """Returns the sample with the teacher's gains."""
        record = sample.record
        texts = [candidate.text for candidate in record.request.candidates]
        similarities = self.similarities(record.request.query, texts)
        return replace(sample, record=replace(record, gains=soft_gains(similarities, record.gains, self._teaching)))

    def similarities(self, query: str, texts: Sequence[str]) -> tuple[float, ...]:
        """The cosine of each text's embedding with the query's; texts are cut where the encoder's positions end."""
        import torch

        asked, found, most = [query, *texts], list[Any](), self._max_length
        options = {"padding": True, "truncation": True, "max_length": most, "return_tensors": "pt"}
        with torch.inference_mode():
            for start in range(0, len(asked), _TEXTS_AT_ONCE):
                batch = self._tokenizer(asked[start : start + _TEXTS_AT_ONCE], **options)
                hidden = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                found.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        query_embedding, *embeddings = torch.cat(found)
        return tuple(float(embedding @ query_embedding) for embedding in embeddings)


def _load(name: str) -> tuple[Any, Any]:
    check_exists(name)
    try:
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return tokenizer, AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False).eval()
    # transformers and safetensors raise whatever their file formats provoke: a KeyError as well as an OSError.
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):
            raise missing_extra("A teacher", "local", error) from error
        told = f"{' '.join(str(error).split())[:600] or type(error).__name__} — {way_out(name)}"
        if needs_foreign_code(error):
            told = FOREIGN_CODE_HINT
        raise CheckpointError(f"teacher {name!r} can't be loaded: {told}") from error
