"""The verb `r1ranker evaluate`: runs measured against judgments."""

from __future__ import annotations

import json
from typing import Literal

from r1ranker_ir.cli.console import MESSAGES, Messages, offer_only_run_queries, print_wide
from r1ranker_ir.cli.options import JUDGED_CORPUS, ONLY_RUN_QUERIES, measures_option
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.files.terminal_text import echo_json
from r1ranker_ir.option_fields import argument, option


@with_fields
def evaluate(
    corpus: str = JUDGED_CORPUS,
    runs: list[str] = argument(..., "TREC runs to measure, gzip if they end in .gz; - for standard input."),
    measures: str = measures_option("nDCG@10 RR@10 AP"),
    format_: Literal["table", "json"] = option(
        "table", "A table of means, or JSON that also holds each query's values.", flags=("--format",)
    ),
    only_run_queries: bool = ONLY_RUN_QUERIES,
    messages: Messages = MESSAGES,
) -> None:
    """Measure TREC runs against the judgments of a corpus.

    Judged queries that a run lacks count as 0 and are reported; with --only-run-queries they do not count. Ties are
    broken by document id, as in trec_eval.
    """
    messages.start()
    from r1ranker_ir.data import corpora
    from r1ranker_ir.data.trec_runs import Run, read_run
    from r1ranker_ir.eval.measuring import measures as measuring
    from r1ranker_ir.eval.output.sheets import measures_sheet

    parsed = measuring.parse_measures(measures)
    qrels = corpora.open_corpus(corpus).qrels()
    found: dict[str, Run] = {name: read_run(name) for name in runs}
    if only_run_queries:
        qrels, found, judged = measuring.common_queries(qrels, found)
        counted = len({judgment.query_id for judgment in qrels})
        messages.say(f"measured over {counted} of {judged} judged queries: those that all runs have")
    evaluations = {name: measuring.evaluate(qrels, run, parsed, name=name) for name, run in found.items()}
    offer_only_run_queries(evaluations)
    if format_ == "json":
        echo_json(json.dumps(measuring.measures_json(evaluations), indent=2, ensure_ascii=False))
    else:
        print_wide(measures_sheet(evaluations).table())
