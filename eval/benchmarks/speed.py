"""What each way to rank costs on one model: calls, tokens, seconds, with answers forced so that all rank alike."""

from __future__ import annotations

import gc
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from tqdm import tqdm

from r1ranker_ir.backends.limits import configured_context, thought_limit
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.errors import ContextLengthError, InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import Template, load_template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Program, RankingRequest, Usage

from .forcing import ForcedBackend, no_early_end, real_backend
from .lists import forced_order, made_thought, make_lists
from .meter import metered
from .model import BenchmarkModel
from .naive import eliminate_naively, read_prompts
from .rows import FLOOR, SpeedResult, SpeedRow, SpeedSettings
from .variants import PUBLISHED_STRATEGY, Variant

logger = logging.getLogger(__name__)

_WARM_UP_CANDIDATES = 3


@dataclass(frozen=True)
class _Bench:
    """What all variants share."""

    model: BenchmarkModel
    template: Template
    settings: SpeedSettings
    requests: tuple[RankingRequest, ...]
    thought: str  # stands in place of the model's
    full_prompts: tuple[list[int], ...]  # token ids of each list's prompt as published

    def opened(self, variant: Variant) -> tuple[ForcedBackend, Prompt]:
        """A backend that has seen nothing yet, and its prompts."""
        told = {"reuse": variant.reuse, "best_first": variant.declared.asks == "order"}
        forced = ForcedBackend(self.model, self.settings, thought=self.thought, **told)
        return forced, Prompt(self.template, forced)


def measure_speed(
    model: BenchmarkModel,
    variants: Sequence[Variant],
    settings: SpeedSettings,
    *,
    template: Template | None = None,
    progress: bool = False,
) -> SpeedResult:
    """Measures variants on made-up lists, after a warm-up, round by round; by the project's own prompts if `None`."""
    bench = _prepared(model, variants, settings, template or load_template())
    measuring: dict[str, Callable[[], SpeedRow]] = {FLOOR: partial(_read, bench)}
    for variant in variants:
        measuring[variant.name] = partial(_eliminate if variant.strategy is None else _rank, bench, variant)
    found: dict[str, list[SpeedRow]] = {name: [] for name in measuring}
    with no_early_end(model.model, model.tokenizer):
        _warm_up(bench)
        total = len(measuring) * settings.repeat
        with tqdm(total=total, unit="measurement", disable=None if progress else True) as bar:
            for _ in range(settings.repeat):
                gc.collect()
                for name, measure in measuring.items():
                    bar.set_postfix_str(name)
                    found[name].append(measure())
                    logger.info("%s took %.3f seconds", name, found[name][-1].seconds)
                    bar.update()
    floor, *rows = map(_median, found.values())
    return SpeedResult(settings, floor, tuple(rows), tuple(map(forced_order, bench.requests)))


def _median(rows: Sequence[SpeedRow]) -> SpeedRow:
    # The upper one of two in the middle: a measurement that was made, whose parts belong together.
    median = sorted(rows, key=lambda once: once.seconds)[len(rows) // 2]
    return replace(median, all_seconds=tuple(once.seconds for once in rows))


def _prepared(
    model: BenchmarkModel, variants: Sequence[Variant], settings: SpeedSettings, template: Template
) -> _Bench:
    """Makes the lists, and refuses what can't be measured before anything is."""
    context = configured_context(model.model.config)
    if thought_limit(settings.thought_tokens, context) < settings.thought_tokens:
        raise InputError(
            f"thoughts of {settings.thought_tokens} tokens take more than half of the context of {model.name!r}, "
            f"{context} tokens: lower --thought-tokens"
        )
    for section in (STRATEGIES[PUBLISHED_STRATEGY].section.name, *(variant.section for variant in variants)):
        template.wording(section, "passage")
    backend = real_backend(model, settings)
    requests = make_lists(backend, settings)
    thought = made_thought(backend, settings.thought_tokens, random.Random(settings.seed))
    prompt = Prompt(template, backend)
    for variant in variants:
        try:
            cut = next(_program(variant, requests[0], prompt)).cut_passages
        except ContextLengthError:
            cut = settings.candidates
        if cut:
            raise InputError(
                f"{settings.candidates} candidates of {settings.passage_tokens} tokens, with a thought of "
                f"{settings.thought_tokens}, do not fit into the context of {model.name!r}, {context} tokens: lower "
                f"--candidates, --passage-tokens or --thought-tokens"
            )
    texts = ChatTokenizer(model.tokenizer)
    everything = range(settings.candidates)
    full = tuple(texts.prompt_ids(prompt.ask("iterative", request, everything).messages) for request in requests)
    return _Bench(model, template, settings, requests, thought, full)


def _program(variant: Variant, request: RankingRequest, prompt: Prompt) -> Program:
    """The variant's program over a window that holds the whole list; the naive loop's prompts are those of `one`."""
    window = len(request.candidates)
    return variant.declared(request, prompt, window_size=window, stride=window - 1, options=variant.options)


def _warm_up(bench: _Bench) -> None:
    """Runs everything once on little, so that no measurement pays for what is done only once."""
    read_prompts(bench.model, bench.full_prompts[:1], 1)
    request = bench.requests[0]
    few = replace(request, candidates=request.candidates[:_WARM_UP_CANDIDATES])
    variant = Variant("warm-up", PUBLISHED_STRATEGY, RankingOptions())
    backend, prompt = bench.opened(variant)
    Engine(backend).run([_program(variant, few, prompt)])


@contextmanager
def _measured(name: str, queries: int, model: BenchmarkModel) -> Iterator[SpeedRow]:
    """Measures seconds and the model's passes."""
    import torch

    row, on_cuda = SpeedRow(name, queries), model.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
    with metered(model.model) as row.metered:
        started = time.perf_counter()
        yield row
        if on_cuda:
            torch.cuda.synchronize()
        row.seconds = time.perf_counter() - started


def _count(row: SpeedRow, usage: Usage, computed: int) -> SpeedRow:
    row.calls, row.prompt_tokens, row.completion_tokens = usage.calls, usage.prompt_tokens, usage.completion_tokens
    row.prompt_tokens_computed = computed
    return row


def _read(bench: _Bench) -> SpeedRow:
    with _measured(FLOOR, bench.settings.queries, bench.model) as row:
        read_prompts(bench.model, bench.full_prompts, bench.settings.batch_size)
    tokens = sum(map(len, bench.full_prompts))
    return _count(row, Usage(row.queries, tokens), tokens)


def _eliminate(bench: _Bench, variant: Variant) -> SpeedRow:
    """The naive loop, one list after the other."""
    prompt = Prompt(bench.template, real_backend(bench.model, bench.settings))
    usage, queries = Usage(), bench.settings.naive_queries or bench.settings.queries
    with _measured(variant.name, queries, bench.model) as row:
        for request in bench.requests[:queries]:
            order, used = eliminate_naively(bench.model, prompt, request, bench.settings.thought_tokens)
            row.orders.append(order)
            usage += used
    return _count(row, usage, usage.prompt_tokens)


def _rank(bench: _Bench, variant: Variant) -> SpeedRow:
    """A variant by the engine, as many lists at once as a batch holds."""
    backend, prompt = bench.opened(variant)
    engine = Engine(backend)
    with _measured(variant.name, bench.settings.queries, bench.model) as row:
        rankings = engine.run([_program(variant, request, prompt) for request in bench.requests])
    row.orders = [ranking.order for ranking in rankings]
    row.cache_memory_peak = engine.summary.cache_memory_peak
    return _count(row, engine.summary.usage, engine.summary.prompt_tokens_computed)
