"""Template files of other systems, given by the user: what stands around queries and passages is theirs, byte for byte.

What reads such files lies beside this: `family_files`, `rank_llm_template`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Message

from .answers import Form, Reading, read_answer
from .details import Filling
from .digest import digest_of_template
from .neutral import NUMBERS
from .published import answer_pattern, read_rank_r1, read_rank_r1_order, read_rankgpt, read_reasonrank
from .sections import sections_asking
from .template import YES_OR_NO, PromptTemplate, Wording, has_placeholder
from .timed_patterns import TimedPattern

_ASKED = {"best": "the best of the candidates", "order": "an order of the candidates", "grade": "one candidate's grade"}
_LETTERS = re.compile(r"\[\s*(\d+|[A-Z])\s*\]")
_PASSAGE = re.compile(r"(?:PASSAGE\s*|\[\s*)(\d+)(?:\s*\])?")
_MOST_LETTERS = 26
_LETTER_ANSWER = re.compile(r"\[\s*([A-Z])\s*\]")
_LETTER_ALONE = re.compile(r"(?<![^\W_])([A-Z])(?![^\W_])")


@dataclass(frozen=True)
class Turn:
    """One turn of a prompt, with the placeholders of its file."""

    role: Literal["user", "assistant", "query"]
    text: str


@dataclass(frozen=True)
class FamilyTemplate(PromptTemplate):
    """A prompt template of another system.

    Args:
        protocol: how its answers are read in the published mode.
        asks: for the `best` candidate, for an `order` of all, or for the `grade` of one, a yes or no.
        system: the system turn, nothing filled in; empty for none.
        user: the last turn, `last_role`'s, with `{query}`, `{num}`, `{docs}` (all candidates) and `{psg_ids}`.
        candidate: one candidate, with `{rank}` (number or letter), `{candidate}` and `{score}`, its first stage's.
        before: turns before the candidates, with `{query}` and `{num}`.
        each: turns for each candidate, where they are no part of the last turn, with `{rank}` and `{candidate}`.
        mark: what stands before and behind a number, or with `letters` a letter, in an identifier.
        pattern: finds the answer in an output; of `rank-r1`, `rank-r1-listwise` and `reasonrank`.
        valid: what a well-formed answer of `rankgpt` looks like; empty where nothing is said.
    """

    protocol: Literal["rank-r1", "rank-r1-listwise", "reasonrank", "rankgpt", "yes-no"]
    asks: Literal["best", "order", "grade"]
    system: str
    user: str
    candidate: str
    separator: str = ""
    before: tuple[Turn, ...] = ()
    each: tuple[Turn, ...] = ()
    mark: tuple[str, str] = ("[", "]")
    letters: bool = False
    thinks: bool = False
    tagged: bool = False
    keeps_brackets: bool = False
    pattern: str = ""
    valid: str = ""
    last_role: Literal["user", "document"] = "user"

    @property
    def wordings(self) -> Mapping[str, Wording]:
        return dict.fromkeys(sections_asking(self.asks), Wording(self.system, self.user))

    @property
    def keeps_lines(self) -> bool:
        # rank_llm makes one line of them.
        return self.protocol in ("rank-r1", "rank-r1-listwise", "reasonrank")

    @cached_property
    def shows_details(self) -> bool:
        return has_placeholder(self.candidate, "score")

    @property
    def identifier_pattern(self) -> re.Pattern[str]:
        return _LETTERS if self.letters else NUMBERS if self.mark == ("[", "]") else _PASSAGE

    def wording(self, strategy: str, task: str) -> Wording:
        if strategy not in self.wordings:
            raise InputError(
                f"template {self.name!r} asks for {_ASKED[self.asks]}, and has no section [{strategy}]: use the "
                f"strategy {' or '.join(self.wordings)}, or another template"
            )
        return self.wordings[strategy]

    def texts(self) -> list[str]:
        return [self.system, self.user, self.candidate, *(turn.text for turn in (*self.before, *self.each))]

    def digest(self, *, mark: bool = False, judge: bool = False) -> str:
        content: dict[str, Any] = {key: value for key, value in asdict(self).items() if key != "name"}
        if self.last_role == "user":
            # So that what came before there was another role keeps its hash.
            del content["last_role"]
        return digest_of_template(content)

    def identifiers(self, count: int) -> tuple[str, ...]:
        before, behind = self.mark
        return tuple(f"{before}{rank}{behind}" for rank in self._ranks(count))

    def answers(self, strategy: str, filling: Filling) -> tuple[str, ...]:
        return YES_OR_NO if self.asks == "grade" else self.identifiers(len(filling.texts))

    def _ranks(self, count: int) -> list[str]:
        if not self.letters:
            return [str(number) for number in range(1, count + 1)]
        if count > _MOST_LETTERS:
            raise InputError(
                f"template {self.name!r} names candidates by letters, {_MOST_LETTERS} at most, and a prompt was to "
                f"show {count}: give a smaller window_size"
            )
        return [chr(ord("A") + place) for place in range(count)]

    def messages(self, strategy: str, filling: Filling) -> tuple[Message, ...]:
        """Fills the turns, as the file's own system does; task, aim and what is excluded have no influence."""
        self.wording(strategy, filling.task)
        query, texts = filling.query, filling.texts
        ranks = self._ranks(len(texts))
        shown = [
            self.candidate.format(rank=rank, candidate=text, score=score)
            for rank, text, score in zip(ranks, texts, self._scores(filling), strict=True)
        ]
        named = ", ".join(self.identifiers(len(texts)))
        values = {"query": query, "num": len(texts), "docs": self.separator.join(shown), "psg_ids": f"[{named}]"}
        turns = [Message("system", self.system)] if self.system else []
        turns += [Message(turn.role, turn.text.format(**values)) for turn in self.before]
        for rank, text in zip(ranks, texts, strict=True):
            turns += [Message(turn.role, turn.text.format(rank=rank, candidate=text)) for turn in self.each]
        return (*turns, Message(self.last_role, self.user.format(**values)))

    def _scores(self, filling: Filling) -> list[str]:
        """The first stage's scores as rank_llm writes them."""
        count = len(filling.texts)
        if not self.shows_details:
            return [""] * count
        shown = [None if score is None else f"{score:.3f}" for score in filling.scores or (None,) * count]
        if None in shown:
            place = shown.index(None)
            named = repr(filling.names[place]) if filling.names else f"number {place + 1}"
            raise InputError(
                f"template {self.name!r} shows {{score}}, the first stage's, and candidate {named} has none: rerank a "
                "run, whose scores are taken, give Candidate(id, text, score=…), or use a template without {score}"
            )
        return [score for score in shown if score is not None]

    def unfilled(self, strategy: str, task: str) -> tuple[Message, ...] | None:
        return None if self.each else self.messages(strategy, Filling("0", ("0",), task, scores=(0.0,)))

    def read(self, output: str, names: Sequence[str], form: Form, *, published: bool = False) -> Reading:
        count = len(names)
        if not published:
            return read_answer(self._in_numbers(output) if self.letters else output, count, form)
        if self.protocol in ("rankgpt", "yes-no"):
            valid = TimedPattern(self.valid, f"{self.name}: output_validation_regex") if self.valid else None
            return read_rankgpt(output, count, letters=self.letters, valid=valid)
        pattern = answer_pattern(self.pattern, f"{self.name}: pattern")
        if self.protocol == "rank-r1":
            return read_rank_r1(output, self.identifiers(count), pattern)
        return (read_rank_r1_order if self.protocol == "rank-r1-listwise" else read_reasonrank)(output, count, pattern)

    @staticmethod
    def _in_numbers(output: str) -> str:
        """An answer in letters as one in numbers; letters without brackets count where none has them."""
        letter = _LETTER_ANSWER if _LETTER_ANSWER.search(output) else _LETTER_ALONE
        return letter.sub(lambda match: f"[{ord(match[1]) - ord('A') + 1}]", re.sub(r"\d", "", output))
