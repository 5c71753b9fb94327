"""How well a model ranks lists that it was not trained on: MRR, nDCG@10, and accuracy by list length."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ir_measures import RR, Qrel, nDCG

from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.data.qrels import GREATEST_GRADE
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.engine.closed_thoughts import count_closed
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.eval.measuring.measures import evaluate
from r1ranker_ir.models.checkpoints import CheckpointSettings
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.types import ClosedAt, Ranking

logger = logging.getLogger(__name__)

MEASURES = (RR, nDCG @ 10)


@dataclass(frozen=True)
class HeldOutResult:
    """What a model reaches on held-out lists.

    `accuracy_by_length` is, for each number of candidates shown, the share of exclusions that spared the best-judged
    ones; it is empty for strategies that do not exclude.
    """

    measures: dict[str, float]
    reciprocal_ranks: tuple[float, ...]
    accuracy_by_length: dict[int, float]
    repairs: int
    thoughts_closed: int
    rankings: tuple[Ranking, ...]
    closed_at: Mapping[ClosedAt, int] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """What is logged of it."""
        closed = {f"closed_at_{where}": count for where, count in self.closed_at.items()}
        accuracies = {f"accuracy@{length}": value for length, value in self.accuracy_by_length.items()}
        counts = {"repairs": self.repairs, "thoughts_closed": self.thoughts_closed}
        return {**self.measures, **accuracies, **counts, **closed}


def rank_held_out(
    model: Any,
    tokenizer: Any,
    renderer: PromptRenderer,
    records: Sequence[JudgedRequest],
    strategy: str,
    settings: CheckpointSettings,
) -> HeldOutResult:
    """Ranks records with a model in memory, greedily, as `Ranker` would rank them.

    The model is in evaluation mode meanwhile, and gradients stay as they are.
    """
    longest = settings.max_thought_tokens
    logger.info("measuring with %d held-out lists, whose thoughts may take %d tokens", len(records), longest)
    was_training = model.training
    model.eval()
    try:
        backend = TransformersBackend(
            "the model in training",
            loaded=(model, tokenizer),
            batch_size=settings.batch_size,
            max_thought_tokens=settings.max_thought_tokens,
        )
        prompt = Prompt(
            renderer.template,
            backend,
            max_passage_tokens=renderer.max_passage_tokens,
            max_query_tokens=renderer.max_query_tokens,
        )
        size, stride = settings.window_size, settings.stride
        # As Ranker has it: windows have to overlap.
        stride = stride if stride < size else max(1, size // 2)
        make = STRATEGIES[strategy]
        programs = [make(record.request, prompt, window_size=size, stride=stride) for record in records]
        return measure_rankings(Engine(backend, max_repair_rate=1.0).run(programs), records)
    finally:
        model.train(was_training)


def measure_rankings(rankings: Sequence[Ranking], records: Sequence[JudgedRequest]) -> HeldOutResult:
    """Measures rankings against the gains of their records, at least one; what has a gain is relevant for RR.

    Fractional and very great gains enter nDCG rounded to 1 / 100,000 of the list's best.
    """
    queries = [str(number) for number in range(len(records))]
    qrels = [
        Qrel(query, str(place), grade)
        for query, record in zip(queries, records, strict=True)
        for place, grade in enumerate(_grades(record))
    ]
    run = {
        query: tuple(RunEntry(str(place), -float(rank)) for rank, place in enumerate(ranking.order))
        for query, ranking in zip(queries, rankings, strict=True)
    }
    evaluation = evaluate(qrels, run, MEASURES, name="the held-out lists")
    steps = [step for ranking in rankings for step in ranking.steps]
    return HeldOutResult(
        {str(measure): evaluation.mean[measure] for measure in MEASURES},
        tuple(evaluation.per_query[query][RR] for query in queries),
        accuracy_by_length(rankings, records),
        sum(ranking.repairs for ranking in rankings),
        sum(step.thought_closed for step in steps),
        tuple(rankings),
        {where: count for where, count in count_closed(steps).items() if count},
    )


def _grades(record: JudgedRequest) -> list[int]:
    """Gains as whole numbers in the same proportions, which are all that nDCG with linear gains depends on."""
    best = max(record.gains)
    if best <= GREATEST_GRADE and all(float(gain).is_integer() for gain in record.gains):
        return [int(gain) for gain in record.gains]
    # However small, what has a gain is relevant.
    return [max(1, round(gain / best * GREATEST_GRADE)) if gain > 0 else 0 for gain in record.gains]


def accuracy_by_length(rankings: Sequence[Ranking], records: Sequence[JudgedRequest]) -> dict[int, float]:
    """Right exclusions by the number of candidates shown, over the steps where gains differ, the shortest first."""
    right, total = Counter[int](), Counter[int]()
    for ranking, record in zip(rankings, records, strict=True):
        for step in ranking.steps:
            if step.judged:
                continue
            gains = [record.gains[place] for place in step.shown]
            if len(step.outcome) == 1 and min(gains) < max(gains):
                total[len(gains)] += 1
                right[len(gains)] += record.gains[step.outcome[0]] < max(gains)
    return {length: right[length] / total[length] for length in sorted(total)}
