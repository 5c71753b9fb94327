"""Prompt templates: TOML files, or the same structure inside a checkpoint's settings."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.plain_data import parse_toml_text
from r1ranker_ir.files.small_files import read_small_text
from r1ranker_ir.types import OF_ONE, TASKS, Message

from .answers import Form, Reading, identifiers, read_answer
from .details import Filling
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

    The template's own wordings and mark stand in where they are missing. `query_separator` stands between the lines of
    a query, which `query_reversed` shows last to first; `aim` is what `{aim}` says of a request without one.
    """

    wordings: Mapping[str, Wording] = field(default_factory=dict)
    aim: str = ""
    query_separator: str = " "
    query_reversed: bool = False
    mark: Wording | None = None


_NO_FORM = TaskForm()


@dataclass(frozen=True)
class Template:
    """A prompt template.

    Args:
        name: for traces and errors.
        wordings: strategy name to its turns.
        candidate: one candidate's line, with `{identifier}` and `{text}`; `separator` stands between them.
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
        return self.tasks.get(task, _NO_FORM)

    def wording(self, strategy: str, task: str) -> Wording:
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
        sections = (self.wordings, *(form.wordings for form in self.tasks.values()))
        wordings = [wording for each in sections for wording in each.values()]
        marks = (self.mark, *(form.mark for form in self.tasks.values()))
        wordings += [mark for mark in marks if mark is not None]
        turns = [turn for wording in wordings for turn in (wording.system, wording.user)]
        return [self.candidate, self.separator, self.empty, *turns]

    def identifiers(self, count: int) -> tuple[str, ...]:
        return identifiers(count)

    def answers(self, strategy: str, filling: Filling) -> tuple[str, ...]:
        asks = find_section(strategy).asks
        if asks == "likelihood":
            return ()
        if asks == "grade":
            return self.choice or GRADES
        return identifiers(len(filling.texts))

    def read(self, output: str, names: Sequence[str], form: Form, *, published: bool = False) -> Reading:
        """Reads a free answer; the project's own prompts have one way of reading, so `published` changes nothing."""
        return read_answer(output, len(names), form)

    def shows_aim(self, strategy: str, task: str) -> bool:
        wording = self.wording(strategy, task)
        return any(has_placeholder(turn, "aim") for turn in (wording.system, wording.user))

    def only(self, strategy: str) -> Template:
        tasks = {
            task: replace(form, wordings=_kept(form.wordings, strategy), mark=None) for task, form in self.tasks.items()
        }
        return replace(self, wordings=_kept(self.wordings, strategy), tasks=tasks, mark=None)

    def content(self) -> dict[str, Any]:
        """The template as `build_template` reads it."""
        tasks = {
            task: {
                "aim": form.aim,
                "query_separator": form.query_separator,
                "query_order": _QUERY_ORDERS[form.query_reversed],
                **_turns(form.wordings, form.mark),
            }
            for task, form in self.tasks.items()
        }
        return {
            **{name: getattr(self, name) for name in ("name", "candidate", "separator", "empty")},
            "nouns": {task: list(pair) for task, pair in self.nouns.items()},
            **self._answered(),
            **_turns(self.wordings, self.mark),
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

        With `mark` the sections for layout `mark` count too. Without them, adding one to a template changes nothing for
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

    def messages(self, strategy: str, filling: Filling) -> tuple[Message, ...]:
        query, texts, task = filling.query, filling.texts, filling.task
        if find_section(strategy).asks in OF_ONE:
            # No identifier: the only numbers that may be answered are grades.
            return self.render(strategy, query, texts[0] or self.empty, 1, task, filling.aim)
        lines = [
            self.candidate.format(identifier=identifier, text=text or self.empty).rstrip()
            for identifier, text in zip(identifiers(len(texts)), texts, strict=True)
        ]
        candidates = self.separator.join(lines)
        return self.render(strategy, query, candidates, len(texts), task, filling.aim, filling.excluded)

    def unfilled(self, strategy: str, task: str) -> tuple[Message, ...]:
        return self.render(strategy, "0", "0", 0, task, "0", "0")

    def render(
        self, strategy: str, query: str, candidates: str, count: int, task: str, aim: str = "", excluded: str = ""
    ) -> tuple[Message, ...]:
        """Fills one section's turns with candidate lines, all of it neutralised: system first where there is one."""
        wording, (noun, nouns) = self.wording(strategy, task), self.nouns[task]
        values = {"query": query, "candidates": candidates, "count": count, "noun": noun, "nouns": nouns}
        values["aim"] = aim or self.form(task).aim
        values[_NAMED] = excluded or _NONE_EXCLUDED
        user = Message("user", wording.user.format_map(values))
        return (Message("system", wording.system.format_map(values)), user) if wording.system else (user,)


def _kept(wordings: Mapping[str, Wording], strategy: str) -> dict[str, Wording]:
    return {name: wording for name, wording in wordings.items() if name == strategy}


def _turns(wordings: Mapping[str, Wording], mark: Wording | None) -> dict[str, dict[str, str]]:
    whole = {**wordings, **({} if mark is None else {MARK_SECTION: mark})}
    return {
        name: {"system": wording.system, "user": wording.user} if wording.system else {"user": wording.user}
        for name, wording in whole.items()
    }


def has_placeholder(text: str, name: str) -> bool:
    """Whether a text has a placeholder of that name."""
    return any(found == name for _, found, _, _ in string.Formatter().parse(text))


def check_placeholders(where: str, text: Any, allowed: Iterable[str], required: Iterable[str] = ()) -> None:
    """Raises an InputError if a text has an unknown placeholder, lacks one, or is not a text with placeholders."""
    if not isinstance(text, str):
        raise InputError(f"{where} is {text!r}; give a string")
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        raise InputError(f"{where}: {error}; write a literal brace as {{{{ or }}}}") from error
    found = {str(name) for _, name, _, _ in fields}
    if any(form or conversion for _, _, form, conversion in fields):
        raise InputError(f"{where}: a placeholder is a name in braces, without ':' or '!'")
    if unknown := found - set(allowed):
        offered = ", ".join(f"{{{name}}}" for name in sorted(allowed))
        raise InputError(f"{where}: unknown placeholder {{{sorted(unknown)[0]}}}; use {offered}")
    if missing := set(required) - found:
        raise InputError(f"{where}: placeholder {{{sorted(missing)[0]}}} is missing")


def build_template(content: Mapping[str, Any], source: str) -> Template:
    """Builds a template from parsed TOML or JSON; an InputError names what is unknown, missing or of the wrong type."""
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
    wordings, mark = _read_sections(content, source)
    if not wordings:
        sections = [section.name for section in known_sections().values() if not section.names_excluded]
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


def _read_sections(content: Mapping[str, Any], source: str, within: str = "") -> tuple[dict[str, Wording], Any]:
    """Reads the sections of strategies and that of the `mark` layout, of the template or of one of its tasks."""
    found = {}
    for section in known_sections().values():
        if section.name not in content:
            continue
        turns, named = content[section.name], f"[{within}{section.name}]"
        if not isinstance(turns, Mapping) or not set(turns) <= {"system", "user"} or "user" not in turns:
            raise InputError(f"{source}: section {named} needs the key user, may have system, and nothing else")
        wording = Wording(turns.get("system", ""), turns["user"])
        check_wording(section, wording, f"{source}: {named}")
        found[section.name] = wording
    mark = found.pop(MARK_SECTION, None)
    return found, mark


def check_wording(section: Section, wording: Wording, where: str) -> None:
    """Raises an InputError if a section's wording lacks a placeholder or has an unknown one."""
    more = (_NAMED,) if section.names_excluded else ()
    # A query to be scored, and in the prompt already, would be likely behind every candidate.
    query = () if section.asks == "likelihood" else ("query",)
    allowed = _PLACEHOLDERS if query else _PLACEHOLDERS - {"query"}
    check_placeholders(f"{where} system", wording.system, allowed)
    check_placeholders(f"{where} user", wording.user, (*allowed, *more), (*query, "candidates", *more))


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
    wordings, mark = _read_sections(content, source, f"{task}.")
    return TaskForm(wordings, query_reversed=order == _QUERY_ORDERS[1], mark=mark, **texts)


def load_template(path: str | Path | None = None) -> Template:
    """Reads a TOML template; without a path, the project's own."""
    if path is None:
        text, source = resources.files(__package__).joinpath("default.toml").read_text(encoding="utf-8"), "default.toml"
    else:
        text, source = read_template_text(path, "TOML"), str(path)
    return build_template(parse_toml(text, source), source)


def read_template_text(path: str | Path, kinds: str) -> str:
    """Reads the text of a template file."""
    return read_small_text(path, f"template {str(path)!r}", f"give a {kinds} file")


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parses a template's TOML."""
    try:
        return parse_toml_text(text)
    except ValueError as error:
        raise InputError(f"template {source!r} is not valid TOML: {error}") from error
