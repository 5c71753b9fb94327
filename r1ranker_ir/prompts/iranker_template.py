"""The form of R1-Ranker's prompts (arXiv 2506.21638, repository ulab-uiuc/IRanker).

Its prompts stand in programs and not in a template file. Files of the form here hold them: one section for each kind of
request, candidates under labels or names, answers in words, and the beginning of the assistant's turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from r1ranker_ir.errors import InputError
from r1ranker_ir.types import TASKS, GivenPrompt, Message

from .answers import Form, Reading
from .details import Filling
from .digest import digest_of_template
from .named_answers import read_iranker, read_named
from .template import TaskForm, Wording, check_placeholders, has_placeholder

FORM = "iranker"
_KEYS = ("form", "name", "system", "user", "opening", "empty")
_STRATEGIES = ("iterative", "direct")
_TEXT_KEYS = (
    *("aim", "default_aim", "answer", "candidate", "separator", "detail", "detail_separator"),
    *("choice", "choice_separator"),
)
_SECTION_KEYS = ("task", *_TEXT_KEYS, "quoted", "first_number", *_STRATEGIES)
_GIVEN = ("problem", "problem_before", "problem_behind")
_OF_PROMPT = frozenset(("query", "candidates", "details", "count", "aim", *_GIVEN))
_OF_CANDIDATE = frozenset(("number", "name", "text", "description"))
_ANSWERS = ("number", "name", "text")
_THINK = "<think>"
_MOST_TWINS = 1000


@dataclass(frozen=True)
class Section:
    """How requests of one kind are asked about.

    Args:
        name: for errors.
        task: of the requests.
        wordings: `iterative` and `direct` to what is said, with `{query}`, `{candidates}`, `{details}`, `{count}`,
            `{aim}`; `{problem}`, a prompt that came with the request, and `{problem_before}` and `{problem_behind}`,
            what stands around its candidates.
        aim: of the requests; empty for all that no other section is for. `default_aim` is what `{aim}` says without
            one.
        answer: what is answered of a candidate: `{number}`, `{name}` or `{text}`, with words around it.
        candidate: one in `{candidates}`, with `{number}`, `{name}`, `{text}`, `{description}` (the text without the
            name).
        quoted: write each candidate as Python writes a string.
        first_number: the number of a request's first candidate; a candidate keeps its number in all prompts.
        detail: one candidate in `{details}`.
        choice: of a user's choices, one in `{query}`, with `{number}` and `{text}`.
    """

    name: str
    task: str
    wordings: Mapping[str, str]
    aim: str = ""
    answer: str = "{text}"
    candidate: str = "{text}"
    separator: str = "\n"
    quoted: bool = False
    first_number: int = 0
    detail: str = "{text}"
    detail_separator: str = "\n"
    choice: str = "{text}"
    choice_separator: str = "\n"
    default_aim: str = ""

    def labels(self, filling: Filling, empty: str) -> list[dict[str, str]]:
        """What stands for each candidate; one that would be answered like another gets a number behind it."""
        texts, details = filling.texts, filling.details
        names = details.names or texts
        places = details.places or range(len(texts))
        taken: set[str] = set()
        labels = []
        for text, name, place in zip(texts, names, places, strict=True):
            shown = text or empty
            called = " ".join(name.split()) or shown
            label = self._label(place, called, shown)
            for twin in range(2, _MOST_TWINS):
                if self.answer.format(**label) not in taken:
                    break
                label = self._label(place, f"{called} ({twin})", f"{shown} ({twin})")
            taken.add(self.answer.format(**label))
            labels.append(label)
        return labels

    def _label(self, place: int, name: str, text: str) -> dict[str, str]:
        described = text.removeprefix(name).lstrip(" :,") if text.startswith(name) else text
        return {"number": str(place + self.first_number), "name": name, "text": text, "description": described}

    def written(self, labels: Sequence[Mapping[str, str]]) -> str:
        """The candidates as the prompt lists them."""
        shown = [self.candidate.format(**label) for label in labels]
        return self.separator.join(map(repr, shown) if self.quoted else shown)

    def query(self, query: str) -> str:
        """The query, or a user's choices as the prompt lists them."""
        if self.task != "item":
            return query
        return self.choice_separator.join(
            self.choice.format(number=number, text=choice) for number, choice in enumerate(query.splitlines())
        )

    def marks(self) -> list[str]:
        """What a candidate or choice begins with in a list, as regular expressions whose group is the number."""
        marks = []
        for form, separator in ((self.candidate, self.separator), (self.choice, self.choice_separator)):
            beginning = re.split(r"\{(?:text|name|description)\}", form)[0].strip()
            # A number alone, as in "3. ", says nothing inside a line where each candidate has a line of its own.
            tells = "\n" not in separator or re.search(r"[^\W\d_]", beginning.replace("{number}", ""))
            if has_placeholder(beginning, "number") and tells:
                marks.append(_pattern(beginning))
        return marks


def _pattern(beginning: str) -> str:
    parts = [r"\s*".join(map(re.escape, part.split())) for part in beginning.split("{number}")]
    return r"\s*(\d+)\s*".join(parts)


@dataclass(frozen=True)
class IRankerTemplate:
    """A prompt template in the form of R1-Ranker's.

    Args:
        name: for traces and errors.
        sections: by kind of request; of those for one task, the one with the request's aim counts, else that without.
        system: the system turn; empty for none.
        user: the user's turn, with `{problem}`: what a section says.
        opening: what the assistant's turn begins with, up to the opened thought; empty to leave it to the model.
        empty: what is shown for a candidate without text.
    """

    name: str
    sections: tuple[Section, ...]
    system: str = ""
    user: str = "{problem}"
    opening: str = ""
    empty: str = "(no text)"

    thinks: ClassVar[bool] = True
    tagged: ClassVar[bool] = True
    keeps_brackets: ClassVar[bool] = True
    keeps_lines: ClassVar[bool] = False
    shows_details: ClassVar[bool] = True
    named: ClassVar[bool] = True

    @cached_property
    def wordings(self) -> Mapping[str, Wording]:
        return {
            strategy: Wording(self.system, section.wordings[strategy])
            for strategy in _STRATEGIES
            for section in reversed(self.sections)
            if strategy in section.wordings
        }

    @cached_property
    def identifier_pattern(self) -> re.Pattern[str]:
        """What in a text could pass for the beginning of another candidate."""
        marks = dict.fromkeys(mark for section in self.sections for mark in section.marks())
        return re.compile("|".join(marks) if marks else r"(?!)()", re.IGNORECASE)

    def section(self, strategy: str, task: str, aim: str = "") -> Section:
        """The section for a kind of request; an InputError says which there are."""
        if strategy not in self.wordings:
            raise InputError(
                f"template {self.name!r} has no [{strategy}] wording: it offers {', '.join(self.wordings)}. Use the "
                "strategy that it is for, or another template"
            )
        fitting = [each for each in self.sections if each.task == task and strategy in each.wordings]
        wanted = " ".join(aim.split())
        for found in (wanted, "") if wanted else ("",):
            for each in fitting:
                if " ".join(each.aim.split()) == found:
                    return each
        if fitting and not wanted:
            return fitting[0]
        aims = ", ".join(repr(each.aim) for each in fitting)
        raise InputError(
            f"template {self.name!r} has no section for {strategy} requests of task {task!r} with the aim {aim!r}"
            + (f": its aims are {aims}" if aims else "")
            + ". Add a section for them, or one without aim for all"
        )

    def wording(self, strategy: str, task: str) -> Wording:
        return Wording(self.system, self.section(strategy, task).wordings[strategy])

    def form(self, task: str) -> TaskForm:
        return TaskForm(query_separator="\n")

    def shows_aim(self, strategy: str, task: str) -> bool:
        """Whether a request's aim is a part of the prompt, or decides which it is."""
        fitting = [each for each in self.sections if each.task == task and strategy in each.wordings]
        return any(each.aim or has_placeholder(each.wordings[strategy], "aim") for each in fitting)

    def only(self, strategy: str) -> IRankerTemplate:
        kept = [
            replace(each, wordings={strategy: each.wordings[strategy]})
            for each in self.sections
            if strategy in each.wordings
        ]
        return replace(self, sections=tuple(kept))

    def texts(self) -> list[str]:
        forms = [form for each in self.sections for form in (each.candidate, each.detail, each.choice)]
        return [self.system, self.user, *forms, *(text for each in self.sections for text in each.wordings.values())]

    def digest(self, *, mark: bool = False) -> str:
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        return digest_of_template(content)

    def identifiers(self, count: int) -> tuple[str, ...]:
        """Labels of `count` candidates of which nothing is known; see `answers`."""
        return tuple(str(number) for number in range(count))

    def answers(self, strategy: str, filling: Filling) -> tuple[str, ...]:
        section = self.section(strategy, filling.task, filling.aim)
        return tuple(section.answer.format(**label) for label in section.labels(filling, self.empty))

    def messages(self, strategy: str, filling: Filling) -> tuple[Message, ...]:
        section = self.section(strategy, filling.task, filling.aim)
        labels = section.labels(filling, self.empty)
        wording = section.wordings[strategy]
        problem = wording.format(
            query=section.query(filling.query),
            candidates=section.written(labels),
            details=section.detail_separator.join(section.detail.format(**label) for label in labels),
            count=len(filling.texts),
            aim=filling.aim or section.aim or section.default_aim,
            **self._given(wording, section, filling.details.given),
        )
        turns = [Message("system", self.system)] if self.system else []
        turns.append(Message("user", self.user.format(problem=problem)))
        return (*turns, Message("assistant", self.opening)) if self.opening else tuple(turns)

    def _given(self, wording: str, section: Section, given: GivenPrompt | None) -> dict[str, str]:
        if not any(has_placeholder(wording, name) for name in _GIVEN):
            return {}
        if given is None:
            raise InputError(
                f"template {self.name!r}: section [{section.name}] shows {{problem}}, the prompt that came with a "
                "request, and this one came without: use rows of Ranking-bench, or a section with {query} and "
                "{candidates}"
            )
        whole = given.before + given.candidates + given.behind
        return dict(zip(_GIVEN, (whole, given.before, given.behind), strict=True))

    def unfilled(self, strategy: str, task: str) -> tuple[Message, ...] | None:
        """`None`: how much a wording adds depends on the request."""
        return None

    def read(self, output: str, names: Sequence[str], form: Form, *, published: bool = False) -> Reading:
        return (read_iranker if published else read_named)(output, names, form)


def build_iranker_template(content: Mapping[str, Any], source: str) -> IRankerTemplate:
    """Builds a template from parsed TOML: `form = "iranker"`, and keys and sections as the two classes above have them.

    An InputError names what is unknown, missing or of the wrong type, or why a candidate could not be told from the
    next one.
    """
    if content.get("form") != FORM:
        raise InputError(
            f"{source}: form is {content.get('form')!r}: use {FORM!r}, or leave it out for other templates"
        )
    defaults = {"name": source, "system": "", "user": "{problem}", "opening": "", "empty": "(no text)"}
    texts = {key: content.get(key, default) for key, default in defaults.items()}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise InputError(f"{source}: {key} is {value!r}; give a string")
    check_placeholders(f"{source}: user", texts["user"], ("problem",), ("problem",))
    if texts["opening"] and not texts["opening"].rstrip().endswith(_THINK):
        raise InputError(
            f"{source}: opening is {texts['opening']!r}: it must end with {_THINK}, which opens the thought"
        )
    if not texts["empty"].strip():
        raise InputError(f"{source}: empty is blank: a candidate without text would have nothing to be answered by")
    found = {key: value for key, value in content.items() if key not in _KEYS}
    if not found:
        raise InputError(f"{source}: no section: add one such as [passage] with task, candidate, answer and iterative")
    sections = tuple(_section(key, value, source) for key, value in found.items())
    kinds = [(each.task, " ".join(each.aim.split()), strategy) for each in sections for strategy in each.wordings]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        task, aim, strategy = twice[0]
        raise InputError(f"{source}: two sections are for {strategy} requests of task {task!r} with the aim {aim!r}")
    return IRankerTemplate(sections=sections, **texts)


def _section(name: str, content: Any, source: str) -> Section:
    where = f"{source}: [{name}]"
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: unknown key {name!r}; use {', '.join(_KEYS)}, or sections")
    if unknown := [key for key in content if key not in _SECTION_KEYS]:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; use {', '.join(_SECTION_KEYS)}")
    if content.get("task") not in TASKS:
        raise InputError(f"{where}: task is {content.get('task')!r}: use one of {', '.join(TASKS)}")
    texts = {key: content[key] for key in _TEXT_KEYS if key in content}
    if bad := [key for key, value in texts.items() if not isinstance(value, str)]:
        raise InputError(f"{where} {bad[0]} is {texts[bad[0]]!r}; give a string")
    quoted, first = content.get("quoted", False), content.get("first_number", 0)
    if not isinstance(quoted, bool):
        raise InputError(f"{where} quoted is {quoted!r}; give true or false")
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        raise InputError(f"{where} first_number is {first!r}; give a whole number of at least 0")
    wordings = {strategy: content[strategy] for strategy in _STRATEGIES if strategy in content}
    if not wordings:
        raise InputError(f"{where}: no wording: add {' or '.join(_STRATEGIES)}")
    for strategy, wording in wordings.items():
        check_placeholders(f"{where} {strategy}", wording, _OF_PROMPT, ("candidates",))
        if not any(has_placeholder(wording, shown) for shown in ("query", *_GIVEN)):
            raise InputError(f"{where} {strategy}: placeholder {{query}} is missing")
    section = Section(name, content["task"], wordings, quoted=quoted, first_number=first, **texts)
    check_placeholders(f"{where} candidate", section.candidate, _OF_CANDIDATE)
    check_placeholders(f"{where} detail", section.detail, _OF_CANDIDATE)
    check_placeholders(f"{where} choice", section.choice, ("number", "text"), ("text",))
    check_placeholders(f"{where} answer", section.answer, _ANSWERS)
    _check_told_apart(section, where)
    return section


def _check_told_apart(section: Section, where: str) -> None:
    if not any(has_placeholder(section.answer, shown) for shown in _ANSWERS):
        raise InputError(f"{where} answer is {section.answer!r}: it must hold {{number}}, {{name}} or {{text}}")
    in_lists = [section.candidate, *([section.detail] if "{details}" in "".join(section.wordings.values()) else [])]
    if not any(has_placeholder(form, shown) for form in in_lists for shown in ("text", "name", "description")):
        raise InputError(f"{where} candidate is {section.candidate!r}: it must hold {{text}} or {{name}}")
    numbered = replace(section, choice="{text}").marks()
    if "\n" not in section.separator and not section.quoted and not numbered:
        raise InputError(
            f"{where}: with the separator {section.separator!r} a candidate's text could pass for two candidates: set "
            "quoted = true, begin candidate with {number}, or put a line break into the separator"
        )
