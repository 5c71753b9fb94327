"""A sentence encoder as teacher: how near each candidate is to the query becomes what the candidate is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option
from r1ranker_ir.strategies.grades import HIGHEST

from .records import Sample, shown_of

_FAR, _NEAR = 0.1, 0.8  # cosines of a sentence encoder for passages beside the query, and for its answers


@dataclass(frozen=True)
class Teaching:
    """Who teaches (an `AutoModel` checkpoint whose embeddings are means over its last hidden states), and how far."""

    model: str
    temperature: float = option(
        0.05, "With --teacher: what divides its cosines before the softmax.", flags=("--teacher-temperature",)
    )
    share: float = option(
        0.8,
        "With --teacher: its share of a gain or grade, the rest judged.",
        flags=("--teacher-share",),
        least=0.0,
        most=1.0,
    )
    margin: float | None = option(
        None,
        "With --teacher: leave out candidates without a gain whose cosine is not N below that of the best judged one; "
        "they may be relevant.",
        unset="none are left out",
        flags=("--teacher-margin",),
    )

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


def nearness(cosine: float) -> float:
    """A sentence encoder's cosine as a number from 0, for passages beside the query, to 1, for its answers."""
    return min(1.0, max(0.0, (cosine - _FAR) / (_NEAR - _FAR)))


class Teacher:
    """Gives samples soft gains."""

    def __init__(self, teaching: Teaching) -> None:
        from r1ranker_ir.models.encoder import SentenceEncoder

        self.teaching = teaching
        self._encoder = SentenceEncoder(teaching.model, "teacher")

    def without_doubtful(self, record: JudgedRequest) -> JudgedRequest:
        """Leaves out candidates without a gain that are about as near to the query as the best judged one."""
        most = max(record.gains)
        if self.teaching.margin is None or not most > 0:
            return record
        texts = [candidate.text for candidate in record.request.candidates]
        near = self.similarities(record.request.query, texts)
        limit = max(each for each, gain in zip(near, record.gains, strict=True) if gain == most) - self.teaching.margin
        kept = [place for place, gain in enumerate(record.gains) if gain > 0 or near[place] <= limit]
        return shown_of(record, kept)

    def taught(self, sample: Sample) -> Sample:
        """Returns the sample with the teacher's gains; grades, where it asks for grades."""
        record = sample.record
        if sample.asks == "grade":
            told = self.grades(sample, HIGHEST, HIGHEST)
            return replace(sample, record=replace(record, gains=tuple(float(round(grade)) for grade in told)))
        texts = [candidate.text for candidate in record.request.candidates]
        similarities = self.similarities(record.request.query, texts)
        return replace(sample, record=replace(record, gains=soft_gains(similarities, record.gains, self.teaching)))

    def grades(self, sample: Sample, highest: int, full: float) -> tuple[float, ...]:
        """Grades of a sample's candidates from 0 to `highest`, by the teacher's share and by the gains beside `full`.

        highest · (share · (cosine − 0.1) / 0.7 + (1 − share) · gain / full), the first term held to 0 … 1.
        """
        request, gains = sample.record.request, sample.record.gains
        cosines = self.similarities(request.query, [candidate.text for candidate in request.candidates])
        share, both = self.teaching.share, zip(map(nearness, cosines), gains, strict=True)
        return tuple(highest * (share * each + (1 - share) * gain / full) for each, gain in both)

    def similarities(self, query: str, texts: Sequence[str]) -> tuple[float, ...]:
        """The cosine of each text's embedding with the query's; texts are cut where the encoder's positions end."""
        query_embedding, *embeddings = self._encoder.embed([query, *texts])
        return tuple(float(embedding @ query_embedding) for embedding in embeddings)
