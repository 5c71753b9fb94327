"""A model that knows the judgments and errs as much as it is told to: for research on strategies, without a model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1ranker_ir.backends.limits import ANSWER_TOKENS, check_least
from r1ranker_ir.backends.tokens import CountedTexts, EstimatedCounts
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Answer, Call, Judged, Question, Usage

# Probabilities are told for gains up to so far apart; a wider span is drawn together, so that none vanishes.
_SPAN = 30.0
_HIGHEST = 10

_Chosen = tuple[tuple[str, ...], dict[str, float]]


class OracleBackend(CountedTexts):
    """Answers by judgments, with noise.

    Of n candidates each has the worth gain + s · G, where G is drawn from the standard Gumbel distribution (less its
    mean) anew for each prompt, and s = `noise` · (n / 2) ** `noise_growth`. The answer is the candidate of the greatest
    worth, or all of them in its order. So a single answer names candidate i with a probability in proportion to
    exp(gain_i / s), which is Luce's choice axiom, and an order is of the Plackett-Luce model. Where the worst is asked
    for, the same holds of the gains' negatives. A grade from 0 to 10 is the worth in tenths of the greatest gain, and a
    query's log-likelihood that of the worth above the greatest gain by the logistic function. The
    probabilities that it tells are those of somebody who takes the worth for the truth: they know no more than its
    answers.

    Equal gains come in a random order, the same in all prompts. The noise of an answer depends on the seed, the prompt
    and the sample's number alone: neither on batches nor on the order of the calls.

    Args:
        gains: query id to document id to gain; documents that are missing have none.
        noise: s for two candidates, in units of gain; 0 for a perfect oracle.
        noise_growth: how the noise grows with the list: 0 not at all, 1 in proportion to its length.
        max_thought_tokens: what each thought is said to have taken, where thinking is allowed; nothing is thought.

    Source: R. D. Luce, Individual Choice Behavior, 1959; J. I. Yellott, Journal of Mathematical Psychology 15, 1977.
    """

    def __init__(
        self,
        model: str = "oracle",
        *,
        gains: Mapping[str, Mapping[str, float]],
        noise: float = 0.0,
        noise_growth: float = 0.0,
        seed: int = 0,
        batch_size: int = 64,
        max_thought_tokens: int = 0,
    ) -> None:
        check_least(0, noise=noise, max_thought_tokens=max_thought_tokens)
        check_least(1, batch_size=batch_size)
        self.name = model
        self.gains = gains
        self.noise = noise
        self.noise_growth = noise_growth
        self.seed = seed
        self.batch_size = batch_size
        self.context_length: int | None = None
        self.max_thought_tokens = max_thought_tokens
        self.answer_reserve = max_thought_tokens + ANSWER_TOKENS
        self.control_tokens: tuple[str, ...] = ()
        self._counts = EstimatedCounts()
        self._greatest = max((gain for judged in gains.values() for gain in judged.values()), default=0.0)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What it was told; its answers cost nothing, and are not cached."""
        told = {"noise": self.noise, "noise_growth": self.noise_growth, "seed": self.seed}
        return {"backend": "oracle", **told, "not_cacheable": "they are made of judgments at once"}

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call) -> Answer:
        if call.question is None:
            raise InputError("a call does not say what it was rendered from: the oracle answers calls of a Prompt")
        gains = self._gains_of(call.question)
        if call.continuation:
            # The logarithm of the logistic function: negative, and in the order of worth.
            worth = gains[0] + float(self._noise_of(call, call.question, 1)[0])
            told = -float(np.logaddexp(0.0, self._greatest - worth))
            usage = Usage(1, self.count_prompt_tokens(call.messages), self.count_tokens(call.continuation))
            return Answer(call.continuation, log_probabilities=(told,), usage=usage)
        if call.question.asks == "grades":
            return self._grades(gains, call, call.question)
        answers = self._grade if call.question.asks == "grade" else self._order
        choice, probabilities = answers(gains, call, call.question)
        return self._told(call, " > ".join(choice), choice, probabilities)

    def _told(
        self,
        call: Call,
        said: str,
        choice: tuple[str, ...] | None = None,
        probabilities: dict[str, float] | None = None,
    ) -> Answer:
        """An answer as a model would write it, behind no thought."""
        answer = f"</think>\n<answer>{said}</answer>"
        thought = 0 if call.thought is not None else self.max_thought_tokens
        usage = Usage(1, self.count_prompt_tokens(call.messages), thought + self.count_tokens(answer))
        return Answer(f"<think>\n{answer}", choice=choice, probabilities=probabilities, usage=usage)

    def _gains_of(self, question: Question) -> list[float]:
        if question.judged is not None:
            return self._worth_of(question.judged)
        request = question.request
        if request.query_id not in self.gains:
            raise InputError(f"the oracle has no judgments of query {request.query_id!r}: leave it out, or judge it")
        judged = self.gains[request.query_id]
        return [judged.get(request.candidates[position].id, 0.0) for position in question.answerable]

    def _worth_of(self, judged: Judged) -> list[float]:
        """What answers are worth, in units of gain, to somebody who compares thoughts, of which the oracle has none."""
        question = judged.question
        gains = dict(zip(question.answerable, self._gains_of(question), strict=True))
        if question.asks == "grade":
            [gain] = gains.values()
            return [-abs(grade / _HIGHEST * self._greatest - gain) for grade in judged.grades]
        sign = -1.0 if question.asks == "worst" else 1.0
        orders = ([gains[position] for position in answer] for answer in judged.answers)
        return [sign * sum(gain / math.log2(rank) for rank, gain in enumerate(order, start=2)) for order in orders]

    def _noise_of(self, call: Call, question: Question, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        scale = self.noise * (len(question.shown) / 2) ** self.noise_growth
        if not scale:
            return np.zeros(count)
        drawing = np.random.default_rng(_number(self.seed, call.messages, call.sample))
        drawn: np.ndarray[Any, np.dtype[np.float64]] = scale * (drawing.gumbel(size=count) - np.euler_gamma)
        return drawn

    def _order(self, gains: Sequence[float], call: Call, question: Question) -> _Chosen:
        sign = -1.0 if question.asks == "worst" else 1.0
        worth = sign * np.asarray(gains) + self._noise_of(call, question, len(gains))
        ids = (question.request.candidates[position].id for position in question.answerable)
        ties = sign * np.asarray([_number(self.seed, question.request.query_id, each) / 2**64 for each in ids])
        ranked = [call.identifiers[place] for place in np.lexsort((-ties, -worth))]
        above = worth - worth.max()
        chances = np.exp(above / max(1.0, -above.min() / _SPAN))
        places = 1 if call.form == "one" else call.top or len(ranked)
        return tuple(ranked[:places]), dict(zip(call.identifiers, (chances / chances.sum()).tolist(), strict=True))

    def _grade(self, gains: Sequence[float], call: Call, question: Question) -> _Chosen:
        """A grade between two whole ones is told by the probabilities of these."""
        grades = call.identifiers
        highest = len(grades) - 1
        worth = (gains[0] + float(self._noise_of(call, question, 1)[0])) / (self._greatest or 1.0) * highest
        worth = min(max(worth, 0.0), float(highest))
        lower = min(int(worth), highest - 1)
        probabilities = dict.fromkeys(grades, 0.0)
        probabilities[grades[lower]], probabilities[grades[lower + 1]] = lower + 1 - worth, worth - lower
        return (grades[round(worth)],), probabilities

    def _grades(self, gains: Sequence[float], call: Call, question: Question) -> Answer:
        """Grades of a group."""
        worth = (np.asarray(gains) + self._noise_of(call, question, len(gains))) / (self._greatest or 1.0) * _HIGHEST
        told = ", ".join(
            f'"{name}": {grade:.4f}'
            for name, grade in zip(call.identifiers, np.clip(worth, 0.0, _HIGHEST).tolist(), strict=True)
        )
        return self._told(call, f"{{{told}}}")


def _number(*parts: object) -> int:
    """A number of 64 bits that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")
