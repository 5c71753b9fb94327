"""What requests to a chat server hold, and what is left out of them once the server has refused it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from r1ranker_ir.errors import InputError

LimitField = Literal["max_tokens", "max_completion_tokens"]
Part = Literal["response_format", "logprobs", "system", "temperature", "seed"]
PARTS: tuple[Part, ...] = get_args(Part)
LIMIT_FIELDS: tuple[LimitField, ...] = get_args(LimitField)
_OTHER: dict[LimitField, LimitField] = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
# The request was understood, and refused for its form.
_REFUSED = (400, 422)
# Other statuses that servers give to a chat template's complaint, or to what a model may not be asked for.
_ALSO_REFUSED = (403, 500, 501)
_NAMED: dict[Part, re.Pattern[str]] = {
    "response_format": re.compile(r"response.?format|json.?schema|structured|guided|grammar|\bschema\b", re.I),
    "logprobs": re.compile(r"log.?prob", re.I),
    "system": re.compile(
        r"\b(system|developer)\b.{0,30}(role|message|prompt|instruction|turn)|roles? must alternate|"
        r"only user and assistant|role\W.{0,20}\bsystem\b",
        re.I,
    ),
    "temperature": re.compile("temperature", re.I),
    "seed": re.compile(r"\bseed\b", re.I),
}
_FEWER = {20: 5, 5: 0}
_TOO_LARGE = re.compile(
    r"too (large|long|big|high)|exceed|at most|less than|maximum (value|context|allowed)|<=|≤", re.I
)
_ABOUT_TEXT = re.compile(r"filter|moderat|flagged|policy|safety|context|too long|quota|credit|model\b", re.I)
_UNKNOWN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra|not (permitted|allowed)|forbidden|invalid",
    re.I,
)


@dataclass(frozen=True)
class RequestForm:
    """What requests hold besides model and turns; `extras` are what no server has to know.

    Args:
        limit: the field for the token limit, if any.
        limit_is_fixed: that field was asked for, and stays.
        left_out: parts that are not sent.
        alternatives: tokens whose log-probabilities are asked for at each place.
    """

    limit: LimitField | None
    limit_is_fixed: bool = False
    left_out: frozenset[Part] = frozenset()
    alternatives: int = 20

    def sends(self, part: Part) -> bool:
        """Whether a part is sent, where a call has it."""
        return part not in self.left_out

    @property
    def has_extras(self) -> bool:
        """Whether it asks for more than a plain chat."""
        return self.sends("response_format") or self.sends("logprobs")

    @property
    def plain(self) -> RequestForm:
        """The same without extras."""
        return self.without("response_format", "logprobs")

    def without(self, *parts: Part) -> RequestForm:
        """The same with these parts left out."""
        return replace(self, left_out=self.left_out | set(parts))

    def after_refusal(
        self, status: int | None, words: str, sent: Iterable[str], *, may_change_limit: bool = True
    ) -> RequestForm | None:
        """What to send after a refusal that names a part of what was sent; `None` where it names none."""
        asked = set(sent)
        for part in PARTS:
            understood = _REFUSED if part in ("temperature", "seed") else (*_REFUSED, *_ALSO_REFUSED)
            if part not in asked or status not in understood or not _NAMED[part].search(words):
                continue
            if part == "system" and re.search("filter|moderat|flagged|policy", words, re.I):
                continue
            if part == "logprobs" and (fewer := _FEWER[self.alternatives]):
                return replace(self, alternatives=fewer)
            return self.without(part)
        if (
            self.limit is None
            or self.limit_is_fixed
            or not may_change_limit
            or status not in _REFUSED
            or self.limit not in words
        ):
            return None
        if _TOO_LARGE.search(words):
            return None
        return replace(self, limit=_OTHER[self.limit])

    def without_limit(self, status: int | None, words: str) -> RequestForm | None:
        """What to send to a server that refuses the limit's second name, too, as one that it does not know."""
        if self.limit is None or status not in _REFUSED or self.limit not in words:
            return None
        return replace(self, limit=None) if _UNKNOWN.search(words) and not _TOO_LARGE.search(words) else None


def is_vague(status: int | None, words: str) -> bool:
    """Whether a refusal may be meant for a field that it does not name."""
    named = (pattern.search(words) for pattern in (_ABOUT_TEXT, *_NAMED.values()))
    return status in _REFUSED and not any(named)


def left_out_by_hand(given: str | Iterable[str]) -> frozenset[str]:
    """Reads the fields that are to be left out, a list or a text with commas."""
    words = given.split(",") if isinstance(given, str) else given
    names = frozenset(name for word in words if (name := str(word).strip()))
    if unknown := sorted(names - {*PARTS, *LIMIT_FIELDS}):
        raise InputError(f"leave_out names {unknown[0]!r}: it takes {', '.join((*PARTS, *LIMIT_FIELDS))}")
    return names
