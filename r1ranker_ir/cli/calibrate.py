"""The verb `r1ranker calibrate`: a map from a ranker's places and probabilities to a probability of relevance."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.cli.console import MESSAGES, Messages, print_wide
from r1ranker_ir.cli.options import JUDGED_CORPUS
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.settings import CalibrationSettings
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import argument, option

if TYPE_CHECKING:
    from r1ranker_ir.models.calibration import Calibration

logger = logging.getLogger(__name__)


@with_fields
def calibrate(
    *,
    trace: str = argument(..., "Trace of rerank --save-traces, of one ranker with the options it is to be used with."),
    corpus: str = JUDGED_CORPUS,
    qrels: Path | None = option(
        None, "Judgments in place of the corpus's: TREC qrels, or BEIR's if it ends in .tsv.", group="What", unset=""
    ),
    settings: CalibrationSettings,
    checkpoint: str = option(..., "The checkpoint that made the trace, or a registered name.", group="Model"),
    output: Path | None = option(
        None,
        "Folder whose r1ranker.json gets the map, beside all that the checkpoint's own says; r1ranker serve and rerank "
        "take it as --settings-from.",
        unset="the checkpoint's own folder",
        group="Output",
    ),
    messages: Messages = MESSAGES,
) -> None:
    """Fit a map from a ranker's places and probabilities to a probability of relevance, for r1ranker serve.

    The map (isotonic regression) is fitted on some queries and measured on the others: Brier score, expected
    calibration error, and a reliability table. It becomes a part of r1ranker.json, one for each strategy, and holds
    under the conditions that the trace was made under (model, template, limits, options); else it is not used.
    """
    messages.start()
    from r1ranker_ir.data.corpora import open_corpus
    from r1ranker_ir.data.qrels import gains_of, read_qrels
    from r1ranker_ir.eval.measuring.calibrating import fit_calibration
    from r1ranker_ir.eval.output.reliability import reliability_remarks, reliability_sheets
    from r1ranker_ir.files.partial import write_whole
    from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs
    from r1ranker_ir.models.calibration import calibration_data
    from r1ranker_ir.models.checkpoints import SETTINGS_FILE, read_settings_file
    from r1ranker_ir.runs.traces import read_trace

    content, own = _settings_of(checkpoint)
    folder = own if output is None else output
    if folder is None:
        raise InputError(f"checkpoint {checkpoint!r} is not a folder of yours: give one as --output")
    file = folder / SETTINGS_FILE
    read = [NamedFile("TRACE", trace), NamedFile("--qrels", qrels), *corpus_inputs("--corpus", corpus)]
    check_outputs([NamedFile("--output", file)], read)
    judgments = open_corpus(corpus).qrels() if qrels is None else read_qrels(qrels)
    strategy, found = fit_calibration(read_trace(trace), gains_of(judgments), settings, corpus=corpus)
    maker = str(found.conditions.get("model", ""))
    if output is None and maker != folder.resolve().name:
        raise InputError(
            f"the trace was made by {maker!r}, and {checkpoint!r} is another checkpoint: name that one, or give "
            "--output"
        )
    known: dict[str, Any] = content.get("calibration") or {}
    if unlike := _unlike(known.get(strategy), found):
        logger.warning("the map of %s under other conditions is replaced: %s", strategy, "; ".join(unlike))
    whole = {**content, "calibration": {**known, strategy: calibration_data(found)}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"can't write {str(file)!r}: {error.strerror}: choose another --output") from error
    read_settings_file(file)
    for sheet in reliability_sheets({strategy: found}):
        print_wide(sheet.table())
    for line in reliability_remarks({strategy: found}):
        echo(line)
    messages.say(f"{file} holds the map of {strategy}")


def _unlike(earlier: Any, found: Calibration) -> tuple[str, ...]:
    from r1ranker_ir.models.calibration import condition_differences

    known = earlier.get("conditions") if isinstance(earlier, Mapping) else None
    return condition_differences(found.conditions, known) if isinstance(known, Mapping) else ()


def _settings_of(checkpoint: str) -> tuple[dict[str, Any], Path | None]:
    """What the checkpoint's settings file says, and the folder that the map may be written to."""
    from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, settings_content, settings_file
    from r1ranker_ir.rankers.source import checkpoint_of

    model = checkpoint_of(checkpoint)
    folder = Path(model)
    file = settings_file(model, None)
    own = folder if folder.is_dir() and folder.resolve() != TINY_CHECKPOINT.resolve() else None
    return ({} if file is None else dict(settings_content(file))), own
