"""From traces to fine-tuning data by rejection sampling: what fits the judgments is kept, the best of several samples.

A trace is what `r1ranker rerank --save-traces` writes. Several traces of the same queries, sampled with different
seeds, give several tries at each question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs
from r1ranker_ir.prompts.answers import read_number
from r1ranker_ir.runs.traces import read_trace
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.strategies.grades import HIGHEST, MIDDLE
from r1ranker_ir.training.data.ranking_measures import ndcg
from r1ranker_ir.types import ClosedAt, Ranking, RankingRequest, Step

from .command import SHOWN_LEAKS, open_training_corpus
from .completion_files import CompletedSample, answered, completion_of, write_completions
from .graded import grade_name
from .leakage import Leak, TestData, test_data_of
from .records import TAGS, Sample, sample_strategies

Judgments = Mapping[str, Mapping[str, float]]
"""Query id to document id to gain; what is not judged is worth 0."""

_Try = tuple[float, int, int, CompletedSample]
"""What fits, with what it is sorted by: quality, the length of its thought, and its place."""

KEPT = "kept"
SHARED_WITH_TEST = "shared with test data"
REPEATED = "the same completion again"
NOT_AMONG_BEST = "not among the best"
OTHER_PROMPT = "prompt with marked exclusions or a given thought"
SEVERAL_EXCLUDED = "several excluded at once"
UNJUDGED = "query without a judged candidate"
MISSES = "misses the judgments"
_NOT_CLOSED: Mapping[ClosedAt | None, str] = {
    "limit": "thought closed at the limit",
    "end_of_turn": "turn ended within the thought",
    "answer": "answer begun without closing the thought",
    None: "thought not closed by the model",
}
_CUTOFF = 10


@dataclass(frozen=True)
class TraceStep:
    """One model call of a trace: the request with the candidates shown, and what came of it."""

    request: RankingRequest
    strategy: str
    number: int
    step: Step

    @property
    def outcome(self) -> tuple[int, ...]:
        """Places among the candidates shown: those excluded, worst first, or all, best first, or the best."""
        return tuple(self.step.shown.index(position) for position in self.step.outcome)

    @property
    def grade(self) -> int | None:
        """The whole grade that its text answers with."""
        number, _ = read_number(self.step.text)
        return number if number is not None and number <= HIGHEST else None

    @property
    def completion(self) -> str:
        """The assistant's turn in the protocol's form, whatever stood between thought and answer in the teacher's."""
        if asked_by(self.strategy) == "grade":
            return answered(self.step.thought.strip(), grade_name(self.grade or 0))
        return completion_of(self.step.thought.strip(), self.outcome, len(self.step.shown))


@dataclass(frozen=True)
class Selection:
    """What rejection sampling has kept."""

    completed: tuple[CompletedSample, ...]
    counts: Mapping[str, int]
    leaks: tuple[Leak, ...] = ()

    def report(self) -> str:
        """Says in one line how many steps were kept, and why the others were not."""
        others = ", ".join(f"{count} {why}" for why, count in self.counts.items() if why != KEPT)
        kept = f"{self.counts[KEPT]} of {sum(self.counts.values())} steps kept"
        return kept + (f"; left out: {others}" if others else "")


def read_traces(path: str | Path) -> Iterator[TraceStep]:
    """Reads the steps of a trace, query by query; files can be joined."""
    for traced in read_trace(path):
        yield from steps_of(traced.ranking, traced.strategy)


def steps_of(ranking: Ranking, strategy: str) -> Iterator[TraceStep]:
    """The steps of a ranking, each with the candidates that it showed."""
    for number, step in enumerate(ranking.steps, start=1):
        shown = tuple(ranking.request.candidates[position] for position in step.shown)
        yield TraceStep(replace(ranking.request, candidates=shown), strategy, number, step)


def select_steps(
    steps: Iterable[TraceStep],
    judgments: Judgments,
    *,
    best: int = 1,
    min_ndcg: float = 0.0,
    source: str = "",
    test: TestData | None = None,
    collection: str | None = None,
) -> Selection:
    """Keeps the steps whose outcome fits the judgments: rejection sampling, best of n, as in ReasonRank's recipe.

    An exclusion fits if no candidate shown has a lower gain than the excluded one (the paper's reward asks for a
    non-positive, which is the same as long as one is shown), a choice of the best if none has a higher one. An ordering
    fits if its nDCG@10 over the candidates shown is above that of the order in which they were shown, or is 1, and
    reaches `min_ndcg`; windows count one by one. A grade fits if it is at least the middle one for a candidate with a
    gain, and at most that for one without; the best tries at a candidate are those nearest to the mean of all that fit,
    as in ERank's recipe (arXiv 2509.00520).
    Repaired answers and thoughts that were closed or are empty never fit, nor do steps of fast eliminations that
    exclude several at once, mark what is excluded or use an earlier thought; and a step whose candidates all have the
    same gain teaches nothing, unless it grades one of them.
    """
    counts = Counter({KEPT: 0})
    leaks: list[Leak] = []
    queries: dict[str, int] = {}
    tries: dict[tuple[int, str, int], list[_Try]] = {}
    documents: dict[tuple[int, str], int] = {}
    for place, step in enumerate(steps):
        query_id = step.request.query_id
        query, known = queries.setdefault(query_id, len(queries)), judgments.get(query_id, {})
        gains = tuple(known.get(candidate.id, 0.0) for candidate in step.request.candidates)
        grades = asked_by(step.strategy) == "grade"
        reason, quality = _grade_verdict(step, gains, known) if grades else _verdict(step, gains, min_ndcg)
        record = JudgedRequest(step.request, gains, source)
        completed = CompletedSample(Sample(step.strategy, record), step.completion)
        number = step.number
        if grades:  # traces of other orders graded it at another step
            number = documents.setdefault((query, step.request.candidates[0].id), len(documents))
        kept = tries.setdefault((query, step.strategy, number), [])
        if reason == KEPT and test is not None and (found := test.leaks_of(record, collection)):
            reason = SHARED_WITH_TEST
            leaks += found
        elif reason == KEPT and any(entry[-1] == completed for entry in kept):
            reason = REPEATED
        if reason != KEPT:
            counts[reason] += 1
            continue
        kept.append((-quality, len(step.step.thought.strip()), place, completed))
        if not grades:
            counts[NOT_AMONG_BEST] += _keep_best(kept, best)
    for key, kept in tries.items():
        if asked_by(key[1]) == "grade" and kept:
            mean = fmean(entry[0] for entry in kept)
            kept[:] = [(abs(entry[0] - mean), *entry[1:]) for entry in kept]
            counts[NOT_AMONG_BEST] += _keep_best(kept, best)
    chosen = tuple(entry[-1] for key in sorted(tries) for entry in tries[key])
    counts[KEPT] = len(chosen)
    met = {reason: count for reason, count in counts.items() if count or reason == KEPT}
    return Selection(chosen, met, tuple(dict.fromkeys(leaks))[:SHOWN_LEAKS])


def _keep_best(tries: list[_Try], best: int) -> int:
    """Drops all tries but the best, and counts those dropped."""
    tries.sort(key=lambda entry: entry[:3])
    dropped = len(tries[best:])
    del tries[best:]
    return dropped


def _why_unusable(step: TraceStep) -> str | None:
    """Why nothing could be learned from a step, whatever its candidates are worth."""
    told, thought = step.step, step.step.thought.lower()
    left_out = {
        "compares thoughts": bool(told.judged),
        "repaired": told.repaired,
        _NOT_CLOSED[told.closed_at]: told.thought_closed,
        "no thought": not thought.strip(),
        "a tag of the protocol in the thought": any(tag in thought for tag in TAGS),
        OTHER_PROMPT: told.thought_given or bool(told.marked),
        "of a strategy that is not trained": step.strategy not in sample_strategies(),
    }
    return next((reason for reason, so in left_out.items() if so), None)


def _grade_verdict(step: TraceStep, gains: Sequence[float], judged: Mapping[str, float]) -> tuple[str, float]:
    """Why a grade is left out, or that it is kept, and the grade."""
    if reason := _why_unusable(step):
        return reason, 0.0
    if not any(judged.values()):
        return UNJUDGED, 0.0
    grade = step.grade
    fits = grade is not None and (grade >= MIDDLE if gains[0] > 0 else grade <= MIDDLE)
    return (KEPT, float(grade or 0)) if fits else (MISSES, 0.0)


def _verdict(step: TraceStep, gains: Sequence[float], min_ndcg: float) -> tuple[str, float]:
    """Why a step is left out, or that it is kept and how good it is."""
    if reason := _why_unusable(step):
        return reason, 0.0
    asks = asked_by(step.strategy)
    left_out = {
        SEVERAL_EXCLUDED: asks == "worst" and len(step.outcome) > 1,
        UNJUDGED: not any(gains),
        "nothing to tell apart": len(set(gains)) < 2,
    }
    if reason := next((reason for reason, so in left_out.items() if so), None):
        return reason, 0.0
    if asks in ("worst", "best"):
        wanted = min(gains) if asks == "worst" else max(gains)
        return (KEPT, 1.0) if gains[step.outcome[0]] == wanted else (MISSES, 0.0)
    reached = ndcg([gains[place] for place in step.outcome], gains, _CUTOFF)
    if reached < 1 and reached <= ndcg(gains, gains, _CUTOFF):
        return "no better than the order shown", 0.0
    return (KEPT, reached) if reached >= min_ndcg else ("below the least nDCG", 0.0)


def completions_from_traces(
    traces: Sequence[str | Path],
    corpus: str,
    output: str | Path,
    *,
    split: str | None = None,
    best: int = 1,
    min_ndcg: float = 0.0,
    test_corpora: Sequence[str] = (),
    leaks: Literal["error", "drop"] = "error",
    announce: bool = False,
) -> Selection:
    """Does what `r1ranker data --traces` does: rejection sampling of traces against the judgments of a corpus."""
    if not traces:
        raise InputError("no trace is given: name at least one file that r1ranker rerank --save-traces wrote")
    inputs = [*(NamedFile("--traces", path) for path in traces), *corpus_inputs("--corpus", corpus)]
    inputs += [file for name in test_corpora for file in corpus_inputs("--test-corpus", name)]
    check_outputs([NamedFile("--output", output)], inputs, announce=announce)
    opened = open_training_corpus(corpus, split)
    selection = select_steps(
        (step for path in traces for step in read_traces(path)),
        gains_of(opened.qrels()),
        best=best,
        min_ndcg=min_ndcg,
        source=opened.name,
        test=test_data_of(test_corpora),
        collection=opened.collection,
    )
    if selection.leaks and leaks == "error":
        shown = "; ".join(map(str, selection.leaks))
        raise InputError(
            f"{selection.counts[SHARED_WITH_TEST]} steps of the traces show test data: {shown}. Leave them out with "
            f"--leaks drop (leaks='drop')"
        )
    if not selection.completed:
        raise InputError(f"nothing fits the judgments, so {str(output)!r} is not written: {selection.report()}")
    arguments: dict[str, Any] = {
        "traces": [Path(path).name for path in traces],
        "corpus": corpus,
        "split": split,
        "best": best,
    }
    arguments |= {"min_ndcg": min_ndcg, "test_corpora": list(test_corpora), "leaks": leaks}
    made_of = {"arguments": arguments, "counts": dict(selection.counts)}
    write_completions(output, selection.completed, made_of, private=True)  # as the traces are
    return selection
