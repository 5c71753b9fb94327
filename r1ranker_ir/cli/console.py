"""What verbs share: messages and progress on standard error, wide tables on standard output, folders of results."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from r1ranker_ir.files.terminal_text import console, echo, visible
from r1ranker_ir.option_fields import option

if TYPE_CHECKING:
    from r1ranker_ir.eval.measuring.measures import Evaluation
    from r1ranker_ir.files.paths import NamedFile

logger = logging.getLogger(__name__)


class StandardErrorHandler(logging.Handler):
    """Writes messages to standard error without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(visible(self.format(record)), file=sys.stderr)


@dataclass(frozen=True)
class Messages:
    """How much a verb says on standard error."""

    verbose: bool = option(False, "Say more on standard error.", group="Output", flags=("--verbose", "-v"))
    quiet: bool = option(False, "Only warnings and errors on standard error.", group="Output", flags=("--quiet", "-q"))

    def start(self) -> bool:
        """Prepares logging, and says whether progress bars are shown."""
        if self.verbose and self.quiet:
            raise typer.BadParameter("choose one of --verbose and --quiet", param_hint="--quiet")
        handler = StandardErrorHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        ours = logging.getLogger("r1ranker_ir")
        ours.addHandler(handler)
        ours.setLevel(logging.DEBUG if self.verbose else logging.WARNING)
        progress = sys.stderr.isatty() and not self.quiet
        if not progress:
            # Read by tqdm when it is first imported: the bars of ir_datasets and transformers have no other switch.
            os.environ.setdefault("TQDM_DISABLE", "1")
        catalogue = logging.getLogger("ir_datasets")
        # It sets its own level, so a level set here would not last.
        (catalogue.removeFilter if self.verbose else catalogue.addFilter)(_is_warning)
        return progress

    def say(self, *lines: str) -> None:
        """Prints lines of a summary, unless all is to be quiet."""
        for line in () if self.quiet else lines:
            echo(line, err=True)


MESSAGES = Messages()


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


@contextlib.contextmanager
def claimed_folder(
    output: Path | None, files: Sequence[str], read: Iterable[NamedFile], feature: str, inner: Iterable[Path] = ()
) -> Iterator[None]:
    """Makes a folder for results with pictures and those in it, keeps others out, and overwrites no input."""
    from r1ranker_ir.eval.output.pictures import prepare_folder
    from r1ranker_ir.files.locks import folder_lock
    from r1ranker_ir.files.paths import NamedFile, check_outputs

    if output is None:
        yield
        return
    folders = list(dict.fromkeys((output, *inner)))
    check_outputs([NamedFile("--output", folder / name) for folder in folders for name in files], read)
    for folder in folders:
        prepare_folder(folder, feature=feature, extra="eval")
    with folder_lock(output, "--output"):
        yield
