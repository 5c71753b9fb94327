"""What each way to rank costs on one model: calls, tokens, seconds, with answers forced so that all rank alike."""

from __future__ import annotations

import gc
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm

from r1ranker_ir.backends.limits import configured_context, thought_limit
from r1ranker_ir.backends.local import CACHE_MEMORY, TransformersBackend
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.errors import ContextLengthError, InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import Template, load_template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Program, RankingRequest

from .forcing import ForcedBackend, no_early_end
from .lists import MadeLists, made_thought, make_lists
from .meter import Metered, metered, share_of_peak
from .model import BenchmarkModel
from .naive import eliminate_naively, read_prompts
from .rows import FLOOR, SpeedResult, SpeedRow, SpeedSettings
from .variants import PUBLISHED_STRATEGY, Variant

logger = logging.getLogger(__name__)

_WARM_UP_CANDIDATES = 3


@dataclass(frozen=True)
class _Bench:
    """What all variants share.

    Args:
        model: the model.
        template: the wording.
        settings: of the benchmark.
        lists: what is ranked.
        thought: stands in place of the model's.
        full_prompts: token ids of each list's prompt as published.
    """

    model: BenchmarkModel
    template: Template
    settings: SpeedSettings
    lists: MadeLists
    thought: str
    full_prompts: tuple[list[int], ...]

    def opened(self, variant: Variant) -> tuple[ForcedBackend, Prompt]:
        """A backend that has seen nothing yet, and its prompts."""
        backend = _backend(self.model, self.settings, reuse=variant.reuse)
        forced = ForcedBackend(backend, self.lists, best_first=variant.declared.asks == "order", thought=self.thought)
        return forced, Prompt(self.template, forced)


@dataclass
class _Once:
    """One measurement of one variant."""

    queries: int
    calls: int = 0
    prompt_tokens: int = 0
    computed: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    metered: Metered = field(default_factory=Metered)
    orders: list[tuple[int, ...]] = field(default_factory=list)
    cache_memory_peak: int = 0
    device_memory_peak: int | None = None


def measure_speed(
    model: BenchmarkModel,
    variants: Sequence[Variant],
    settings: SpeedSettings,
    *,
    template: Template | None = None,
    progress: bool = False,
) -> SpeedResult:
    """Measures variants on made-up lists, after a warm-up, round by round.

    Args:
        model: the model.
        variants: the ways to rank.
        settings: the lists, and how often.
        template: the prompts' wording; the project's own if `None`, whatever the checkpoint's.
        progress: show a progress bar on a terminal.

    Returns:
        What each took.

    Raises:
        InputError: if the lists do not fit into the model's context, or the template lacks what a variant needs.
    """
    bench = _prepared(model, variants, settings, template or load_template())
    measuring: dict[str, Callable[[], _Once]] = {FLOOR: lambda: _read(bench)}
    measuring |= {variant.name: _measuring(bench, variant) for variant in variants}
    found: dict[str, list[_Once]] = {name: [] for name in measuring}
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
    """Makes the lists, and finds out before anything is measured what can't be."""
    context = configured_context(model.model.config)
    if thought_limit(settings.thought_tokens, context) < settings.thought_tokens:
        raise InputError(
            f"thoughts of {settings.thought_tokens} tokens take more than half of the context of {model.name!r}, "
            f"{context} tokens: lower --thought-tokens"
        )
    for section in (STRATEGIES[PUBLISHED_STRATEGY].section.name, *(variant.section for variant in variants)):
        template.wording(section, "passage")
    backend = _backend(model, settings, reuse=False)
    lists = make_lists(
        backend,
        queries=settings.queries,
        candidates=settings.candidates,
        passage_tokens=settings.passage_tokens,
        order=settings.order,
        seed=settings.seed,
    )
    thought = made_thought(backend, settings.thought_tokens, random.Random(settings.seed))
    prompt = Prompt(template, backend)
    for variant in variants:
        _check_fits(variant, lists.requests[0], prompt, model, settings)
    texts = ChatTokenizer(model.tokenizer)
    everything = range(settings.candidates)
    full = tuple(texts.prompt_ids(prompt.ask("iterative", request, everything).messages) for request in lists.requests)
    return _Bench(model, template, settings, lists, thought, full)


def _check_fits(
    variant: Variant, request: RankingRequest, prompt: Prompt, model: BenchmarkModel, settings: SpeedSettings
) -> None:
    try:
        cut = next(_program(variant, request, prompt)).cut_passages
    except ContextLengthError:
        cut = settings.candidates
    if cut:
        raise InputError(
            f"{settings.candidates} candidates of {settings.passage_tokens} tokens, with a thought of "
            f"{settings.thought_tokens}, do not fit into the context of {model.name!r}, "
            f"{configured_context(model.model.config)} tokens: lower --candidates, --passage-tokens or --thought-tokens"
        )


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
def _measured(once: _Once, model: Any) -> Iterator[None]:
    """Measures seconds, the model's passes, and what a CUDA device had to hold."""
    import torch

    on_cuda = model.get_input_embeddings().weight.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    with metered(model) as once.metered:
        started, computing = time.perf_counter(), time.process_time()
        yield
        if on_cuda:
            torch.cuda.synchronize()
        once.seconds, once.cpu_seconds = time.perf_counter() - started, time.process_time() - computing
    if on_cuda:
        once.device_memory_peak = torch.cuda.max_memory_allocated()


def _measuring(bench: _Bench, variant: Variant) -> Callable[[], _Once]:
    return (lambda: _eliminate(bench)) if variant.strategy is None else (lambda: _rank(bench, variant))


def _read(bench: _Bench) -> _Once:
    tokens = sum(map(len, bench.full_prompts))
    once = _Once(bench.settings.queries, bench.settings.queries, tokens, tokens)
    with _measured(once, bench.model.model):
        read_prompts(bench.model.model, bench.full_prompts, bench.settings.batch_size)
    return once


def _eliminate(bench: _Bench) -> _Once:
    """The naive loop, one list after the other."""
    once = _Once(bench.settings.naive_queries or bench.settings.queries)
    prompt = Prompt(bench.template, _backend(bench.model, bench.settings, reuse=False))
    lists = zip(bench.lists.requests[: once.queries], bench.lists.best_first, strict=False)
    with _measured(once, bench.model.model):
        for request, best_first in lists:
            order, counted = eliminate_naively(
                bench.model.model,
                bench.model.tokenizer,
                prompt,
                request,
                best_first,
                bench.settings.thought_tokens,
            )
            once.orders.append(order)
            once.calls += counted.calls
            once.prompt_tokens += counted.prompt_tokens
            once.completion_tokens += counted.completion_tokens
    once.computed = once.prompt_tokens
    return once


def _rank(bench: _Bench, variant: Variant) -> _Once:
    """A variant by the engine, as many lists at once as a batch holds."""
    once = _Once(bench.settings.queries)
    backend, prompt = bench.opened(variant)
    engine = Engine(backend)
    with _measured(once, bench.model.model):
        rankings = engine.run([_program(variant, request, prompt) for request in bench.lists.requests])
    summary = engine.summary
    once.orders = [ranking.order for ranking in rankings]
    once.calls = summary.usage.calls
    once.prompt_tokens, once.computed = summary.usage.prompt_tokens, summary.prompt_tokens_computed
    once.completion_tokens = summary.usage.completion_tokens
    once.cache_memory_peak = summary.cache_memory_peak
    return once


def _row(name: str, measurements: Sequence[_Once], model: BenchmarkModel) -> SpeedRow:
    import torch

    # The upper one of two in the middle: a measurement that was made, whose parts belong together.
    median = sorted(measurements, key=lambda once: once.seconds)[len(measurements) // 2]
    device_name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    return SpeedRow(
        variant=name,
        calls=median.calls,
        prompt_tokens=median.prompt_tokens,
        prompt_tokens_computed=median.computed,
        completion_tokens=median.completion_tokens,
        seconds=median.seconds,
        all_seconds=tuple(once.seconds for once in measurements),
        cpu_seconds=median.cpu_seconds,
        metered=median.metered,
        cache_memory_peak=median.cache_memory_peak,
        device_memory_peak=median.device_memory_peak,
        shares=share_of_peak(median.metered, device_name),
        orders=tuple(median.orders),
        queries=median.queries,
    )
