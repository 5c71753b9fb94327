"""A chat server's reply as the answer to a call: its thought, where that ended, its identifiers, and how likely they
were."""

from __future__ import annotations

import re

from r1ranker_ir.backends.odds import chances_of
from r1ranker_ir.backends.replies import Reply
from r1ranker_ir.backends.structured import Structured, identifiers_answered, read_structured
from r1ranker_ir.backends.thoughts import answers_in_reasoning, join_reasoning, split_thought, where_closed
from r1ranker_ir.types import Answer, Call, ClosedAt

_TAG = re.compile(r"</?think>|</?answer>")
_LABEL = re.compile(r"\**(?:final )?answer\**\s*:?\**\s*", re.IGNORECASE)


def read_chat_answer(call: Call, reply: Reply, *, by_schema: bool) -> Answer:
    """The answer without its usage; `by_schema` says that one by the schema was asked for."""
    structured = read_structured(call, reply.content) if by_schema else None
    if by_schema and structured is None and not reply.content.strip():
        # A server that expects a thought takes an answer without one for it.
        structured = read_structured(call, reply.reasoning)
    if structured is not None and structured.names is not None and reply.ran_out and _is_open(structured.before):
        structured = None  # what a thought that did not end says of the form
    if structured is not None:
        return _of_schema(call, reply, structured)
    text, thought_alone = _joined(call, reply)
    if reply.ran_out and "</think>" not in text and text.rpartition("</answer>")[2].strip() and "</answer>" in text:
        # It went on to think behind an answer that it only spoke of.
        text = f"<think>{_TAG.sub('', text)}"
    closed_at = where_closed(text, thought_alone=thought_alone, ran_out=reply.ran_out)
    if closed_at and text and "<think>" not in text:
        # The chat template had opened the thought; without this mark its numbers would pass for an answer.
        text = f"<think>{text}"
    name = _named_first(call, text)
    return _answer(call, reply, text, split_thought(text)[0], closed_at, name)


def _joined(call: Call, reply: Reply) -> tuple[str, bool]:
    """Thought and text in one, and whether it is a thought alone."""
    content, reasoning = reply.content, reply.reasoning
    if answers_in_reasoning(call, content, reasoning):
        return reasoning + content, False
    if not content.strip() and not reply.ran_out:
        thought, said = _last_line(reasoning)
        names = said.split(" > ")
        if thought and len(names) == identifiers_answered(call) and {*names} <= {*call.identifiers}:
            return join_reasoning(thought, said), False
    text = join_reasoning(reasoning, content, ended=bool(content) or not reply.ran_out)
    return text, bool(reasoning) and not content.strip()


def _is_open(before: str) -> bool:
    """Whether what stands before an answer is a thought without an end."""
    return bool(before.strip()) and "</think>" not in before


def _last_line(text: str) -> tuple[str, str]:
    """What stands before the last line, and that line, without a label such as `**Answer:**`, on it or above it."""
    before, _, line = text.rstrip().rpartition("\n")
    line = line.strip()
    said = line[label.end() :] if (label := _LABEL.match(line)) is not None else line
    above, _, last = before.rstrip().rpartition("\n")
    return above if _LABEL.fullmatch(last.strip()) else before.rstrip(), said.strip("*").strip()


def _of_schema(call: Call, reply: Reply, structured: Structured) -> Answer:
    apart = reply.reasoning if reply.content.strip() else ""
    parts = (_TAG.sub("", part).strip() for part in (apart, structured.before, structured.thought))
    thought = "\n\n".join(filter(None, parts))
    closed_at: ClosedAt | None = None
    if structured.names is None:
        closed_at = "limit" if reply.ran_out else "end_of_turn"
    choice = structured.choice(call)
    name = choice[0] if choice is not None and call.form == "one" else ""
    return _answer(call, reply, structured.text(call, thought), thought, closed_at, name, choice)


def _answer(
    call: Call,
    reply: Reply,
    text: str,
    thought: str,
    closed_at: ClosedAt | None,
    name: str,
    choice: tuple[str, ...] | None = None,
) -> Answer:
    return Answer(
        text=text,
        thought=thought,
        choice=choice,
        probabilities=_chances(call, reply, name, '"answer"' if choice is not None else "<answer>"),
        thought_closed=closed_at is not None,
        closed_at=closed_at,
        # None where there are no identifiers to be held to.
        chosen_by=None if call.free or not call.identifiers else "parsing" if choice is None else "constraint",
    )


def _named_first(call: Call, text: str) -> str:
    """The identifier with which the answer in a text begins; empty where it begins otherwise."""
    rest = split_thought(text)[1].replace("</think>", "", 1).rpartition("<answer>")[2].lstrip()
    return max((name for name in call.identifiers if rest.startswith(name)), key=len, default="")


def _chances(call: Call, reply: Reply, name: str, behind: str) -> dict[str, float] | None:
    """How likely each identifier was where the only one is written, by the tokens of the reply."""
    if not name or call.form != "one" or call.free or len(call.identifiers) < 2:
        return None
    written = "".join(token.text for token in reply.tokens)
    begin = written.find(name, max(written.rfind(behind), written.rfind("</think>"), 0))
    return None if begin < 0 else chances_of(reply.tokens, begin, call.identifiers)
