"""Prompt templates: TOML files, or the same structure inside a checkpoint's settings."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.plain_data import parse_toml_text
from r1ranker_ir.small_files import read_small_text
from r1ranker_ir.types import OF_ONE, TASKS, Message

from .answers import Reading, identifiers, read_answer
from .details import NO_DETAILS, CandidateDetails
from .digest import digest_of_template
from .neutral import NUMBERS
from .sections import Section, find_section, known_sections

MARK_SECTION = "mark"
"""The section of an elimination's prompt that shows the full list and names the excluded."""

GRADES = tuple(f"[{grade}]" for grade in range(11))
"""What may be answered of a candidate that is shown alone, from useless to perfect."""
YES_OR_NO = ("no", "yes")
"""The same, where a template asks whether it is relevant."""
_PLACEHOLDERS = frozenset(("query", "candidates", "count", "noun", "nouns", "aim"))
_NAMED = "excluded"
_NONE_EXCLUDED = "none"
_CANDIDATE_PLACEHOLDERS = frozenset(("identifier", "text"))
_KEYS = frozenset(("name", "candidate", "separator", "empty", "nouns", "choice", "answer_tags", "thinks", *TASKS))
_TASK_KEYS = frozenset(("aim", "query_separator", "query_order"))
_QUERY_ORDERS = ("as given", "reversed")


@dataclass(frozen=True)
class Wording:
    """The turns of one strategy's prompt; `system` may be empty."""

    system: str
    user: str


@dataclass(frozen=True)
class TaskForm:
    """How the prompts of one task differ from the others.

    Args:
        wordings: strategy name to its turns; the template's own where one is missing.
        aim: what `{aim}` says of a request without an aim.
        query_separator: what stands between the lines of a query; without a line break in it, a query is one line.
        query_reversed: show the lines of a query last to first.
        mark: the turns of the `mark` layout; the template's own where it is `None`.
    """

    wordings: Mapping[str, Wording] = field(default_factory=dict)
    aim: str = ""
    query_separator: str = " "
    query_reversed: bool = False
    mark: Wording | None = None


@dataclass(frozen=True)
class Template:
    """A prompt template.

    Args:
        name: for traces and errors.
        wordings: strategy name to its turns.
        candidate: one candidate's line, with `{identifier}` and `{text}`.
        separator: what stands between candidates.
        empty: what is shown for a candidate without text.
        nouns: task to its singular and plural noun.
        tasks: task to what is different for it.
        mark: the turns of an elimination's prompt that shows the full list and names the excluded; `None` for none.
        choice: what may be answered of a candidate that is shown alone, worst and best, such as `("false", "true")`;
            empty for a grade from 0 to 10.
        tagged: the answer stands in `<answer>` tags; else right behind the thought.
        thinks: a thought comes before the answer.
    """

    name: str
    wordings: Mapping[str, Wording]
    candidate: str
    separator: str
    empty: str
    nouns: Mapping[str, tuple[str, str]]
    tasks: Mapping[str, TaskForm] = field(default_factory=dict)
    mark: Wording | None = None
    choice: tuple[str, ...] = ()
    tagged: bool = True
    thinks: bool = True

    keeps_brackets: ClassVar[bool] = False
    keeps_lines: ClassVar[bool] = False
    shows_details: ClassVar[bool] = False
    named: ClassVar[bool] = False
    identifier_pattern: ClassVar[re.Pattern[str]] = NUMBERS

    def form(self, task: str) -> TaskForm:
        """What is different for a task."""
        return self.tasks.get(task) or TaskForm()

    def wording(self, strategy: str, task: str) -> Wording:
        """The turns for a strategy, or for `mark`, and a task.

        Raises:
            InputError: if the template has no wording for the strategy.
        """
        if strategy == MARK_SECTION:
            if self.mark is None:
                raise InputError(
                    f"template {self.name!r} has no section [{MARK_SECTION}], which layout 'mark' needs: add one with "
                    f"{{{_NAMED}}}, use a checkpoint whose template has it, or layout 'shrink'"
                )
            return self.form(task).mark or self.mark
        if strategy not in self.wordings:
            own = known_sections().get(strategy)
            if own is not None and own.user:
                return Wording(own.system, own.tasks.get(task, own.user))
            offered = ", ".join(self.wordings)
            raise InputError(f"template {self.name!r} has no [{strategy}] section: it offers {offered}")
        return self.form(task).wordings.get(strategy) or self.wordings[strategy]

    def texts(self) -> list[str]:
        """All wording around queries and candidates."""
        sections = (self.wordings, *(form.wordings for form in self.tasks.values()))
        wordings = [wording for each in sections for wording in each.values()]
        marks = (self.mark, *(form.mark for form in self.tasks.values()))
        wordings += [mark for mark in marks if mark is not None]
        turns = [turn for wording in wordings for turn in (wording.system, wording.user)]
        return [self.candidate, self.separator, self.empty, *turns]

    def identifiers(self, count: int) -> tuple[str, ...]:
        """The identifiers of a prompt with that many candidates."""
        return identifiers(count)

    def answers(
        self, strategy: str, texts: Sequence[str], task: str, details: CandidateDetails, aim: str = ""
    ) -> tuple[str, ...]:
        """What may be answered: a grade, the identifiers of all candidates shown, or nothing for a likelihood."""
        asks = find_section(strategy).asks
        if asks == "likelihood":
            return ()
        return self.choice or GRADES if asks == "grade" else identifiers(len(texts))

    def read(
        self,
        output: str,
        count: int,
        form: Literal["one", "order"],
        *,
        published: bool = False,
        answers: Sequence[str] = (),
    ) -> Reading:
        """Reads a free answer; the project's own prompts have one way of reading, so `published` changes nothing."""
        return read_answer(output, count, form)

    def shows_aim(self, strategy: str, task: str) -> bool:
        """Tells whether a request's aim is a part of the prompt."""
        wording = self.wording(strategy, task)
        return any(has_placeholder(turn, "aim") for turn in (wording.system, wording.user))

    def only(self, strategy: str) -> Template:
        """The template without what it holds for other strategies."""

        def kept(wordings: Mapping[str, Wording]) -> dict[str, Wording]:
            return {name: wording for name, wording in wordings.items() if name == strategy}

        tasks = {task: replace(form, wordings=kept(form.wordings), mark=None) for task, form in self.tasks.items()}
        return replace(self, wordings=kept(self.wordings), tasks=tasks, mark=None)

    def content(self) -> dict[str, Any]:
        """The template as `build_template` reads it."""

        def turns(wordings: Mapping[str, Wording], mark: Wording | None) -> dict[str, dict[str, str]]:
            return {
                name: {"system": wording.system, "user": wording.user} if wording.system else {"user": wording.user}
                for name, wording in [*wordings.items(), *([(MARK_SECTION, mark)] if mark is not None else [])]
            }

        tasks = {
            task: {
                "aim": form.aim,
                "query_separator": form.query_separator,
                "query_order": _QUERY_ORDERS[form.query_reversed],
                **turns(form.wordings, form.mark),
            }
            for task, form in self.tasks.items()
        }
        return {
            "name": self.name,
            "candidate": self.candidate,
            "separator": self.separator,
            "empty": self.empty,
            "nouns": {task: list(pair) for task, pair in self.nouns.items()},
            **self._answered(),
            **turns(self.wordings, self.mark),
            **tasks,
        }

    def _answered(self) -> dict[str, Any]:
        """How answers look, where that is not the default, which has no part in the hash."""
        return {
            **({"choice": list(self.choice)} if self.choice else {}),
            **({} if self.tagged else {"answer_tags": False}),
            **({} if self.thinks else {"thinks": False}),
        }

    def digest(self, *, mark: bool = False) -> str:
        """A hash of everything that shapes a prompt: 16 hexadecimal digits of SHA-256.

        Args:
            mark: count the sections for layout `mark` too. Without them, adding one to a template changes nothing for
                what was trained on the others.
        """
        whole = self.content()
        content: dict[str, Any] = {
            "wordings": {name: [wording.system, wording.user] for name, wording in self.wordings.items()},
            **{name: whole[name] for name in ("candidate", "separator", "empty", "nouns")},
            **self._answered(),
        }
        if self.tasks:
            content["tasks"] = {
                task: {key: value for key, value in whole[task].items() if key != MARK_SECTION} for task in self.tasks
            }
        if mark:
            sections = {"": whole, **{task: whole[task] for task in self.tasks}}
            content[MARK_SECTION] = {name: section.get(MARK_SECTION) for name, section in sections.items()}
        return digest_of_template(content)

    def messages(
        self,
        strategy: str,
        query: str,
        texts: Sequence[str],
        task: str,
        aim: str = "",
        excluded: str = "",
        details: CandidateDetails = NO_DETAILS,
    ) -> tuple[Message, ...]:
        """Fills one strategy's turns with candidates; arguments as for `render`, but for the neutralised `texts`."""
        if find_section(strategy).asks in OF_ONE:
            # No identifier: the only numbers that may be answered are grades.
            return self.render(strategy, query, texts[0] or self.empty, 1, task, aim)
        lines = [
            self.candidate.format(identifier=identifier, text=text or self.empty).rstrip()
            for identifier, text in zip(identifiers(len(texts)), texts, strict=True)
        ]
        return self.render(strategy, query, self.separator.join(lines), len(texts), task, aim, excluded)

    def unfilled(self, strategy: str, task: str) -> tuple[Message, ...]:
        """One strategy's turns with next to nothing filled in."""
        return self.render(strategy, "0", "0", 0, task, "0", "0")

    def render(
        self, strategy: str, query: str, candidates: str, count: int, task: str, aim: str = "", excluded: str = ""
    ) -> tuple[Message, ...]:
        """Fills one strategy's turns.

        Args:
            strategy: the name of a section.
            query: the neutralised query.
            candidates: the rendered candidate lines.
            count: how many there are.
            task: which nouns and turns to use.
            aim: the neutralised aim; the template's own for the task where it is empty.
            excluded: the identifiers of those excluded, for `mark`.

        Returns:
            The turns, system first where there is one.

        Raises:
            InputError: if the template has no wording for the strategy.
        """
        wording = self.wording(strategy, task)
        noun, nouns = self.nouns[task]
        values = {"query": query, "candidates": candidates, "count": count, "noun": noun, "nouns": nouns}
        values["aim"] = aim or self.form(task).aim
        values[_NAMED] = excluded or _NONE_EXCLUDED
        turns = []
        if wording.system:
            turns.append(Message("system", wording.system.format(**values)))
        turns.append(Message("user", wording.user.format(**values)))
        return tuple(turns)


def _parse(text: str) -> list[tuple[str, str, str | None, str | None]]:
    """The placeholders of a text."""
    return [
        (before, name, form, conversion)
        for before, name, form, conversion in string.Formatter().parse(text)
        if name is not None
    ]


def has_placeholder(text: str, name: str) -> bool:
    """Whether a text has a placeholder of that name."""
    return any(found == name for _, found, _, _ in _parse(text))


def check_placeholders(where: str, text: Any, allowed: frozenset[str], required: frozenset[str]) -> None:
    if not isinstance(text, str):
        raise InputError(f"{where} is {text!r}; give a string")
    try:
        fields = _parse(text)
    except ValueError as error:
        raise InputError(f"{where}: {error}; write a literal brace as {{{{ or }}}}") from error
    found = {name for _, name, _, _ in fields}
    if any(form or conversion for _, _, form, conversion in fields):
        raise InputError(f"{where}: a placeholder is a name in braces, without ':' or '!'")
    if unknown := found - allowed:
        offered = ", ".join(f"{{{name}}}" for name in sorted(allowed))
        raise InputError(f"{where}: unknown placeholder {{{sorted(unknown)[0]}}}; use {offered}")
    if missing := required - found:
        raise InputError(f"{where}: placeholder {{{sorted(missing)[0]}}} is missing")


def build_template(content: Mapping[str, Any], source: str) -> Template:
    """Checks a template's keys and placeholders.

    Args:
        content: the parsed TOML or JSON.
        source: where it comes from, for errors.

    Returns:
        The template.

    Raises:
        InputError: if a key is unknown, of the wrong type, or a placeholder is unknown or missing.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: the template is {content!r}; give its keys and sections")
    known = _KEYS | set(known_sections())
    if unknown := set(content) - known:
        raise InputError(f"{source}: unknown key {sorted(map(str, unknown))[0]!r}; use {', '.join(sorted(known))}")
    texts = {}
    for key, default in (("name", source), ("candidate", "{identifier} {text}"), ("separator", "\n"), ("empty", "")):
        texts[key] = content.get(key, default)
        if not isinstance(texts[key], str):
            raise InputError(f"{source}: {key} is {texts[key]!r}; give a string")
    check_placeholders(f"{source}: candidate", texts["candidate"], _CANDIDATE_PLACEHOLDERS, _CANDIDATE_PLACEHOLDERS)
    wordings = _read_wordings(content, source, "")
    if not wordings:
        sections = _general_sections()
        offered = f"[{'], ['.join(sections[:-1])}] or [{sections[-1]}]"
        raise InputError(f"{source}: no section {offered}: a template needs at least one")
    nouns: dict[str, tuple[str, str]] = {task: (task, f"{task}s") for task in TASKS}
    own_nouns = content.get("nouns", {})
    if not isinstance(own_nouns, Mapping):
        raise InputError(f"{source}: nouns is {own_nouns!r}; give a section of tasks and their nouns")
    for task, pair in own_nouns.items():
        if task not in nouns or not isinstance(pair, list) or [type(noun) for noun in pair] != [str, str]:
            raise InputError(f"{source}: nouns.{task} = {pair!r}; give [singular, plural] for {', '.join(TASKS)}")
        nouns[task] = (pair[0], pair[1])
    tasks: dict[str, TaskForm] = {task: _read_task(content[task], source, task) for task in TASKS if task in content}
    mark = _read_mark(content, source, "")
    if mark is None and (own := [task for task, form in tasks.items() if form.mark is not None]):
        raise InputError(f"{source}: section [{own[0]}.{MARK_SECTION}] without [{MARK_SECTION}]: add the general one")
    choice, flags = content.get("choice", []), {key: content.get(key, True) for key in ("answer_tags", "thinks")}
    if not isinstance(choice, list) or [type(word) for word in choice] not in ([], [str, str]):
        raise InputError(f"{source}: choice is {choice!r}; give two words, for the worst and for the best candidate")
    for key, flag in flags.items():
        if not isinstance(flag, bool):
            raise InputError(f"{source}: {key} is {flag!r}; give true or false")
    return Template(
        wordings=wordings,
        nouns=nouns,
        tasks=tasks,
        mark=mark,
        choice=tuple(choice),
        tagged=flags["answer_tags"],
        thinks=flags["thinks"],
        **texts,
    )


def _read_mark(content: Mapping[str, Any], source: str, within: str) -> Wording | None:
    """Reads the section of the `mark` layout, of the template or of one of its tasks."""
    if MARK_SECTION not in content:
        return None
    needed = frozenset(("query", "candidates", _NAMED))
    return _read_wording(content, source, within, MARK_SECTION, _PLACEHOLDERS | {_NAMED}, needed)


def _read_wording(
    content: Mapping[str, Any],
    source: str,
    within: str,
    section: str,
    allowed: frozenset[str],
    needed: frozenset[str],
) -> Wording:
    turns, named = content[section], f"[{within}{section}]"
    if not isinstance(turns, Mapping) or not set(turns) <= {"system", "user"} or "user" not in turns:
        raise InputError(f"{source}: section {named} needs the key user, may have system, and nothing else")
    check_placeholders(f"{source}: {named} system", turns.get("system", ""), allowed - {_NAMED}, frozenset())
    check_placeholders(f"{source}: {named} user", turns["user"], allowed, needed)
    return Wording(turns.get("system", ""), turns["user"])


def check_wording(section: Section) -> None:
    """Checks the placeholders of a section's own wording.

    Raises:
        InputError: if one is unknown or missing.
    """
    where, more = f"section [{section.name}]", {_NAMED} if section.names_excluded else set()
    allowed, needed = _placeholders_of(section)
    check_placeholders(f"{where} system", section.system, allowed, frozenset())
    for task, user in {"user": section.user, **section.tasks}.items():
        check_placeholders(f"{where} {task}", user, allowed | more, needed | more)


def _placeholders_of(section: Section) -> tuple[frozenset[str], frozenset[str]]:
    """The placeholders that a section's user turn may have, and those that it must have."""
    if section.asks == "likelihood":
        # What stands in the prompt already would be likely behind every candidate.
        return _PLACEHOLDERS - {"query"}, frozenset(("candidates",))
    return _PLACEHOLDERS, frozenset(("query", "candidates"))


def _read_wordings(content: Mapping[str, Any], source: str, within: str) -> dict[str, Wording]:
    """Reads the sections of strategies, of the template or of one of its tasks."""
    return {
        section: _read_wording(content, source, within, section, *_placeholders_of(find_section(section)))
        for section in _general_sections()
        if section in content
    }


def _general_sections() -> tuple[str, ...]:
    """The sections that a template may have, but that which names excluded candidates."""
    return tuple(section.name for section in known_sections().values() if not section.names_excluded)


def _read_task(content: Any, source: str, task: str) -> TaskForm:
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: {task} is {content!r}; give a section [{task}]")
    known = _TASK_KEYS | set(known_sections())
    if unknown := set(content) - known:
        offered = ", ".join(sorted(known))
        raise InputError(f"{source}: [{task}]: unknown key {sorted(map(str, unknown))[0]!r}; use {offered}")
    texts = {key: content.get(key, default) for key, default in (("aim", ""), ("query_separator", " "))}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise InputError(f"{source}: [{task}] {key} is {value!r}; give a string")
    order = content.get("query_order", _QUERY_ORDERS[0])
    if order not in _QUERY_ORDERS:
        raise InputError(f"{source}: [{task}] query_order is {order!r}; use {' or '.join(map(repr, _QUERY_ORDERS))}")
    wordings = _read_wordings(content, source, f"{task}.")
    mark = _read_mark(content, source, f"{task}.")
    return TaskForm(wordings, query_reversed=order == _QUERY_ORDERS[1], mark=mark, **texts)


def load_template(path: str | Path | None = None) -> Template:
    """Reads a template file.

    Args:
        path: a TOML file; `None` for the project's own template.

    Returns:
        The template.

    Raises:
        InputError: if the file is missing or malformed.
    """
    if path is None:
        text, source = resources.files(__package__).joinpath("default.toml").read_text(encoding="utf-8"), "default.toml"
    else:
        text, source = read_template_text(path, "TOML"), str(path)
    return build_template(parse_toml(text, source), source)


def read_template_text(path: str | Path, kinds: str) -> str:
    """Reads the text of a template file.

    Args:
        path: the file.
        kinds: which formats may be given, for errors.

    Returns:
        Its text.

    Raises:
        InputError: if it can't be read, or is no text.
    """
    return read_small_text(path, f"template {str(path)!r}", f"give a {kinds} file")


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parses a template's TOML.

    Args:
        text: a file's content.
        source: its file, for errors.

    Returns:
        Its keys and sections.

    Raises:
        InputError: if it is no TOML.
    """
    try:
        return parse_toml_text(text)
    except ValueError as error:
        raise InputError(f"template {source!r} is not valid TOML: {error}") from error
