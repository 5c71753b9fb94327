"""What each way to rank reaches on a judged corpus, beside what it costs: `r1ranker benchmark --corpus`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.benchmarks.model import BenchmarkModel
from r1ranker_ir.eval.benchmarks.variants import ONE, Variant
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.reranking import RunSource

from .entries import Entry
from .shootout import EqualTerms, ShootoutResult, run_shootout

if TYPE_CHECKING:
    from ir_measures import Measure


def possible_variants(checkpoint: str, variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Leaves out what a checkpoint does not follow, by its `r1ranker.json`, or has no wording for."""
    settings = read_settings(checkpoint)
    template = settings.template or load_template()
    return tuple(
        variant
        for variant in variants
        if variant.strategy in settings.strategies
        and (not variant.declared.asked_with(variant.options).names_excluded or template.mark is not None)
    )


def measure_quality(
    model: BenchmarkModel,
    variants: Sequence[Variant],
    source: RunSource,
    measures: Sequence[Measure],
    *,
    cache_memory: int | str | None = None,
    **options: Any,
) -> ShootoutResult:
    """Reranks a run by each variant with a checkpoint in memory; the baseline is `one`, or else the first variant.

    `options` are arguments of `Ranker`; the checkpoint's own hold where they are `None`.
    """
    assert model.checkpoint is not None, "random weights rank no better than chance"
    names = [variant.name for variant in variants]
    if len(names) < 2:
        raise InputError(f"there is nothing to compare with {' '.join(names) or 'nothing'}: give another variant too")
    if naive := [variant.name for variant in variants if variant.strategy is None]:
        raise InputError(f"variant {naive[0]!r} is for measuring speed: its answers are always forced. Use {ONE!r}")
    entries = []
    for variant in variants:
        kept = cache_memory if variant.reuse else 0
        own = options if kept is None else {**options, "cache_memory": kept}
        told = {**own, "options": variant.options, "loaded": (model.model, model.tokenizer)}
        entries.append(Entry(variant.name, model.checkpoint, variant.declared.name, told))
        # So that what a variant lacks is said before another one is run; they share the model.
        Ranker(model.checkpoint, strategy=variant.declared, **told)
    baseline = ONE if ONE in names else names[0]
    return run_shootout(entries, EqualTerms(source, tuple(measures)), baseline=baseline)
