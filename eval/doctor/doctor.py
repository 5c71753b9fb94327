"""Examines a model: what its chat template does, whether it keeps to the form, and whether it really ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.backends import BACKENDS, DEFAULT_BACKEND
from r1ranker_ir.eval.benchmarks.meter import metered
from r1ranker_ir.eval.benchmarks.model import open_model
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.trace_summary import TraceSummary, summarise
from r1ranker_ir.runs.traces import TracedRanking
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import COMPARED, Ranking

from .lists import ClearList, clear_lists

if TYPE_CHECKING:
    from r1ranker_ir.eval.benchmarks.model import BenchmarkModel

_QUICK_QUERIES, _QUERIES = 3, 6
_QUICK_THOUGHT, _THOUGHT = 128, 256
# A model that can't tell candidates apart passes for one that can with this probability.
_ALPHA = 0.01
_SURE, _STEADY, _CLEAN, _LIMITED, _UNREADABLE = 0.8, 0.7, 0.1, 0.3, 0.5


@dataclass(frozen=True)
class TemplateFacts:
    """What a model's chat template does."""

    chat_template: bool  # there is one
    system: Literal["kept", "dropped", "refused"]  # what becomes of a system turn
    thought: Literal["opened", "closed", "open"]  # by the template; open: neither, so the ranker opens it
    end_tokens: tuple[str, ...]
    think_token: bool  # <think> is one token


@dataclass(frozen=True)
class FormatCheck:
    """How far a model keeps to the form when nothing holds it to it."""

    outputs: int
    thoughts: int  # outputs that close a thought
    answers: int  # outputs with an answer in its tags
    readable: int  # outputs that could be used as they stood
    example: str = ""  # the first one that could not


@dataclass(frozen=True)
class Verdict:
    """The judgement of a model with one strategy."""

    level: Literal["fit", "fit with reservations", "unfit"]
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class StrategyCheck:
    """How a model does with one strategy."""

    strategy: str
    lists: int  # each shown forwards and backwards
    candidates: int
    right: int  # rankings, of twice as many as lists, in which the passage that answers the query came out best
    same: int  # lists with the same winner both ways
    summary: TraceSummary

    @property
    def trials(self) -> int:
        """How many rankings there were."""
        return 2 * self.lists

    @property
    def chance(self) -> float:
        """The probability of being right at least this often by naming any candidate."""
        trials, hit = self.trials, 1 / self.candidates
        counts = range(self.right, trials + 1)
        return sum(math.comb(trials, count) * hit**count * (1 - hit) ** (trials - count) for count in counts)

    @property
    def verdict(self) -> Verdict:
        """Judges what was seen."""
        summary, by_chance = self.summary, self.chance > _ALPHA
        repaired = summary.unread / summary.answers if summary.answers else 0.0
        limited = sum(count for ending, count in summary.endings.items() if "limit" in ending)
        first = f"the passage that answers the query comes out first in {self.right} of {self.trials} rankings"
        reasons, advice = list[str](), list[str]()
        if repaired > _CLEAN:
            reasons.append(f"{summary.unread} of {summary.answers} answers can't be used as they stand")
            advice.append(
                "have answers chosen among the candidates (backend transformers), allow longer thoughts "
                "(--max-thought-tokens), or take a model that follows instructions"
            )
        if by_chance:
            reasons.append(f"{first}, which guessing does as well ({self.trials / self.candidates:.3g} on average)")
            advice.append("do not rank with it this way: take a larger or a trained model, or another strategy")
        elif self.right < _SURE * self.trials:
            reasons.append(f"{first} only")
        if self.same < _STEADY * self.lists:
            reasons.append(
                f"lists shown forwards and backwards have the same winner in {self.same} of {self.lists} cases only: "
                f"its answers go by place"
            )
            advice += [] if by_chance else ["let permutations vote against the bias (--votes 3)"]
        if summary.thoughts and limited > _LIMITED * summary.thoughts:
            reasons.append(f"{limited} of {summary.thoughts} thoughts ran into the limit that was set here")
            advice.append("allow longer thoughts (--max-thought-tokens)")
        if by_chance or repaired >= _UNREADABLE:
            return Verdict("unfit", tuple(reasons), tuple(advice))
        return Verdict("fit with reservations" if reasons else "fit", tuple(reasons), tuple(advice))


@dataclass(frozen=True)
class Examination:
    """What was found out about a model."""

    model: str
    backend: str
    template: TemplateFacts | None  # None on a server, whose template can't be seen
    format: FormatCheck
    checks: tuple[StrategyCheck, ...]
    reading: float | None  # tokens of prompts per second; None where that can't be told apart
    writing: float | None  # tokens written per second, over all rows of a batch
    seconds: float  # of all calls
    server: Mapping[str, Any] | None = None  # what it can do at /completions, where it is asked there


def examine(
    model: str,
    backend: str = DEFAULT_BACKEND,
    *,
    queries: int | None = None,
    candidates: int = 4,
    max_thought_tokens: int | None = None,
    quick: bool = False,
    device: str | None = None,
    dtype: str = "auto",
    **options: Any,
) -> Examination:
    """Examines a checkpoint (folder or hub name; `tiny` for the embedded one), or a server's model.

    `queries` is the number of lists (6, or 3 if quick), each of that many candidates and shown forwards and backwards;
    `options` are further arguments of `Ranker`.
    """
    opened: BenchmarkModel | None = None
    lists = clear_lists(queries or (_QUICK_QUERIES if quick else _QUERIES), candidates)
    limit = (_QUICK_THOUGHT if quick else _THOUGHT) if max_thought_tokens is None else max_thought_tokens
    options, checkpoint = {"max_repair_rate": 1.0, **options, "backend": backend, "max_thought_tokens": limit}, model
    if BACKENDS[backend].capabilities.reads_checkpoint:
        opened = open_model(model, None, device=device, dtype=dtype, seed=0)
        options["loaded"], checkpoint = (opened.model, opened.tokenizer), str(opened.checkpoint)
    strategies = _strategies(checkpoint, options)
    server = None if opened is not None else _abilities(checkpoint, strategies[0], options)
    started = time.perf_counter()
    checks, texts = [], list[Ranking]()
    with nullcontext() if opened is None else metered(opened.model) as meter:
        for strategy in strategies:
            check, rankings = _check(checkpoint, strategy, lists, options)
            checks.append(check)
            texts += rankings if opened is None and STRATEGIES[strategy].asks in COMPARED else []
        if opened is not None:
            free = Ranker(checkpoint, strategy=strategies[0], **options, answers="published", max_calls=1)
            texts = free.rank([each.request for each in lists])
    seconds = time.perf_counter() - started
    template, reading = None if opened is None else template_facts(opened), None
    writing: float | None = sum(check.summary.usage.completion_tokens for check in checks) / seconds
    if meter is not None:
        reading, writing = meter.reading.rate, meter.writing.rate
    return Examination(model, backend, template, format_of(texts), tuple(checks), reading, writing, seconds, server)


def _abilities(model: str, strategy: str, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    find = getattr(Ranker(model, strategy=strategy, **options).backend, "find_abilities", None)
    found = None if find is None else find()
    return None if found is None else dict(found.described())


def _strategies(checkpoint: str, options: Mapping[str, Any]) -> list[str]:
    """Those that the checkpoint, or the given template, has words for."""
    offered = tuple(STRATEGIES)
    if options.get("template") is not None:
        from r1ranker_ir.prompts.files import open_template

        template = open_template(options["template"])
        offered = tuple(name for name, strategy in STRATEGIES.items() if strategy.is_worded_by(template))
    elif "loaded" in options:
        offered = read_settings(checkpoint).strategies
    # Nothing is answered to a strategy that scores the query, so there is no answer to look at.
    return [name for name, strategy in STRATEGIES.items() if name in offered and strategy.asks != "likelihood"]


def _check(
    checkpoint: str, strategy: str, lists: Sequence[ClearList], options: Mapping[str, Any]
) -> tuple[StrategyCheck, list[Ranking]]:
    declared = STRATEGIES[strategy]
    own: dict[str, Any] = {"top_k": 1} if declared.asks == "best" else {}
    if declared.owns("shuffle_seed", None):
        own["shuffle_seed"] = None
    ranker = Ranker(checkpoint, strategy=strategy, **options, **own)
    asked = [each.request for each in lists] + [each.backwards() for each in lists]
    rankings = ranker.engine.run([ranker.program(request) for request in asked])
    winners, count = [ranking.best_first[0].id for ranking in rankings], len(lists)
    right = sum(winner == wanted for winner, wanted in zip(winners, [each.best for each in lists] * 2, strict=True))
    same = sum(one == other for one, other in zip(winners[:count], winners[count:], strict=True))
    summary = summarise(TracedRanking(strategy, ranking) for ranking in rankings)
    return StrategyCheck(strategy, count, len(lists[0].request.candidates), right, same, summary), rankings


def template_facts(opened: BenchmarkModel) -> TemplateFacts:
    """Looks at what a chat template makes of a short conversation."""
    from r1ranker_ir.backends.texts import ChatTokenizer

    tokenizer = opened.tokenizer
    ends = ChatTokenizer(tokenizer).end_ids(getattr(opened.model, "generation_config", None))
    end_tokens = tuple(map(str, tokenizer.convert_ids_to_tokens(sorted(ends))))
    think_token = len(tokenizer.encode("<think>", add_special_tokens=False)) == 1
    if not getattr(tokenizer, "chat_template", None):
        return TemplateFacts(False, "kept", "open", end_tokens, think_token)
    system, probe = "a system's words", "a user's words"
    text = _rendered(tokenizer, system=system, user=probe)
    kept: Literal["kept", "dropped", "refused"] = "refused" if text is None else "kept" if system in text else "dropped"
    tail = (text or _rendered(tokenizer, user=probe) or "").rpartition(probe)[2].rstrip()
    closed: Literal["closed", "open"] = "closed" if tail.endswith("</think>") else "open"
    return TemplateFacts(True, kept, "opened" if tail.endswith("<think>") else closed, end_tokens, think_token)


def _rendered(tokenizer: Any, **turns: str) -> str | None:
    from jinja2.exceptions import TemplateError

    messages = [{"role": role, "content": text} for role, text in turns.items()]
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, ValueError):
        return None


def format_of(rankings: Sequence[Ranking]) -> FormatCheck:
    """Looks at outputs that nothing held to the form."""
    steps = [step for ranking in rankings for step in ranking.steps]
    texts, broken = [step.text.lower() for step in steps], [step.text for step in steps if step.repaired]
    thoughts = sum("</think>" in text for text in texts)
    answers = sum("</answer>" in text.partition("<answer>")[2][1:] for text in texts)
    return FormatCheck(len(steps), thoughts, answers, len(steps) - len(broken), broken[0] if broken else "")
