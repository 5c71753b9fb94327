"""What changed, as tables, sentences and JSON: forgetting is said as plainly as gain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from r1ranker_ir.eval.measuring.significance import LEVEL, Interval
from r1ranker_ir.eval.output.comparison_report import p_text
from r1ranker_ir.eval.output.sheets import Sheet, tables_text

from .answers import Answers
from .changes import Change, Changes

_HEADINGS = {"gain": "Gain", "forgetting": "Forgetting", "not shown": "Not shown"}


def changes_sheet(found: Changes) -> Sheet:
    """A row for each measure of each task."""
    rows = [
        (
            change.measured.task,
            change.measured.measure + ("" if change.higher_is_better else " (less is better)"),
            str(len(change.per_sample)),
            change.before.text(),
            change.after.text(),
            change.difference.text("+"),
            p_text(change.corrected) + ("*" if change.significant else ""),
            f"{change.better} / {len(change.per_sample) - change.better - change.worse} / {change.worse}",
            change.verdict,
        )
        for change in found.changes
    ]
    corrected = "p" if found.settings.correction == "none" else f"p ({found.settings.correction.capitalize()})"
    headings = ("task", "measure", "samples", "before", "after", "difference", corrected, "better / equal / worse", "")
    title = f"{found.before.model['model']} before, {found.after.model['model']} after, with {LEVEL:.0%} intervals"
    return Sheet(title, headings, tuple(rows), words=2)


def sentences(found: Changes) -> list[str]:
    """Says what was forgotten, what was gained, and what can't be told."""
    forgotten, gained = found.by("forgetting"), found.by("gain")
    counted = f"{len(found.changes)} {'measure' if len(found.changes) == 1 else 'measures'}"
    said = [f"Of {counted}: forgetting in {len(forgotten)}, a gain in {len(gained)}."]
    for change in (*forgotten, *gained, *found.by("not shown")):
        said.append(f"{_HEADINGS[change.verdict]}: {_told(change)}")
    return said


def _told(change: Change) -> str:
    name, difference = f"{change.measured.task}, {change.measured.measure}", change.difference.text("+")
    if change.verdict != "not shown":
        return f"{name} goes from {change.before.mean:.4f} to {change.after.mean:.4f}, {difference}."
    if change.difference.interval is None:
        return f"{name}, {difference}; there are too few samples for an interval."
    loss, gain = _reach(change.difference.interval, change.higher_is_better)
    fits = [f"{word} of up to {most:.4f}" for word, most in (("a loss", loss), ("a gain", gain)) if most > 0]
    if not fits:
        return f"{name}: no sample differs."
    told = f"{name}, {difference}: {' and '.join(fits)} {'fit' if len(fits) > 1 else 'fits'} what was seen."
    return told if len(fits) > 1 else f"{told} That interval is not corrected for the other measures; p is."


def _reach(interval: Interval, higher_is_better: bool) -> tuple[float, float]:
    """The largest loss and the largest gain in an interval."""
    return (-interval.low, interval.high) if higher_is_better else (interval.high, -interval.low)


def notes(found: Changes) -> Iterator[str]:
    """Says how the models were asked and tested, and what to mind."""
    settings = found.settings
    test = "t-test" if settings.test == "ttest" else "randomisation test"
    yield (
        f"Test: paired {test} over the samples, two-sided, correction {settings.correction} over {len(found.changes)} "
        f"tests; a star marks p ≤ {settings.alpha:g}. Intervals of differences belong to the test and are not "
        "corrected; those of means are the bootstrap's."
    )
    pair = (("before", found.before), ("after", found.after))
    for when, answers in pair:
        if answers.model["chat_template"] is None:
            yield f"The model {when} has no chat template: it is asked in plain text."
    if found.before.model["chat_template"] != found.after.model["chat_template"]:
        yield "The two chat templates differ, so a difference may come from the prompts as well as from the weights."
    for name, facts in found.before.tasks.items():
        if facts.samples < facts.of:
            yield f"{name}: only the first {facts.samples} of {facts.of} samples were asked."
    for measured, why in {**found.before.left_out, **found.after.left_out}.items():
        yield f"{measured.task}, {measured.measure} is left out: {why}."
    for when, answers in pair:
        yield from (f"lm-evaluation-harness, {when}: {warning}" for warning in answers.warnings)


def as_text(found: Changes) -> str:
    """The table, the sentences and the notes, for the terminal."""
    said = (*sentences(found), "", *notes(found))
    return tables_text([changes_sheet(found)]) + "\n".join(said) + "\n"


def as_markdown(found: Changes) -> str:
    """The table, the sentences and the notes in Markdown."""
    listed = ("\n".join(f"- {line}" for line in lines) for lines in (sentences(found), notes(found)))
    return "\n\n".join([changes_sheet(found).markdown(), *listed]) + "\n"


def as_json(found: Changes) -> str:
    """All figures with full precision, without the samples."""
    return json.dumps(changes_data(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def changes_data(found: Changes) -> dict[str, Any]:
    """Lays out what was found as plain data for JSON."""
    return {
        "before": _model(found.before),
        "after": _model(found.after),
        "tasks": {name: asdict(facts) for name, facts in found.before.tasks.items()},
        "settings": {**asdict(found.settings), "tests": len(found.changes), "level": LEVEL},
        "changes": [
            {
                **change.measured._asdict(),
                "higher_is_better": change.higher_is_better,
                **{name: asdict(getattr(change, name)) for name in ("before", "after", "difference")},
                **{name: getattr(change, name) for name in ("p_value", "corrected", "significant", "verdict")},
                "samples": len(change.per_sample),
                "better": change.better,
                "worse": change.worse,
            }
            for change in found.changes
        ],
        "said": sentences(found),
        "notes": list(notes(found)),
    }


def samples_data(found: Changes) -> list[dict[str, Any]]:
    """What both models answered to each sample, and what it was worth."""
    return [
        {
            "task": task,
            "sample": sample,
            "before": {"answer": text, **_values(found.before, task, sample)},
            "after": {"answer": found.after.texts[task][sample], **_values(found.after, task, sample)},
        }
        for task, texts in found.before.texts.items()
        for sample, text in texts.items()
    ]


def _model(answers: Answers) -> dict[str, Any]:
    return dict(answers.model)


def _values(answers: Answers, task: str, sample: str) -> dict[str, float]:
    own = {measured: values for measured, values in answers.scores.items() if measured.task == task}
    return {measured.measure: values[sample] for measured, values in own.items() if sample in values}


FORMATS = {"table": as_text, "markdown": as_markdown, "json": as_json}
"""How it is written, by the name of the form."""
