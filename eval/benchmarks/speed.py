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
from typing import Any

from tqdm import tqdm

from r1ranker_ir.backends.local import CACHE_MEMORY, TransformersBackend, configured_context, thought_limit
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.errors import ContextLengthError, InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import Template, load_template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Program, RankingRequest, Usage

from .forcing import ForcedBackend, no_early_end
from .lists import MadeLists, made_thought, make_lists
from .meter import metered, share_of_peak
from .model import BenchmarkModel
from .naive import eliminate_naively, read_prompts
from .rows import FLOOR, Measurement, SpeedResult, SpeedRow, SpeedSettings
from .variants import PUBLISHED_STRATEGY, Variant

logger = logging.getLogger(__name__)

_WARM_UP_CANDIDATES = 3


@dataclass(frozen=True)
class _Bench:
    """What all variants share."""

    model: BenchmarkModel
    template: Template
    settings: SpeedSettings
    lists: MadeLists
    thought: str  # stands in place of the model's
    full_prompts: tuple[list[int], ...]  # token ids of each list's prompt as published

    def opened(self, variant: Variant) -> tuple[ForcedBackend, Prompt]:
        """A backend that has seen nothing yet, and its prompts."""
        backend = _backend(self.model, self.settings, reuse=variant.reuse)
        forced = ForcedBackend(backend, self.lists, best_first=variant.declared.asks == "order", thought=self.thought)
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
    measuring: dict[str, Callable[[], Measurement]] = {FLOOR: partial(_read, bench)}
    for variant in variants:
        naive = variant.strategy is None
        measuring[variant.name] = partial(_eliminate, bench) if naive else partial(_rank, bench, variant)
    found: dict[str, list[Measurement]] = {name: [] for name in measuring}
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
    floor, *rows = (_row(name, once, model) for name, once in found.items())
    return SpeedResult(settings, floor, tuple(rows), bench.lists.best_first)


def _backend(model: BenchmarkModel, settings: SpeedSettings, *, reuse: bool) -> TransformersBackend:
    kept = CACHE_MEMORY if settings.cache_memory is None else settings.cache_memory
    return TransformersBackend(
        model.name,
        loaded=(model.model, model.tokenizer),
        batch_size=settings.batch_size,
        max_thought_tokens=settings.thought_tokens,
        cache_memory=kept if reuse else 0,
    )


def _prepared(
    model: BenchmarkModel, variants: Sequence[Variant], settings: SpeedSettings, template: Template
) -> _Bench:
    """Makes the lists, and refuses what can't be measured before anything is."""
    context = configured_context(model.model)
    if thought_limit(settings.thought_tokens, context) < settings.thought_tokens:
        raise InputError(
            f"thoughts of {settings.thought_tokens} tokens take more than half of the context of {model.name!r}, "
            f"{context} tokens: lower --thought-tokens"
        )
    for section in (STRATEGIES[PUBLISHED_STRATEGY].section.name, *(variant.section for variant in variants)):
        template.wording(section, "passage")
    backend = _backend(model, settings, reuse=False)
    lists = make_lists(backend, settings)
    thought = made_thought(backend, settings.thought_tokens, random.Random(settings.seed))
    prompt = Prompt(template, backend)
    for variant in variants:
        try:
            cut = next(_program(variant, lists.requests[0], prompt)).cut_passages
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
    full = tuple(texts.prompt_ids(prompt.ask("iterative", request, everything).messages) for request in lists.requests)
    return _Bench(model, template, settings, lists, thought, full)


def _program(variant: Variant, request: RankingRequest, prompt: Prompt) -> Program:
    """The variant's program over a window that holds the whole list; the naive loop's prompts are those of `one`."""
    window = len(request.candidates)
    return variant.declared(request, prompt, window_size=window, stride=window - 1, options=variant.options)


def _warm_up(bench: _Bench) -> None:
    """Runs everything once on little, so that no measurement pays for what is done only once."""
    read_prompts(bench.model.model, bench.full_prompts[:1], 1)
    request = bench.lists.requests[0]
    few = replace(request, candidates=request.candidates[:_WARM_UP_CANDIDATES])
    variant = Variant("warm-up", PUBLISHED_STRATEGY, RankingOptions())
    backend, prompt = bench.opened(variant)
    Engine(backend).run([_program(variant, few, prompt)])


@contextmanager
def _measured(queries: int, model: BenchmarkModel) -> Iterator[Measurement]:
    """Measures seconds, the model's passes, and what a CUDA device had to hold."""
    import torch

    once, on_cuda = Measurement(queries), model.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    with metered(model.model) as once.metered:
        started, computing = time.perf_counter(), time.process_time()
        yield once
        if on_cuda:
            torch.cuda.synchronize()
        once.seconds, once.cpu_seconds = time.perf_counter() - started, time.process_time() - computing
    if on_cuda:
        once.device_memory_peak = torch.cuda.max_memory_allocated()


def _count(once: Measurement, usage: Usage, computed: int) -> None:
    once.calls, once.prompt_tokens, once.completion_tokens = usage.calls, usage.prompt_tokens, usage.completion_tokens
    once.prompt_tokens_computed = computed


def _read(bench: _Bench) -> Measurement:
    with _measured(bench.settings.queries, bench.model) as once:
        read_prompts(bench.model.model, bench.full_prompts, bench.settings.batch_size)
    tokens = sum(map(len, bench.full_prompts))
    _count(once, Usage(once.queries, tokens), tokens)
    return once


def _eliminate(bench: _Bench) -> Measurement:
    """The naive loop, one list after the other."""
    prompt = Prompt(bench.template, _backend(bench.model, bench.settings, reuse=False))
    usage = Usage()
    with _measured(bench.settings.naive_queries or bench.settings.queries, bench.model) as once:
        for request, best_first in zip(bench.lists.requests[: once.queries], bench.lists.best_first, strict=False):
            order, used = eliminate_naively(bench.model, prompt, request, best_first, bench.settings.thought_tokens)
            once.orders.append(order)
            usage += used
    _count(once, usage, usage.prompt_tokens)
    return once


def _rank(bench: _Bench, variant: Variant) -> Measurement:
    """A variant by the engine, as many lists at once as a batch holds."""
    backend, prompt = bench.opened(variant)
    engine = Engine(backend)
    with _measured(bench.settings.queries, bench.model) as once:
        rankings = engine.run([_program(variant, request, prompt) for request in bench.lists.requests])
    once.orders = [ranking.order for ranking in rankings]
    once.cache_memory_peak = engine.summary.cache_memory_peak
    _count(once, engine.summary.usage, engine.summary.prompt_tokens_computed)
    return once


def _row(name: str, measurements: Sequence[Measurement], model: BenchmarkModel) -> SpeedRow:
    import torch

    # The upper one of two in the middle: a measurement that was made, whose parts belong together.
    median = sorted(measurements, key=lambda once: once.seconds)[len(measurements) // 2]
    device_name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    seconds = tuple(once.seconds for once in measurements)
    shares = share_of_peak(median.metered, device_name)
    figures: dict[str, Any] = vars(median)
    return SpeedRow(**figures, variant=name, all_seconds=seconds, shares=shares)
