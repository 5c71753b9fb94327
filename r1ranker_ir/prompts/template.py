"""Prompt templates: TOML files, or the same structure inside a checkpoint's settings."""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.plain_data import parse_toml_text
from r1ranker_ir.files.small_files import read_small_text
from r1ranker_ir.types import OF_ONE, TASKS, Message, Task

from .answers import Form, Reading, identifiers, read_answer
from .details import Filling
from .digest import digest_of_template
from .neutral import NUMBERS
from .sections import JUDGE, Section, find_section, known_sections

MARK_SECTION = "mark"
"""The section of an elimination's prompt that shows the full list and names the excluded."""

GRADES = tuple(f"[{grade}]" for grade in range(11))
"""What may be answered of a candidate that is shown alone, from useless to perfect."""
YES_OR_NO = ("no", "yes")
"""The same, where a template asks whether it is relevant."""
_PLACEHOLDERS = frozenset(("query", "candidates", "count", "noun", "nouns", "aim", "examples"))
_NAMED = "excluded"
_ABOUT = "about"
_NONE_EXCLUDED = "none"
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
class PromptTemplate(ABC):
    """What a prompt must know of a template, whosever form it has; `name` is for traces and errors."""

    name: str

    thinks = True
    """A thought comes before the answer."""
    tagged = True
    """The answer stands in `<answer>` tags."""
    keeps_brackets = False
    """The published system leaves `[1]` in a passage as it is."""
    named = False
    """Candidates are answered by labels, names or texts, and not by identifiers."""

    @property
    def keeps_lines(self) -> bool:
        """Whether the published system leaves line breaks in a passage."""
        return False

    @property
    def shows_details(self) -> bool:
        """Whether more of the candidates than their texts is a part of the prompt."""
        return False

    @property
    def identifier_pattern(self) -> re.Pattern[str]:
        """What in a passage could pass for an identifier."""
        return NUMBERS

    if TYPE_CHECKING:

        @property
        def wordings(self) -> Mapping[str, Wording]:
            """The sections that it has words for, each with its turns."""

    @abstractmethod
    def wording(self, strategy: str, task: str) -> Wording:
        """The turns of a section for a task; an InputError says which there are."""

    def form(self, task: str) -> TaskForm:
        """What is different for a task."""
        return _NO_FORM

    def shows_aim(self, strategy: str, task: str) -> bool:
        """Whether a request's aim is a part of the prompt, or decides which it is."""
        return False

    def places_examples(self, strategy: str, task: str) -> bool:
        """Whether a section says itself where worked examples stand; else they come before the user's first turn."""
        return False

    def only(self, strategy: str) -> PromptTemplate:
        """The template without what it holds for other sections."""
        return self

    @abstractmethod
    def digest(self, *, mark: bool = False, judge: bool = False) -> str:
        """A hash of everything that shapes a prompt: 16 hexadecimal digits of SHA-256.

        With `mark` the sections for layout `mark` count too, and with `judge` those that compare thoughts. Without
        them, adding one to a template changes nothing for what was trained on the others.
        """

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """All wording around queries and candidates."""

    def identifiers(self, count: int) -> tuple[str, ...]:
        return identifiers(count)

    @abstractmethod
    def answers(self, strategy: str, filling: Filling) -> tuple[str, ...]:
        """What may be answered, of each candidate in the order of the prompt, none twice; or grades, or two words."""

    @abstractmethod
    def messages(self, strategy: str, filling: Filling) -> tuple[Message, ...]:
        """Fills the turns of a section; an InputError says what the template or the request lacks."""

    def unfilled(self, strategy: str, task: str) -> tuple[Message, ...] | None:
        """The turns with next to nothing filled in; `None` where what stands around depends on the candidates."""
        return None

    def read(self, output: str, names: Sequence[str], form: Form, *, published: bool = False) -> Reading:
        """Reads which of the names an output gives: as the template's own system does, or as carefully as can be."""
        return read_answer(output, len(names), form)


@dataclass(frozen=True)
class Template(PromptTemplate):
    """A prompt template of the project's own form.

    Args:
        wordings: strategy name to its turns.
        candidate: one candidate's line, with `{identifier}` and `{text}`; `separator` stands between them.
        empty: what is shown for a candidate without text.
        nouns: task to its singular and plural noun.
        tasks: task to what is different for it.
        mark: the turns of an elimination's prompt that shows the full list and names the excluded; `None` for none.
        choice: what may be answered of a candidate that is shown alone, worst first, such as `("false", "true")` or
            whole numbers; empty for a grade from 0 to 10 in brackets.
        opening: how the assistant's turn begins, before anything is answered; empty for nothing.
    """

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
    opening: str = ""

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

    def answers(self, strategy: str, filling: Filling) -> tuple[str, ...]:
        asks = find_section(strategy).asks
        if asks == "likelihood":
            return ()
        if asks == "grade":
            return self.choice or GRADES
        return identifiers(len(filling.texts))

    def shows_aim(self, strategy: str, task: str) -> bool:
        wording = self.wording(strategy, task)
        return any(has_placeholder(turn, "aim") for turn in (wording.system, wording.user))

    def places_examples(self, strategy: str, task: str) -> bool:
        wording = self.wording(strategy, task)
        return any(has_placeholder(turn, "examples") for turn in (wording.system, wording.user))

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
            **({"opening": self.opening} if self.opening else {}),
        }

    def digest(self, *, mark: bool = False, judge: bool = False) -> str:
        whole = self.content()
        left_out = {MARK_SECTION, *(() if judge else (JUDGE.name,))}
        content: dict[str, Any] = {
            "wordings": {
                name: [wording.system, wording.user] for name, wording in self.wordings.items() if name not in left_out
            },
            **{name: whole[name] for name in ("candidate", "separator", "empty", "nouns")},
            **self._answered(),
        }
        if self.tasks:
            content["tasks"] = {
                task: {key: value for key, value in whole[task].items() if key not in left_out} for task in self.tasks
            }
        if mark:
            sections = {"": whole, **{task: whole[task] for task in self.tasks}}
            content[MARK_SECTION] = {name: section.get(MARK_SECTION) for name, section in sections.items()}
        return digest_of_template(content)

    def messages(self, strategy: str, filling: Filling) -> tuple[Message, ...]:
        query, texts, task = filling.query, filling.texts, filling.task
        if find_section(strategy).asks in OF_ONE:
            # No identifier: the only numbers that may be answered are grades.
            shown = texts[0] or self.empty
            return self.render(strategy, query, shown, 1, task, filling.aim, examples=filling.examples)
        lines = [
            self.candidate.format(identifier=identifier, text=text or self.empty).rstrip()
            for identifier, text in zip(identifiers(len(texts)), texts, strict=True)
        ]
        candidates = self.separator.join(lines)
        said = filling.aim, filling.excluded, filling.examples, filling.about
        return self.render(strategy, query, candidates, len(texts), task, *said)

    def unfilled(self, strategy: str, task: str) -> tuple[Message, ...]:
        return self.render(strategy, "0", "0", 0, task, "0", "0")

    def render(
        self,
        strategy: str,
        query: str,
        candidates: str,
        count: int,
        task: str,
        aim: str = "",
        excluded: str = "",
        examples: str = "",
        about: str = "",
    ) -> tuple[Message, ...]:
        """Fills one section's turns with candidate lines, all of it neutralised: system first where there is one."""
        wording, (noun, nouns) = self.wording(strategy, task), self.nouns[task]
        values = {"query": query, "candidates": candidates, "count": count, "noun": noun, "nouns": nouns}
        values |= {"aim": aim or self.form(task).aim, "examples": examples, _ABOUT: about}
        values[_NAMED] = excluded or _NONE_EXCLUDED
        user = Message("user", wording.user.format_map(values))
        system = (Message("system", wording.system.format_map(values)),) if wording.system else ()
        return (*system, user, *((Message("assistant", self.opening),) if self.opening else ()))


def _kept(wordings: Mapping[str, Wording], strategy: str) -> dict[str, Wording]:
    return {name: wording for name, wording in wordings.items() if name == strategy}


def _turns(wordings: Mapping[str, Wording], mark: Wording | None) -> dict[str, dict[str, str]]:
    whole = {**wordings, **({} if mark is None else {MARK_SECTION: mark})}
    return {
        name: {"system": wording.system, "user": wording.user} if wording.system else {"user": wording.user}
        for name, wording in whole.items()
    }


def has_placeholder(text: str, name: str) -> bool:
    return any(found == name for _, found, _, _ in string.Formatter().parse(text))


def check_placeholders(text: str, allowed: Iterable[str], required: Iterable[str] = (), *, where: str = "") -> str:
    """The text; an InputError if it has an unknown placeholder, or lacks one, which begins with `where`."""
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        raise InputError(f"{where}{error}; write a literal brace as {{{{ or }}}}") from error
    found = {str(name) for _, name, _, _ in fields}
    if any(form or conversion for _, _, form, conversion in fields):
        raise InputError(f"{where}a placeholder is a name in braces, without ':' or '!'")
    if unknown := found - set(allowed):
        offered = ", ".join(f"{{{name}}}" for name in sorted(allowed))
        raise InputError(f"{where}unknown placeholder {{{sorted(unknown)[0]}}}; use {offered}")
    if missing := set(required) - found:
        raise InputError(f"{where}placeholder {{{sorted(missing)[0]}}} is missing")
    return text


def build_template(content: Mapping[str, Any], source: str) -> Template:
    """Builds a template from parsed TOML or JSON; an InputError names what is unknown, missing or of the wrong type."""
    from r1ranker_ir.files.records import checked_record

    sections = tuple(known_sections().values())
    told = checked_record(_file_of(sections), content, source, error=InputError)
    wordings, mark = _wordings(told, sections)
    if not wordings:
        offered = "], [".join(each.name for each in sections if not each.names_excluded and not each.judges)
        raise InputError(f"{source}: a template needs at least one of the sections [{offered}]: add one")
    tasks: dict[str, TaskForm] = {}
    for task in TASKS:
        if (own := getattr(told, task)) is not None:
            words, its_mark = _wordings(own, sections)
            order = own.query_order == _QUERY_ORDERS[1]
            tasks[task] = TaskForm(words, own.aim, own.query_separator, order, its_mark)
            if its_mark is not None and mark is None:
                raise InputError(f"{source}: section [{task}.{MARK_SECTION}] without [{MARK_SECTION}]: add that one")
    nouns: dict[str, Any] = {task: tuple(told.nouns.get(task, (task, f"{task}s"))) for task in TASKS}
    return Template(
        told.name or source,
        wordings,
        told.candidate,
        told.separator,
        told.empty,
        nouns,
        tasks,
        mark,
        tuple(told.choice),
        told.answer_tags,
        told.thinks,
        told.opening,
    )


def _wordings(told: Any, sections: Iterable[Section]) -> tuple[dict[str, Wording], Wording | None]:
    """The sections of strategies and that of the `mark` layout, of the template or of one of its tasks."""
    found = {each.name: turns for each in sections if (turns := getattr(told, each.name)) is not None}
    wordings = {name: Wording(turns.system, turns.user) for name, turns in found.items()}
    return wordings, wordings.pop(MARK_SECTION, None)


@lru_cache(maxsize=4)
def _file_of(sections: tuple[Section, ...]) -> Any:
    """What a template file may hold where these sections are known, as a record."""
    from pydantic import AfterValidator, Field, create_model

    from r1ranker_ir.files.records import Record

    class Turns(Record):
        user: str
        system: str = ""

    def worded(section: Section) -> Any:
        def check(turns: Turns) -> Turns:
            check_wording(section, Wording(turns.system, turns.user), f"[{section.name}]")
            return turns

        return Annotated[Turns, AfterValidator(check)], None

    shown = ("identifier", "text")
    candidate = Annotated[str, AfterValidator(partial(check_placeholders, allowed=shown, required=shown))]
    words: dict[str, Any] = {section.name: worded(section) for section in sections}
    text, pair = (str, ""), cast(Any, Annotated[list[str], Field(min_length=2, max_length=2)])
    order: Any = (Literal["as given", "reversed"], _QUERY_ORDERS[0])
    task = create_model("Task", __base__=Record, aim=text, query_separator=(str, " "), query_order=order, **words)
    words |= dict.fromkeys(TASKS, (task, None))
    return create_model(
        "Template",
        __base__=Record,
        name=text,
        candidate=(candidate, "{identifier} {text}"),
        separator=(str, "\n"),
        empty=text,
        nouns=(dict[Task, pair], {}),  # type: ignore[valid-type]
        choice=(Annotated[list[str], Field(min_length=2), AfterValidator(_check_choice)], []),
        answer_tags=(bool, True),
        thinks=(bool, True),
        opening=text,
        **words,
    )


def _check_choice(choice: list[str]) -> list[str]:
    if len(choice) != len(YES_OR_NO) and choice != [str(number) for number in range(len(choice))]:
        raise ValueError("give two words, the worse one first, or whole numbers from 0 up, each one more than the last")
    return choice


def check_wording(section: Section, wording: Wording, where: str) -> None:
    """Raises an InputError if a section's wording lacks a placeholder or has an unknown one."""
    more = (_NAMED,) * section.names_excluded + (_ABOUT,) * section.judges
    # A query to be scored, and in the prompt already, would be likely behind every candidate.
    query = () if section.asks == "likelihood" else ("query",)
    allowed = _PLACEHOLDERS if query else _PLACEHOLDERS - {"query"}
    check_placeholders(wording.system, allowed, where=f"{where} system: ")
    check_placeholders(wording.user, (*allowed, *more), (*query, "candidates", *more), where=f"{where} user: ")


def load_template(path: str | Path | None = None) -> Template:
    """Reads a TOML template; without a path, the project's own."""
    if path is None:
        text, source = resources.files(__package__).joinpath("default.toml").read_text(encoding="utf-8"), "default.toml"
    else:
        text, source = read_template_text(path, "TOML"), str(path)
    return build_template(parse_toml(text, source), source)


def read_template_text(path: str | Path, kinds: str) -> str:
    return read_small_text(path, f"template {str(path)!r}", f"give a {kinds} file")


def parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return parse_toml_text(text)
    except ValueError as error:
        raise InputError(f"template {source!r} is not valid TOML: {error}") from error
