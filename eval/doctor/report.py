"""What was found out about a model, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from r1ranker_ir.engine.summary import HOW_CHOSEN

from .doctor import Examination, StrategyCheck

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
    facts, form = found.template, found.format
    if facts is None:
        yield "Chat template: the server's own, which can't be seen from here"
    else:
        told = f"there is one; {_SYSTEM[facts.system]}; {_THOUGHT[facts.thought]}"
        none = "none; turns are joined by blank lines, which suits few models"
        yield f"Chat template: {told if facts.chat_template else none}"
        ends = ", ".join(map(_quoted, facts.end_tokens)) or "none known: only the limit ends a thought"
        think = "one token" if facts.think_token else "several tokens, so the model was hardly trained with it"
        yield f"End of turn: {ends}; <think> is {think}"
    if found.server is not None:
        yield f"Completions endpoint: {_server(found.server)}"
    if form.outputs:
        yield (
            f"Form, when nothing holds it: of {form.outputs} outputs {form.thoughts} close a thought, {form.answers} "
            f"hold an <answer>, {form.readable} could be used as they stood"
        )
    if form.example:
        yield f"  one that could not: {_quoted(form.example)}"
    yield ""
    speeds = [f"{verb} {rate:,.0f}" for verb, rate in (("reads", found.reading), ("writes", found.writing)) if rate]
    yield f"Speed: {' and '.join(speeds) or 'no'} tokens per second over all calls; {found.seconds:.0f} seconds in all"
    for check in found.checks:
        yield ""
        yield from _check(check)
    yield ""
    yield "Verdict"
    for check in found.checks:
        yield f"  {check.strategy}: {check.verdict.level}"
        yield from (f"    because {reason}" for reason in check.verdict.reasons)
        yield from (f"    what to do: {advice}" for advice in check.verdict.advice)
    yield overall(found)


def _server(able: Mapping[str, Any]) -> str:
    prompts = "prompts as tokens" if able["token_ids"] else "prompts as text only"
    told = able["log_probabilities"]
    fields = "none" if told is None else " and ".join(f"{name}={value}" for name, value in told.items())
    held = "by nothing that is known" if able["constraint"] is None else f"by {able['constraint']}"
    chosen = HOW_CHOSEN[able["chosen_by"]]
    return f"{prompts}; held to the identifiers {held}; log-probabilities: {fields}; so answers are {chosen}"


def overall(found: Examination) -> str:
    """Says in a sentence what the model can be used for."""
    said = []
    for level in ("fit", "fit with reservations"):
        if names := [check.strategy for check in found.checks if check.verdict.level == level]:
            said.append(f"{level.capitalize()} for {', '.join(names)}.")
    if not said:
        return (
            "This model can't rank with any strategy that was tried: its orders say nothing about the candidates. "
            "Use another model, or train this one (r1ranker train)."
        )
    if found.template is not None and 2 * found.format.readable < found.format.outputs:
        said.append(
            "That holds where answers are chosen among the candidates: left to itself, as on a server, it does not "
            "keep to the form."
        )
    return " ".join(said) + " These lists are easy; measure on judged data of your own before you rely on it."


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _EXAMPLE else f"{line[:_EXAMPLE]}…")


def _check(check: StrategyCheck) -> Iterator[str]:
    summary, trials = check.summary, check.trials
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
        yield f"  grades given: {', '.join(f'{grade}: {count}' for grade, count in summary.grades.items())}"
    if summary.repairs:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.repairs.items())
        yield f"  repairs: {summary.unread} of {summary.answers} answers ({kinds})"
    if (words := summary.thought_words) is None:
        yield "  no thoughts"
    else:
        endings = ", ".join(f"{count} {ending}" for ending, count in summary.endings.items())
        yield f"  thoughts of {words.least:g} to {words.most:g} (median {words.median:g}) words: {endings}"


def report_data(found: Examination) -> dict[str, Any]:
    """Lays what was found out as plain data for JSON."""
    strategies = {}
    for check in found.checks:
        verdict = check.verdict
        strategies[check.strategy] = {
            **{name: getattr(check, name) for name in ("lists", "candidates", "right", "same")},
            "rankings": check.trials,
            "chance": check.chance,
            "verdict": verdict.level,
            "reasons": list(verdict.reasons),
            "advice": list(verdict.advice),
            "summary": asdict(check.summary),
        }
    return {
        "model": found.model,
        "backend": found.backend,
        "template": None if found.template is None else vars(found.template),
        **({} if found.server is None else {"server": dict(found.server)}),
        "format": vars(found.format),
        "speed": {name: getattr(found, name) for name in ("reading", "writing", "seconds")},
        "strategies": strategies,
        "verdict": overall(found),
    }
