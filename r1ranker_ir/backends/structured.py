"""Answers as JSON by a schema, where a server holds its model to one: the thought, then identifiers of the call."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.types import Call

_FENCE = "```"
_BEGUN = re.compile(r'\{\s*"thought"\s*:\s*"((?:[^"\\]|\\.)*)', re.DOTALL)
_OBJECT = re.compile(r'\{\s*"(?:thought|answer)"\s*:')


def takes_schema(call: Call) -> bool:
    """Whether a call's answer can be held to a schema: one that is chosen among identifiers, begun by nobody."""
    return bool(call.identifiers) and not call.free and call.messages[-1].role != "assistant"


def identifiers_answered(call: Call) -> int:
    """How many identifiers are answered."""
    return 1 if call.form == "one" else call.top or len(call.identifiers)


def response_format(call: Call) -> dict[str, Any]:
    """The request's field that asks for such an answer."""
    one: dict[str, Any] = {"type": "string", "enum": list(dict.fromkeys(call.identifiers))}
    places = identifiers_answered(call)
    answer = one if call.form == "one" else {"type": "array", "items": one, "minItems": places, "maxItems": places}
    fields: dict[str, Any] = {"thought": {"type": "string"}} if call.thinks else {}
    fields["answer"] = answer
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


@dataclass(frozen=True)
class Structured:
    """An answer by the schema.

    Args:
        before: what stands in front of it.
        thought: the thought that it holds.
        names: the identifiers that it answers with, as the call has them, others left as they are; `None` where it
            breaks off before.
    """

    before: str
    thought: str
    names: tuple[str, ...] | None

    def choice(self, call: Call) -> tuple[str, ...] | None:
        """The answer if it needs no repair: so many identifiers of the call, each once."""
        names = self.names or ()
        fits = len(names) == len(set(names)) == identifiers_answered(call) and set(names) <= set(call.identifiers)
        return names if fits else None

    def text(self, call: Call, thought: str) -> str:
        """The same as prompts ask for it, behind a thought."""
        if self.names is None:
            return f"<think>{thought}"
        answer = ("\n" if call.named else " > ").join(self.names)
        answer = f"<answer>{answer}</answer>" if call.tagged else answer
        return f"<think>{thought}</think>{answer}" if thought else answer


def read_structured(call: Call, text: str) -> Structured | None:
    """Reads an answer by the schema, where the text has one."""
    if (fenced := text.strip()).startswith(_FENCE):
        text = fenced.removeprefix(_FENCE).removeprefix("json").removesuffix(_FENCE).strip()
    end_of_all = len(text.rstrip(" \n\t`"))
    for begin in reversed([found.start() for found in _OBJECT.finditer(text)]):
        try:
            value, end = json.JSONDecoder(strict=False).raw_decode(text, begin)
        except ValueError:
            continue
        except RecursionError:
            break  # what stands around it is no shallower
        if end >= end_of_all and (read := _read(call, text[:begin], value)) is not None:
            return read
    if (alone := _followed_by_words(call, text)) is not None:
        return alone
    begun = _BEGUN.search(text)
    if begun is None or text[: begun.start()].strip():
        return None
    said = re.sub(r"\\(u[0-9a-fA-F]{0,3})?\Z", "", begun[1])
    try:
        return Structured("", str(json.loads(f'"{said}"', strict=False)), None)
    except ValueError:
        return Structured("", said, None)


def _followed_by_words(call: Call, text: str) -> Structured | None:
    """The answer with which a text begins, where what the model says about it behind has none."""
    first = _OBJECT.match(text.lstrip())
    if first is None:
        return None
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text := text.lstrip())
    except (ValueError, RecursionError):
        return None
    return None if _OBJECT.search(text, end) else _read(call, "", value)


def _read(call: Call, before: str, value: Any) -> Structured | None:
    if not isinstance(value, dict) or "answer" not in value:
        return None
    thought, answer = value.get("thought"), value["answer"]
    given = answer if isinstance(answer, list) else [answer]
    if not all(isinstance(each, str | int) for each in given):
        return None
    names = (str(each).strip() for each in given)
    known = tuple(
        f"[{name}]" if name not in call.identifiers and f"[{name}]" in call.identifiers else name for name in names
    )
    return Structured(before, thought if isinstance(thought, str) else "", known)
