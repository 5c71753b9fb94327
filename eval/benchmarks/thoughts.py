"""Does a bank of thoughts help: no examples against thoughts, random ones, and answers alone, on held-out queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.comparison import Comparison, compare_runs
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.eval.measuring.settings import ComparisonSettings
from r1ranker_ir.rankers.source import RankerSource
from r1ranker_ir.runs.requests import entries_of
from r1ranker_ir.runs.run_source import RunSource
from r1ranker_ir.thoughts.bank import read_bank
from r1ranker_ir.thoughts.choosing import EXAMPLE_KINDS

BASELINE = "no examples"
NAMES = {"nearest": "nearest thoughts", "random": "random thoughts", "answers": "nearest answers alone"}


@dataclass(frozen=True)
class ThoughtComparison:
    """The comparison; by kind what was left out of the examples and how many tokens were read; queries of the bank."""

    comparison: Comparison
    left_out: Mapping[str, str]
    tokens: Mapping[str, int]
    of_the_bank: int


def compare_thoughts(
    source: RunSource,
    ranker: RankerSource,
    *,
    measures: str = "nDCG@10 RR@10",
    settings: ComparisonSettings | None = None,
    progress: bool = False,
) -> ThoughtComparison:
    """Reranks a run's judged queries that the bank does not hold, four times, and tests the differences in pairs."""
    if ranker.settings.thoughts is None:
        raise InputError("no bank of thoughts is given: name one (--thoughts)")
    bank = read_bank(ranker.settings.thoughts)
    known = {example.query_id for example in bank.examples} | {example.query for example in bank.examples}
    corpus = open_corpus(source.corpus)
    qrels = list(corpus.qrels())
    judged = {judgment.query_id for judgment in qrels}
    asked = [request for request in source.requests() if request.query_id in judged]
    requests = [each for each in asked if each.query_id not in known and each.query not in known]
    if len(requests) < 2:
        raise InputError(
            f"{len(requests)} of the {len(asked)} judged queries of the run are not in the bank {bank.path!r}: compare "
            "on a run of at least 2 others"
        )
    parsed = parse_measures(measures)
    held = {request.query_id for request in requests}
    counted = [judgment for judgment in qrels if judgment.query_id in held]
    runs: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    tokens: dict[str, int] = {}
    opened = ranker.open(progress=progress)
    asked_with: dict[str, dict[str, Any]] = {BASELINE: {"thoughts": None}}
    asked_with |= {NAMES[kind]: {"example_kind": kind} for kind in EXAMPLE_KINDS}
    for name, changes in asked_with.items():
        asking, before = opened.having(**changes), opened.summary.usage
        runs[name] = {ranking.request.query_id: entries_of(ranking) for ranking in asking.rank(requests)}
        tokens[name] = (opened.summary.usage - before).prompt_tokens
        if asking.examples is not None:
            left_out[name] = asking.examples.report()
    evaluations = {name: evaluate(counted, run, parsed, name=name) for name, run in runs.items()}
    return ThoughtComparison(
        compare_runs(evaluations, BASELINE, settings), left_out, tokens, len(asked) - len(requests)
    )
