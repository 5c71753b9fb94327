"""What all verbs share: logging and progress on standard error, and wide tables on standard output."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from r1ranker_ir.files.terminal_text import console, visible

if TYPE_CHECKING:
    from r1ranker_ir.eval.measuring.measures import Evaluation

logger = logging.getLogger(__name__)


class StandardErrorHandler(logging.Handler):
    """Writes messages to standard error without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(visible(self.format(record)), file=sys.stderr)


def start(*, verbose: bool = False, quiet: bool = False) -> bool:
    """Prepares logging and progress bars."""
    if verbose and quiet:
        raise typer.BadParameter("choose one of --verbose and --quiet", param_hint="--quiet")
    handler = StandardErrorHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("r1ranker_ir")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG if verbose else logging.WARNING)
    progress = sys.stderr.isatty() and not quiet
    if not progress:
        # Read by tqdm when it is first imported: the bars of ir_datasets and transformers have no other switch.
        os.environ.setdefault("TQDM_DISABLE", "1")
    catalogue = logging.getLogger("ir_datasets")
    if verbose:
        catalogue.removeFilter(_is_warning)
    else:
        catalogue.addFilter(_is_warning)  # it sets its own level, so a level set here would not last
    return progress


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def offer_only_run_queries(evaluations: Mapping[str, Evaluation]) -> None:
    """Says what to do about judged queries that a run lacks, as after `rerank --queries 20`."""
    lacking = {name: each for name, each in evaluations.items() if each.missing}
    if lacking:
        judged = len(next(iter(lacking.values())).per_query)
        common = judged - len({query_id for each in lacking.values() for query_id in each.missing})
        logger.warning(
            "means over all %d judged queries say little about runs that have fewer: --only-run-queries measures over "
            "the %d that all runs have",
            judged,
            common,
        )


def print_wide(renderable: Any) -> None:
    """Prints a table whole, however narrow the terminal is said to be."""
    console(width=1000).print(renderable)
