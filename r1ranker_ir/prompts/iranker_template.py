"""The form of R1-Ranker's prompts (arXiv 2506.21638, repository ulab-uiuc/IRanker).

Its prompts stand in programs and not in a template file. Files of the form here hold them: one section for each kind of
request, candidates under labels or names, answers in words, and the beginning of the assistant's turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.records import Record, checked_record
from r1ranker_ir.types import GivenPrompt, Message, Task

from .answers import Form, Reading
from .details import Filling
from .digest import digest_of_template
from .family_files import holding
from .named_answers import read_iranker, read_named
from .template import PromptTemplate, TaskForm, Wording, has_placeholder

_STRATEGIES = ("iterative", "direct")
_GIVEN = ("problem", "problem_before", "problem_behind")
_ANSWERS = ("number", "name", "text")
_THINK = "<think>"
_MOST_TWINS = 1000


def _asking(wording: str) -> str:
    if not any(has_placeholder(wording, shown) for shown in ("query", *_GIVEN)):
        raise InputError("placeholder {query} is missing")
    return wording


_OfPrompt = Annotated[
    str, holding(f"query candidates details count aim {' '.join(_GIVEN)}", "candidates"), AfterValidator(_asking)
]
_OfCandidate = Annotated[str, holding("number name text description")]


class Section(Record):
    """How requests of one kind are asked about.

    Args:
        name: for errors.
        task: of the requests.
        iterative: what is said, with `{query}`, `{candidates}`, `{details}`, `{count}`, `{aim}`; `{problem}`, a prompt
            that came with the request, and `{problem_before}` and `{problem_behind}`, what stands around its
            candidates. `direct`: the same where an order is asked for.
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

    task: Task
    iterative: _OfPrompt = ""
    direct: _OfPrompt = ""
    aim: str = ""
    answer: Annotated[str, holding(" ".join(_ANSWERS))] = "{text}"
    candidate: _OfCandidate = "{text}"
    separator: str = "\n"
    quoted: bool = False
    first_number: int = Field(0, ge=0)
    detail: _OfCandidate = "{text}"
    detail_separator: str = "\n"
    choice: Annotated[str, holding("number text", "text")] = "{text}"
    choice_separator: str = "\n"
    default_aim: str = ""
    name: str = ""

    @model_validator(mode="after")
    def _told_apart(self) -> Section:
        if not self.wordings:
            raise InputError(f"no wording: add {' or '.join(_STRATEGIES)}")
        if not any(has_placeholder(self.answer, shown) for shown in _ANSWERS):
            raise InputError(f"answer is {self.answer!r}: it must hold {{number}}, {{name}} or {{text}}")
        detailed = "{details}" in "".join(self.wordings.values())
        in_lists = (self.candidate, self.detail if detailed else "")
        if not any(has_placeholder(form, shown) for form in in_lists for shown in ("text", "name", "description")):
            raise InputError(f"candidate is {self.candidate!r}: it must hold {{text}} or {{name}}")
        if "\n" not in self.separator and not self.quoted and not _marks(self.candidate, self.separator):
            raise InputError(
                f"with the separator {self.separator!r} a candidate's text could pass for two candidates: set quoted = "
                "true, begin candidate with {number}, or put a line break into the separator"
            )
        return self

    @property
    def wordings(self) -> dict[str, str]:
        return {strategy: wording for strategy in _STRATEGIES if (wording := getattr(self, strategy))}

    def is_for(self, aim: str) -> bool:
        """Whether it is for requests with an aim, however that is spaced."""
        return self.aim.split() == aim.split()

    def labels(self, filling: Filling, empty: str) -> list[dict[str, str]]:
        """What stands for each candidate; one that would be answered like another gets a number behind it."""
        texts = filling.texts
        names, places = filling.names or texts, filling.places or range(len(texts))
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
        return [*_marks(self.candidate, self.separator), *_marks(self.choice, self.choice_separator)]


def _marks(form: str, separator: str) -> list[str]:
    beginning = re.split(r"\{(?:text|name|description)\}", form)[0].strip()
    # A number alone, as in "3. ", says nothing inside a line where each candidate has a line of its own.
    tells = "\n" not in separator or re.search(r"[^\W\d_]", beginning.replace("{number}", ""))
    if not has_placeholder(beginning, "number") or not tells:
        return []
    parts = [r"\s*".join(map(re.escape, part.split())) for part in beginning.split("{number}")]
    return [r"\s*(\d+)\s*".join(parts)]


@dataclass(frozen=True)
class IRankerTemplate(PromptTemplate):
    """A prompt template in the form of R1-Ranker's.

    Args:
        sections: by kind of request; of those for one task, the one with the request's aim counts, else that without.
        system: the system turn; empty for none.
        user: the user's turn, with `{problem}`: what a section says.
        opening: what the assistant's turn begins with, up to the opened thought; empty to leave it to the model.
        empty: what is shown for a candidate without text.
    """

    sections: tuple[Section, ...]
    system: str = ""
    user: str = "{problem}"
    opening: str = ""
    empty: str = "(no text)"

    keeps_brackets = True
    shows_details = True
    named = True

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
        fitting = self._fitting(strategy, task)
        found = [each for each in fitting if each.is_for(aim)] or [each for each in fitting if each.is_for("")]
        if found or (fitting and not aim.strip()):
            return (found or fitting)[0]
        aims = ", ".join(repr(each.aim) for each in fitting)
        raise InputError(
            f"template {self.name!r} has no section for {strategy} requests of task {task!r} with the aim {aim!r}"
            + (f": its aims are {aims}" if aims else "")
            + ". Add a section for them, or one without aim for all"
        )

    def wording(self, strategy: str, task: str) -> Wording:
        return Wording(self.system, self.section(strategy, task).wordings[strategy])

    def _fitting(self, strategy: str, task: str) -> list[Section]:
        return [each for each in self.sections if each.task == task and strategy in each.wordings]

    def form(self, task: str) -> TaskForm:
        return TaskForm(query_separator="\n")

    def shows_aim(self, strategy: str, task: str) -> bool:
        fitting = self._fitting(strategy, task)
        return any(each.aim or has_placeholder(each.wordings[strategy], "aim") for each in fitting)

    def only(self, strategy: str) -> IRankerTemplate:
        kept = [each for each in self.sections if strategy in each.wordings]
        others = dict.fromkeys(set(_STRATEGIES) - {strategy}, "")
        return replace(self, sections=tuple(each.model_copy(update=others) for each in kept))

    def texts(self) -> list[str]:
        forms = [form for each in self.sections for form in (each.candidate, each.detail, each.choice)]
        return [self.system, self.user, *forms, *(text for each in self.sections for text in each.wordings.values())]

    def digest(self, *, mark: bool = False, judge: bool = False) -> str:
        sections = [{**each.model_dump(exclude=set(_STRATEGIES)), "wordings": each.wordings} for each in self.sections]
        own = {key: getattr(self, key) for key in ("system", "user", "opening", "empty")}
        return digest_of_template({**own, "sections": sections})

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
            **self._given(wording, section, filling.given),
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

    def read(self, output: str, names: Sequence[str], form: Form, *, published: bool = False) -> Reading:
        return (read_iranker if published else read_named)(output, names, form)


def _opening(text: str) -> str:
    if text and not text.rstrip().endswith(_THINK):
        raise InputError(f"it must end with {_THINK}, which opens the thought")
    return text


def _shown(text: str) -> str:
    if not text.strip():
        raise InputError("a candidate without text would have nothing to be answered by")
    return text


class _File(Record):
    form: Literal["iranker"]
    name: str = ""
    system: str = ""
    user: Annotated[str, holding("problem", "problem")] = "{problem}"
    opening: Annotated[str, AfterValidator(_opening)] = ""
    empty: Annotated[str, AfterValidator(_shown)] = "(no text)"


def build_iranker_template(content: Mapping[str, Any], source: str) -> IRankerTemplate:
    """Builds a template from parsed TOML: `form = "iranker"`, and keys and sections as the two classes above have them.

    An InputError names what is unknown, missing or of the wrong type, or why a candidate could not be told from the
    next one.
    """
    named = {key: value for key, value in content.items() if key not in _File.model_fields}
    plain = {key: value for key, value in content.items() if not isinstance(named.get(key), Mapping)}
    told = checked_record(_File, plain, source, error=InputError)
    if not named:
        raise InputError(f"{source}: no section: add one such as [passage] with task, candidate, answer and iterative")
    sections = [
        checked_record(Section, {**value, "name": key}, f"{source}: [{key}]", error=InputError)
        for key, value in named.items()
    ]
    kinds = [(each.task, " ".join(each.aim.split()), strategy) for each in sections for strategy in each.wordings]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        task, aim, strategy = twice[0]
        raise InputError(f"{source}: two sections are for {strategy} requests of task {task!r} with the aim {aim!r}")
    return IRankerTemplate(told.name or source, tuple(sections), told.system, told.user, told.opening, told.empty)
