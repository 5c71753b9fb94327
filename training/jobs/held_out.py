"""How well a model ranks lists that it was not trained on: MRR, nDCG@10, and accuracy by list length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.engine.closed_thoughts import count_closed
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.data.records import Record
from r1ranker_ir.types import ClosedAt, Ranking

# trec_eval wants whole numbers, and takes memory for each up to the greatest one.
_GREATEST_GRADE = 100_000


@dataclass(frozen=True)
class HeldOutResult:
    """What a model reaches on held-out lists."""

    measures: dict[str, float]
    reciprocal_ranks: tuple[float, ...]
    accuracy_by_length: dict[int, float]
    repairs: int
    thoughts_closed: int
    rankings: tuple[Ranking, ...]
    closed_at: Mapping[ClosedAt, int] = field(default_factory=dict)


def rank_held_out(
    model: Any,
    tokenizer: Any,
    renderer: PromptRenderer,
    records: Sequence[Record],
    strategy: str,
    *,
    batch_size: int = 32,
    window_size: int = 20,
    stride: int = 10,
    max_thought_tokens: int = 1024,
    progress: bool = False,
) -> HeldOutResult:
    """Ranks records with a model in memory, greedily, as `Ranker` would rank them."""
    was_training = model.training
    model.eval()
    try:
        backend = TransformersBackend(
            "the model in training",
            loaded=(model, tokenizer),
            batch_size=batch_size,
            max_thought_tokens=max_thought_tokens,
        )
        prompt = Prompt(
            renderer.template,
            backend,
            max_passage_tokens=renderer.max_passage_tokens,
            max_query_tokens=renderer.max_query_tokens,
        )
        engine = Engine(backend, max_repair_rate=1.0, progress=progress)
        if stride >= window_size:
            # As Ranker has it: windows have to overlap.
            stride = max(1, window_size // 2)
        rankings = engine.run(
            [
                STRATEGIES[strategy](record.request(), prompt, window_size=window_size, stride=stride)
                for record in records
            ]
        )
        return measure_rankings(rankings, records)
    finally:
        model.train(was_training)


def measure_rankings(rankings: Sequence[Ranking], records: Sequence[Record]) -> HeldOutResult:
    """Measures rankings against the gains of their records."""
    import ir_measures
    from ir_measures import RR, Qrel, ScoredDoc, nDCG

    qrels, run = [], []
    for number, (ranking, record) in enumerate(zip(rankings, records, strict=True)):
        query = str(number)
        for place, grade in enumerate(_grades(record)):
            qrels.append(Qrel(query, str(place), grade))
        for rank, place in enumerate(ranking.order):
            run.append(ScoredDoc(query, str(place), -float(rank)))
    values = {
        (str(metric.measure), metric.query_id): metric.value
        for metric in ir_measures.iter_calc([RR, nDCG @ 10], qrels, run)
    }
    queries = [str(number) for number in range(len(records))]
    measures = {
        name: sum(values.get((name, query), 0.0) for query in queries) / max(1, len(queries))
        for name in ("RR", "nDCG@10")
    }
    steps = [step for ranking in rankings for step in ranking.steps]
    return HeldOutResult(
        measures,
        tuple(values.get(("RR", query), 0.0) for query in queries),
        accuracy_by_length(rankings, records),
        sum(ranking.repairs for ranking in rankings),
        sum(step.thought_closed for step in steps),
        tuple(rankings),
        {where: count for where, count in count_closed(steps).items() if count},
    )


def _grades(record: Record) -> list[int]:
    """Gains as whole numbers in the same proportions, which are all that nDCG with linear gains depends on."""
    best = record.best_gain
    if best <= _GREATEST_GRADE and all(float(gain).is_integer() for gain in record.gains):
        return [int(gain) for gain in record.gains]
    # However small, what has a gain is relevant.
    return [max(1, round(gain / best * _GREATEST_GRADE)) if gain > 0 else 0 for gain in record.gains]


def accuracy_by_length(rankings: Sequence[Ranking], records: Sequence[Record]) -> dict[int, float]:
    """Counts right exclusions by the number of candidates shown."""
    right, total = Counter[int](), Counter[int]()
    for ranking, record in zip(rankings, records, strict=True):
        for step in ranking.steps:
            gains = [record.gains[place] for place in step.shown]
            if len(step.outcome) != 1 or min(gains) == max(gains):
                continue
            total[len(gains)] += 1
            right[len(gains)] += record.gains[step.outcome[0]] < max(gains)
    return {length: right[length] / total[length] for length in sorted(total)}
