"""A reward beside the rules: another model grades the thought of each output, by any backend that rankers have."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.strategies.asking import Asker
from r1ranker_ir.strategies.grades import HIGHEST
from r1ranker_ir.strategies.options import PUBLISHED, RankingOptions
from r1ranker_ir.strategies.strategy import Strategy
from r1ranker_ir.types import Candidate, Program, Ranking, RankingRequest

from .answer_protocol import closed_answer
from .rows import Completion, LogMetric, whole_outputs

if TYPE_CHECKING:
    from r1ranker_ir.rankers.ranker import Ranker

logger = logging.getLogger(__name__)

SECTION = Section(
    "review",
    asks="grade",
    system="You review how a ranking was reasoned. First reason between <think> and </think>. Then write a grade "
    "between <answer> and </answer>, and nothing after it.",
    user="""This was asked of a ranking model, and this is what it decided:

{query}

This is the reasoning that it gave before its decision:

{candidates}

How well does the reasoning bear the decision out? Good reasoning speaks of what the candidates say and of what was \
asked for, makes nothing up, and ends where the decision does. Answer with a whole number from 0 (no reason for it at \
all) to 10 (sound and complete), in the form <answer>[number]</answer>.""",
)


def grade_thought(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Has the only candidate, a thought, graded in one call; the grade is the step's."""
    asker = Asker(request, prompt)
    yield from asker.ask(SECTION, (0,), thought="" if options.think == "never" else None)
    return Ranking(request, (0,), tuple(asker.steps))


JUDGE = Strategy("review", grade_thought, (SECTION,), summary="grade the reasoning behind a decision")


@dataclass
class JudgeSettings:
    """Who grades outputs for the reward `judged`: the arguments of a `Ranker`."""

    judge_model: str | None = field(
        default=None, metadata={"help": "Model that grades thoughts for the reward judged; tiny for the embedded one."}
    )
    judge_backend: str = field(default="transformers", metadata={"help": "Backend that runs the judge."})
    judge_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Further arguments of the judge's Ranker (JSON), such as base_url, temperature or template."},
    )
    judge_cache: str | None = field(
        default=None, metadata={"help": "File of the judge's answers; without it the project's completions cache."}
    )


class JudgedReward:
    """A reward function that has thoughts graded: a tenth of the grade, 0 for an output without a thought or an answer.

    What a judge can't grade gets the mean of its prompt's other outputs, so that the failure moves nothing, and nothing
    at all (`None`) where the whole group failed. No failure of a judge is raised; all are counted.
    """

    __name__ = "judged"

    def __init__(self, judge: Ranker) -> None:
        self._judge = judge
        self._warn_at = 1
        self.counts = Counter[str]()

    def __call__(
        self,
        completions: Sequence[Completion],
        prompts: Sequence[Any],
        opening: Sequence[str | None] | None = None,
        log_metric: LogMetric | None = None,
        **kwargs: object,
    ) -> list[float | None]:
        """Scores the completions of a batch, each with its prompt."""
        outputs = whole_outputs(completions, opening)
        asked = [_text_of(prompt) for prompt in prompts]
        requests = {
            place: request
            for place, (question, output) in enumerate(zip(asked, outputs, strict=True))
            if (request := _request(question, output)) is not None
        }
        graded = self._grades(requests)
        scores: list[float | None] = [None if place in requests else 0.0 for place in range(len(outputs))]
        for place, grade in graded.items():
            scores[place] = grade / HIGHEST
        failed = len(requests) - len(graded)
        self.counts.update(outputs=len(outputs), graded=len(graded), failed=failed)
        if log_metric is not None:
            log_metric("rewards/judged/failed", failed)
            if graded:
                log_metric("rewards/judged/grade", fmean(graded.values()))
        by_prompt = defaultdict[str, list[float]](list)
        for question, score in zip(asked, scores, strict=True):
            by_prompt[question] += [] if score is None else [score]
        return [
            fmean(by_prompt[question]) if score is None and by_prompt[question] else score
            for question, score in zip(asked, scores, strict=True)
        ]

    def _grades(self, requests: Mapping[int, RankingRequest]) -> dict[int, float]:
        """The grades of those outputs that could be graded."""
        places, grades = list(requests), dict[int, float]()
        why = ""
        try:
            for index, outcome in self._judge.outcomes(list(requests.values())):
                if not isinstance(outcome, Ranking):
                    why = why or str(outcome.error)
                elif outcome.steps[0].repaired or outcome.steps[0].grade is None:
                    why = why or f"no grade from 0 to {HIGHEST} in {outcome.steps[0].text[-80:]!r}"
                else:
                    grades[places[index]] = outcome.steps[0].grade
        except Exception as error:  # whatever a judge raises must not end hours of training
            why = f"{type(error).__name__}: {error}"
        total = self.counts["failed"] + len(requests) - len(grades)
        if len(grades) < len(requests) and total >= self._warn_at:
            logger.warning("the judge has not graded %d outputs so far, the latest because: %s", total, why)
            self._warn_at = 2 * total
        return grades

    def told(self) -> dict[str, Any]:
        """What the judge has done, and what decides its answers, for the training's record."""
        summary = self._judge.summary
        counts = {name: self.counts[name] for name in ("outputs", "graded", "failed")}
        costs = {**asdict(summary.usage), "cached_calls": summary.cached_calls}
        return {**counts, **costs, "identity": dict(self._judge.backend.identity)}


def judged_reward(config: Any) -> JudgedReward:
    """Opens the judge that a training's configuration names; what is wrong with it is raised now."""
    from r1ranker_ir.backends import declared_backend
    from r1ranker_ir.cache.completions import default_cache_path
    from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
    from r1ranker_ir.rankers.ranker import Ranker

    if not config.judge_model:
        raise InputError("the reward judged needs a model that grades: name one with judge_model")
    options = _options(config.judge_options)
    if declared_backend(config.judge_backend).capabilities.samples:
        options = {"seed": config.seed, **options}
    judge = Ranker(
        TINY_CHECKPOINT if config.judge_model == "tiny" else config.judge_model,
        strategy=JUDGE,
        backend=config.judge_backend,
        cache=config.judge_cache or default_cache_path(),
        max_repair_rate=1.0,
        **options,
    )
    return JudgedReward(judge)


def _options(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    try:
        told = json.loads(given) if isinstance(given, str) else given or {}
    except ValueError:
        told = None
    if not isinstance(told, Mapping):
        raise InputError(f"judge_options is {given!r}: give a JSON object, such as '{{\"temperature\": 0.7}}'")
    if own := sorted(told.keys() & {"strategy", "backend", "cache", "max_repair_rate"}):
        raise InputError(f"judge_options names {own[0]!r}: use judge_backend and judge_cache; the rest is fixed")
    return dict(told)


def _text_of(prompt: Any) -> str:
    """What a prompt says: text, or turns."""
    return prompt if isinstance(prompt, str) else "\n".join(str(turn["content"]) for turn in prompt)


def _request(question: str, output: str) -> RankingRequest | None:
    """What the judge is asked about an output; `None` for one without a thought or an answer."""
    answer, thought = closed_answer(output), output.partition("</think>")[0].replace("<think>", "").strip()
    if answer is None or not thought or "</think>" not in output:
        return None
    return RankingRequest(f"{question}\nDecision: {answer.strip()}", (Candidate("thought", thought),))
