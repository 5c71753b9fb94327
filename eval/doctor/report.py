"""What was found out about a model, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from r1ranker_ir.runs.trace_summary import Spread

from .doctor import Examination, FormatCheck, StrategyCheck, TemplateFacts

_SYSTEM = {
    "kept": "a system turn is kept",
    "dropped": "a system turn is dropped, so its words open the user's turn",
    "refused": "a system turn is refused, so its words open the user's turn",
}
_THOUGHT = {
    "opened": "it opens the thought itself",
    "closed": "it closes an empty thought by default",
    "open": "it says nothing of thoughts, so the ranker opens them",
}
_EXAMPLE = 160


def report_lines(found: Examination) -> Iterator[str]:
    """Says what was found."""
    yield f"Model {found.model}, backend {found.backend}"
    yield ""
    yield from _template(found.template)
    yield from _format(found.format)
    yield ""
    yield f"Speed: {_speed(found)}; {found.speed.seconds:.0f} seconds in all"
    for check in found.checks:
        yield ""
        yield from _check(check)
    yield ""
    yield "Verdict"
    for check, verdict in zip(found.checks, found.verdicts, strict=True):
        yield f"  {check.strategy}: {verdict.level}"
        yield from (f"    because {reason}" for reason in verdict.reasons)
        yield from (f"    what to do: {advice}" for advice in verdict.advice)
    yield overall(found)


def overall(found: Examination) -> str:
    """Says in a sentence what the model can be used for."""
    levels = {check.strategy: verdict.level for check, verdict in zip(found.checks, found.verdicts, strict=True)}
    fit = [name for name, level in levels.items() if level == "fit"]
    reserved = [name for name, level in levels.items() if level == "fit with reservations"]
    if not fit and not reserved:
        return (
            "This model can't rank with any strategy that was tried: its orders say nothing about the candidates. "
            "Use another model, or train this one (r1ranker train)."
        )
    said = [f"Fit for {', '.join(fit)}."] if fit else []
    said += [f"Fit with reservations for {', '.join(reserved)}."] if reserved else []
    if found.template is not None and 2 * found.format.readable < found.format.outputs:
        said.append(
            "That holds where answers are chosen among the candidates: left to itself, as on a server, it does not "
            "keep to the form."
        )
    return " ".join(said) + " These lists are easy; measure on judged data of your own before you rely on it."


def _template(facts: TemplateFacts | None) -> Iterator[str]:
    if facts is None:
        yield "Chat template: the server's own, which can't be seen from here"
        return
    if not facts.chat_template:
        yield "Chat template: none; turns are joined by blank lines, which suits few models"
    else:
        yield f"Chat template: there is one; {_SYSTEM[facts.system]}; {_THOUGHT[facts.thought]}"
    ends = ", ".join(map(_quoted, facts.end_tokens)) or "none known: only the limit ends a thought"
    think = "one token" if facts.think_token else "several tokens, so the model was hardly trained with it"
    yield f"End of turn: {ends}; <think> is {think}"


def _format(check: FormatCheck) -> Iterator[str]:
    if not check.outputs:
        yield "Form: not looked at"
        return
    yield (
        f"Form, when nothing holds it: of {check.outputs} outputs {check.thoughts} close a thought, {check.answers} "
        f"hold an <answer>, {check.readable} could be used as they stood"
    )
    if check.example:
        yield f"  one that could not: {_quoted(check.example)}"


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _EXAMPLE else f"{line[:_EXAMPLE]}…")


def _speed(found: Examination) -> str:
    speed = found.speed
    reading = [] if speed.reading is None else [f"reads {speed.reading:,.0f} tokens per second"]
    writing = [] if speed.writing is None else [f"writes {speed.writing:,.0f} tokens per second over all calls at once"]
    return ", ".join(reading + writing) or "nothing was computed"


def _check(check: StrategyCheck) -> Iterator[str]:
    summary, trials = check.summary, 2 * check.lists
    yield (
        f"{check.strategy}: {check.lists} lists of {check.candidates}, forwards and backwards; "
        f"{summary.usage.calls} calls"
    )
    yield f"  right winner in {check.right} of {trials} rankings (guessing: {trials / check.candidates:.3g} on average)"
    yield f"  same winner both ways in {check.same} of {check.lists} lists"
    for share in summary.places:
        if share.named >= 0.8 * share.able and share.able > 2:
            yield f"  place [{share.place}] is named in {share.named} of {share.able} answers that could"
    if summary.grades:
        given = ", ".join(f"{grade}: {count}" for grade, count in summary.grades.items())
        yield f"  grades given: {given}"
    if summary.repairs:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.repairs.items())
        yield f"  repairs: {summary.unread} of {summary.answers} answers ({kinds})"
    if summary.thought_words is not None:
        endings = ", ".join(f"{count} {ending}" for ending, count in summary.endings.items())
        yield f"  thoughts of {_spread(summary.thought_words)} words: {endings}"
    else:
        yield "  no thoughts"


def _spread(spread: Spread) -> str:
    return f"{spread.least:g} to {spread.most:g} (median {spread.median:g})"


def report_data(found: Examination) -> dict[str, Any]:
    """Lays what was found out as plain data for JSON."""
    return {
        "model": found.model,
        "backend": found.backend,
        "template": None if found.template is None else {**vars(found.template)},
        "format": vars(found.format),
        "speed": vars(found.speed),
        "strategies": {
            check.strategy: {
                **{name: value for name, value in vars(check).items() if name not in ("strategy", "summary")},
                "rankings": 2 * check.lists,
                "chance": check.chance,
                "verdict": verdict.level,
                "reasons": list(verdict.reasons),
                "advice": list(verdict.advice),
                "summary": asdict(check.summary),
            }
            for check, verdict in zip(found.checks, found.verdicts, strict=True)
        },
        "verdict": overall(found),
    }
