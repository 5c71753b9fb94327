"""What each way to rank reaches on a judged corpus, beside what it costs: nothing is forced here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.comparison import Comparison, ComparisonSettings, check_comparable, compare_runs
from r1ranker_ir.eval.measuring.judged_rows import CostRow, judgments_of, rank_timed
from r1ranker_ir.eval.measuring.measures import evaluate
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.requests import entries_of
from r1ranker_ir.runs.reranking import RunSource

from .model import BenchmarkModel
from .variants import ONE, Variant

if TYPE_CHECKING:
    from ir_measures import Measure


@dataclass(frozen=True)
class QualityResult:
    """All rows of a benchmark of quality."""

    rows: tuple[CostRow, ...]  # of the variants, in their order
    comparison: Comparison  # of their measures with those of the baseline, by name
    source: RunSource  # what was reranked
    queries: int  # how many queries


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


def _memory(variant: Variant, cache_memory: int | str | None) -> dict[str, Any]:
    if not variant.reuse:
        return {"cache_memory": 0}
    return {} if cache_memory is None else {"cache_memory": cache_memory}


def measure_quality(
    model: BenchmarkModel,
    variants: Sequence[Variant],
    source: RunSource,
    measures: Sequence[Measure],
    *,
    batch_size: int | None = None,
    max_thought_tokens: int | None = None,
    cache_memory: int | str | None = None,
    progress: bool = False,
) -> QualityResult:
    """Reranks a run by each variant, and measures it."""
    if model.checkpoint is None:
        raise InputError(f"{model.name!r} has random weights, which rank no better than chance: give a checkpoint")
    names = [variant.name for variant in variants]
    if len(names) < 2:
        raise InputError(f"there is nothing to compare with {' '.join(names) or 'nothing'}: give another variant too")
    if naive := [variant.name for variant in variants if variant.strategy is None]:
        raise InputError(f"variant {naive[0]!r} is for measuring speed: its answers are always forced. Use {ONE!r}")
    check_comparable(measures)
    requests = list(source.requests())
    qrels = judgments_of(source.corpus, requests)
    rankers = {
        variant.name: Ranker(
            model.checkpoint,
            strategy=variant.declared,
            loaded=(model.model, model.tokenizer),
            batch_size=batch_size,
            max_thought_tokens=max_thought_tokens,
            progress=progress,
            **vars(variant.options),
            **_memory(variant, cache_memory),
        )
        for variant in variants
    }
    rows, evaluations = [], {}
    for name, ranker in rankers.items():
        row, rankings = rank_timed(name, ranker, requests)
        rows.append(row)
        run = {ranking.request.query_id: entries_of(ranking) for ranking in rankings}
        evaluations[name] = evaluate(qrels, run, measures, name=name)
    calls = {row.name: row.summary.usage.calls / row.summary.queries for row in rows}
    baseline = ONE if ONE in names else names[0]
    comparison = compare_runs(evaluations, baseline, ComparisonSettings(), calls=calls)
    return QualityResult(tuple(rows), comparison, source, len(requests))
