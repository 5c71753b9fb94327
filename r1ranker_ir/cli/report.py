"""The verb `r1ranker report`: runs and traces as one HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import JUDGED_CORPUS, ONLY_RUN_QUERIES, measures_option
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.eval.pages.settings import ReportSettings
from r1ranker_ir.option_fields import argument, option

if TYPE_CHECKING:
    from r1ranker_ir.runs.traces import TracedRanking


@with_fields
def report(
    *,
    corpus: str = JUDGED_CORPUS,
    runs: list[str] | None = argument(None, "TREC runs, the baseline first; gzip if they end in .gz."),
    traces: list[Path] | None = option(
        None,
        "Trace of rerank --save-traces; repeatable. One that ends with a run's orders tells of that run, any other "
        "one makes a run of its own.",
        group="What",
        unset="none",
    ),
    qrels: Path | None = option(
        None, "Judgments in place of the corpus's: TREC qrels, or BEIR's if it ends in .tsv.", group="What", unset=""
    ),
    measures: str = measures_option("nDCG@10 RR@10"),
    only_run_queries: bool = ONLY_RUN_QUERIES,
    settings: ReportSettings,
    calibration: Path | None = option(
        None, "r1ranker.json of r1ranker calibrate, whose reliability is to be shown.", unset="none"
    ),
    output: str = option(..., "HTML file to write; - for standard output.", group="Output"),
    messages: Messages = MESSAGES,
) -> None:
    """Write runs and traces as one HTML page: measures, queries to sort, and each ranking as it happened.

    The page loads nothing from elsewhere. It holds the texts of queries and passages: only its owner may read it.
    """
    messages.start()
    from r1ranker_ir.data.corpora import open_corpus
    from r1ranker_ir.data.qrels import read_qrels
    from r1ranker_ir.data.trec_runs import read_run
    from r1ranker_ir.eval.measuring.measures import parse_measures
    from r1ranker_ir.eval.pages.calibration import calibration_sections
    from r1ranker_ir.eval.pages.report import build_report
    from r1ranker_ir.eval.pages.sources import named_runs
    from r1ranker_ir.files.partial import write_whole
    from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs
    from r1ranker_ir.runs.traces import read_trace

    files = runs or []
    read = [NamedFile("RUNS", each) for each in files] + [NamedFile("--traces", each) for each in traces or []]
    read += [NamedFile("--qrels", qrels), NamedFile("--calibration", calibration), *corpus_inputs("--corpus", corpus)]
    check_outputs([NamedFile("--output", output)], read)
    told: dict[str, Iterable[TracedRanking]] = {name: read_trace(path) for name, path in _names(traces or []).items()}
    page = build_report(
        open_corpus(corpus),
        named_runs(files, {file: read_run(file) for file in files}),
        told,
        settings,
        measures=parse_measures(measures),
        only_run_queries=only_run_queries,
        qrels=None if qrels is None else read_qrels(qrels),
        sections=[] if calibration is None else calibration_sections(calibration),
    )
    write_whole(output, page, private=True)
    messages.say(f"{output}: {len(page.encode()) / 1e6:.1f} MB")


def _names(traces: list[Path]) -> dict[str, Path]:
    """Traces by their stems, where these tell them apart."""
    stems = [each.name.removesuffix(".gz").removesuffix(".jsonl") for each in traces]
    return dict(zip(stems if len(set(stems)) == len(stems) else map(str, traces), traces, strict=True))
