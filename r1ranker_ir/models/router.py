"""A distilled router's folder: words of a question, and perhaps its embedding, become a chance for each LLM.

`router.json` holds the language models' names, the vocabulary and the encoder, `router.npz` the numbers: nothing that
is run when it is read.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from r1ranker_ir.errors import CheckpointError, missing_extra
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.records import OpenRecord, record_of_file
from r1ranker_ir.models.checkpoints import ROUTER_FILE
from r1ranker_ir.models.encoder import SentenceEncoder

NUMBERS_FILE = "router.npz"
TERMS = {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": r"(?u)\b\w+\b|[^\w\s]"}
"""How scikit-learn's `TfidfVectorizer` is told to read questions: words and signs, and pairs of them."""
_WAY_OUT = "train the router again: r1ranker train router"
_MOST_BYTES = 64 * 2**20
_NUMBERS = ("idf", "weights", "intercepts")

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class _RouterFile(OpenRecord):
    llms: list[str] = Field(min_length=1)
    vocabulary: list[str]
    encoder: str = ""


@dataclass(frozen=True)
class Router:
    """A softmax regression on TF-IDF, behind which an encoder's embedding may stand.

    Args:
        llms: names of language models, in the order of the columns.
        vocabulary: terms, in the order of the features.
        idf: their inverse document frequencies.
        weights: features × language models.
        intercepts: one a language model.
        encoder: checkpoint of the sentence encoder; empty for none.
    """

    llms: tuple[str, ...]
    vocabulary: tuple[str, ...]
    idf: Numbers = field(repr=False)
    weights: Numbers = field(repr=False)
    intercepts: Numbers = field(repr=False)
    encoder: str = ""

    def scores(self, questions: Sequence[str]) -> Numbers:
        """The logarithm of each language model's chance, up to a constant: questions × language models."""
        found: Numbers = np.tile(self.intercepts, (len(questions), 1))
        terms = len(self.vocabulary)
        if terms:
            found += self._vectorizer.transform(questions) @ self.weights[:terms]
        if self._encoder is not None:
            found += self._encoder.embed(questions).astype(np.float64) @ self.weights[terms:]
        return found

    @cached_property
    def _vectorizer(self) -> Any:
        vectorizer = tfidf(vocabulary={term: place for place, term in enumerate(self.vocabulary)})
        vectorizer.idf_ = self.idf
        return vectorizer

    @cached_property
    def _encoder(self) -> SentenceEncoder | None:
        if not self.encoder:
            return None
        encoder = SentenceEncoder(self.encoder)
        if encoder.width != (wanted := len(self.weights) - len(self.vocabulary)):
            raise CheckpointError(
                f"sentence encoder {self.encoder!r} makes {encoder.width} numbers, and the router was trained on "
                f"{wanted}: put its own encoder there, or {_WAY_OUT}"
            )
        return encoder


def tfidf(**options: Any) -> Any:
    """scikit-learn's vectorizer with our settings."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise missing_extra("A distilled router", "router", error) from error
    return TfidfVectorizer(**TERMS, **options)


def save_router(folder: Path, router: Router) -> None:
    """Writes both files, the one that makes it a router's folder last."""
    numbers = BytesIO()
    np.savez(numbers, allow_pickle=False, **{name: getattr(router, name) for name in _NUMBERS})
    content = {"llms": router.llms, "vocabulary": router.vocabulary, "encoder": router.encoder}
    (folder / ROUTER_FILE).unlink(missing_ok=True)
    (folder / NUMBERS_FILE).write_bytes(numbers.getvalue())
    write_whole(folder / ROUTER_FILE, json.dumps(content, ensure_ascii=False) + "\n")


def load_router(folder: str | os.PathLike[str]) -> Router:
    """Reads a router's folder; a CheckpointError says which of its files is not what `save_router` writes."""
    path, numbers = Path(folder) / ROUTER_FILE, Path(folder) / NUMBERS_FILE
    if not path.is_file():
        raise CheckpointError(f"{os.fspath(folder)!r} holds no {ROUTER_FILE}: give the folder of a distilled router")
    told = record_of_file(_RouterFile, path, _WAY_OUT, error=CheckpointError, most=_MOST_BYTES, unique=True)
    try:
        with np.load(numbers, allow_pickle=False) as file:
            idf, weights, intercepts = (np.asarray(file[name], np.float64) for name in _NUMBERS)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{numbers} can't be read ({error}): {_WAY_OUT}") from error
    llms, terms = len(told.llms), len(told.vocabulary)
    fits = idf.shape == (terms,) and intercepts.shape == (llms,) and weights.ndim == 2 and weights.shape[1] == llms
    if not fits or len(weights) < terms or (len(weights) > terms) != bool(told.encoder):
        raise CheckpointError(f"{numbers} does not fit the {terms} terms and {llms} models of {path}: {_WAY_OUT}")
    if not all(np.isfinite(each).all() for each in (idf, weights, intercepts)):
        raise CheckpointError(f"{numbers} holds what is no finite number: {_WAY_OUT}")
    return Router(tuple(told.llms), tuple(told.vocabulary), idf, weights, intercepts, told.encoder)
