"""The verb `r1ranker compare`: runs against a baseline, with tests of significance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from r1ranker_ir.cli.console import MESSAGES, Messages, offer_only_run_queries
from r1ranker_ir.cli.options import JUDGED_CORPUS, ONLY_RUN_QUERIES, measures_option
from r1ranker_ir.cli.parameters import StatedOf, with_fields
from r1ranker_ir.eval.measuring.settings import ComparisonSettings
from r1ranker_ir.files.terminal_text import echo, echo_json
from r1ranker_ir.option_fields import argument, option

StatedSettings = Annotated[Mapping[str, Any], StatedOf(ComparisonSettings)]


@with_fields
def compare(
    *,
    corpus: str = JUDGED_CORPUS,
    baseline: str = option(..., "TREC run that the others are compared with, such as BM25's."),
    runs: list[str] = argument(..., "TREC runs to compare, gzip if they end in .gz; - for standard input."),
    measures: str = measures_option("nDCG@10 RR@10"),
    settings: StatedSettings,
    format_: Literal["table", "markdown", "json"] = option(
        "table", "How to write it; JSON also holds each query's differences.", flags=("--format",)
    ),
    only_run_queries: bool = ONLY_RUN_QUERIES,
    messages: Messages = MESSAGES,
) -> None:
    """Compare TREC runs with a baseline: differences with intervals, tests, and queries that got better or worse.

    Judged queries that a run lacks count as 0, and nothing is marked between runs that lack different ones; with
    --only-run-queries they do not count. Queries without judgments do not count. The report
    says how many there are of each.
    """
    messages.start()
    from r1ranker_ir.data import corpora
    from r1ranker_ir.data.trec_runs import Run, read_run
    from r1ranker_ir.eval.measuring.comparison import check_comparable, compare_runs
    from r1ranker_ir.eval.measuring.measures import common_queries, evaluate, parse_measures, short_names
    from r1ranker_ir.eval.output.comparison_report import FORMATS

    compared_by, parsed = ComparisonSettings(**settings), parse_measures(measures)
    check_comparable(parsed)
    files = dict(zip(short_names([baseline, *runs]), [baseline, *runs], strict=True))
    name_of_baseline = next(iter(files))
    qrels = corpora.open_corpus(corpus).qrels()
    found: dict[str, Run] = {name: read_run(file) for name, file in files.items()}
    judged = None
    if only_run_queries:
        qrels, found, judged = common_queries(qrels, found)
    evaluations = {name: evaluate(qrels, run, parsed, name=name) for name, run in found.items()}
    offer_only_run_queries(evaluations)
    compared = compare_runs(evaluations, name_of_baseline, compared_by, judged=judged)
    printed = echo_json if format_ == "json" else echo
    printed(FORMATS[format_](compared), nl=False)
