"""A distilled router as a backend: it reads the question alone, and knows the language models by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r1ranker_ir.backends.tokens import CountedTexts, EstimatedCounts
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.models.checkpoints import ROUTER_FILE
from r1ranker_ir.models.router import NUMBERS_FILE, load_router
from r1ranker_ir.types import COMPARED, Answer, Call, Candidate, Question, Usage


class RouterBackend(CountedTexts):
    """Orders language models by their chances to be the best for the question; reads and writes no tokens."""

    def __init__(self, model: str, *, batch_size: int = 64, max_thought_tokens: int = 0) -> None:
        self.router = load_router(model)
        self.name = model
        self.batch_size = batch_size
        self.context_length: int | None = None
        self.answer_reserve = 0
        self.control_tokens: tuple[str, ...] = ()
        self._counts = EstimatedCounts()
        self._places = {name: place for place, name in enumerate(self.router.llms)}

    @property
    def identity(self) -> Mapping[str, Any]:
        """The digests of its files; its answers cost less than a look into a cache."""
        files = {name: file_digest(Path(self.name) / name) for name in (ROUTER_FILE, NUMBERS_FILE)}
        encoder = {"encoder": self.router.encoder} if self.router.encoder else {}
        return {"backend": "router", **files, **encoder, "not_cacheable": "they are computed at once"}

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        questions = [_question(call) for call in calls]
        scores = self.router.scores([question.request.query for question in questions])
        return [self._answer(*each) for each in zip(calls, questions, scores, strict=True)]

    def _answer(self, call: Call, question: Question, scores: np.ndarray[Any, np.dtype[np.float64]]) -> Answer:
        shown = [self._place(question.request.candidates[place]) for place in question.answerable]
        own = scores[shown] if question.asks != "worst" else -scores[shown]
        chances = np.exp(own - own.max())
        chances /= chances.sum()
        ranked = [call.identifiers[place] for place in np.argsort(-own, kind="stable")]
        choice = tuple(ranked[: 1 if call.form == "one" else call.top or len(ranked)])
        probabilities = dict(zip(call.identifiers, chances.tolist(), strict=True))
        text = f"<think>\n</think>\n<answer>{' > '.join(choice)}</answer>"
        return Answer(text, choice=choice, probabilities=probabilities, usage=Usage(1))

    def _place(self, candidate: Candidate) -> int:
        for name in (candidate.name, candidate.id):
            if name in self._places:
                return self._places[name]
        known = ", ".join(self.router.llms)
        raise InputError(
            f"router {self.name!r} knows no language model {candidate.name or candidate.id!r}: leave it out, or train "
            f"a router with it. This one knows {known}"
        )


def _question(call: Call) -> Question:
    if call.question is None or call.question.asks not in COMPARED:
        raise InputError("a distilled router orders language models for a question: use it with the strategy direct")
    return call.question
