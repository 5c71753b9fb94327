"""Reading an output by the paper's protocol: a thought between `<think>` tags, then an answer between `<answer>` tags.

Stricter than the reading at inference (`r1ranker_ir.prompts.answers`), which makes the best of whatever was written:
tags are in lower case, and an identifier is `[n]` as the prompt writes it, in ASCII digits without a leading zero or an
inner space. Everything here takes time in proportion to the output's length, whatever it holds.
"""

from __future__ import annotations

import re

from r1ranker_ir.training.data.records import TAGS

_THINK, _THINK_END, _ANSWER, _ANSWER_END = TAGS

# Possessive throughout: a completion may be a megabyte of brackets or spaces, and none of it may be read twice.
_IDENTIFIER = re.compile(r"\[\s*+\d++\s*+\]")
_THOUGHT_TO_ANSWER = re.compile(r"</think>\s*+<answer>")


def format_term(output: str) -> float:
    """The f of R1-Ranker's rewards: 0 for exactly one thought and then one answer, else −1."""
    exact = (
        output.startswith(_THINK)
        and output.endswith(_ANSWER_END)
        and tag_term(output) == 0
        and _THOUGHT_TO_ANSWER.search(output) is not None
    )
    return 0.0 if exact else -1.0


def tag_term(output: str) -> float:
    """The t of R1-Ranker's rewards: −0.25 for each of the four tags that does not occur exactly once."""
    return 0.0 - 0.25 * sum(output.count(tag) != 1 for tag in TAGS)


def closed_answer(output: str) -> str | None:
    """Finds what stands strictly inside the last closed answer block after the last thought."""
    after = output[output.rfind(_THINK_END) + len(_THINK_END) :] if _THINK_END in output else output
    start = after.rfind(_ANSWER, 0, max(after.rfind(_ANSWER_END), 0))
    if start < 0:
        return None
    inside = after[start + len(_ANSWER) :].partition(_ANSWER_END)[0]
    return inside if inside.strip() else None


def answer_after_thought(output: str) -> str | None:
    r"""Finds what the regular expression of Rank-R1 and ReasonRank captures.

    That is `<think>.*?</think>\s*<answer>(.*?)</answer>`, searched in the whole output.
    """
    start = output.find(_THINK)
    turn = _THOUGHT_TO_ANSWER.search(output, start) if start >= 0 else None
    if turn is None:
        return None
    inside, closing, _ = output[turn.end() :].partition(_ANSWER_END)
    return inside if closing else None


def written_identifiers(answer: str | None) -> list[str]:
    """Lists everything in an answer that looks like an identifier, as it is written."""
    return [] if answer is None else _IDENTIFIER.findall(answer)
