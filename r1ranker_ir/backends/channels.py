"""Thoughts that are marked in a model's own way, in the text or in the thought's field, brought into one form."""

from __future__ import annotations

import re

# Possessive: whatever a model repeats, a text is read in one go.
_CHANNEL = re.compile(
    r"(?:<\|start\|>\w*+)?<\|channel\|>\s*+(?P<name>\w++)[^<]*+(?:<\|constrain\|>[^<]*+)?<\|message\|>"
    r"(?P<text>.*?)(?=<\|end\|>|<\|return\|>|<\|call\|>|<\|start\|>|<\|channel\|>|\Z)",
    re.DOTALL,
)
_MARKS = re.compile(r"<\|(?:start|end|return|call)\|>(?:assistant)?")
# The same once a server has dropped the marks as special tokens.
_BARE_THOUGHT, _BARE_CALL, _BARE_ANSWER = "analysis", "assistantcommentary", "assistantfinal"
_TAGS = (
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
_AROUND_ANSWER = re.compile(r"<\|(?:START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution)\|>")


def in_one_form(text: str) -> str:
    """Writes a thought that a model marks otherwise as `<think>…</think>` in front of the answer."""
    if "<|channel|>" in text:
        return _of_channels(text)
    if text.lstrip().startswith(_BARE_THOUGHT) and _BARE_ANSWER in text:
        thought, _, answer = text.lstrip().removeprefix(_BARE_THOUGHT).partition(_BARE_ANSWER)
        return f"<think>{thought.partition(_BARE_CALL)[0].strip()}</think>{answer}"
    for opening, closing in _TAGS:
        if text.lstrip().startswith(opening):
            text = text.lstrip().replace(opening, "<think>", 1)
        elif closing not in text or "</think>" in text:
            continue
        return _AROUND_ANSWER.sub("", text.replace(closing, "</think>", 1))
    return text


def _of_channels(text: str) -> str:
    """Harmony: `final` is the answer, the other channels are thoughts; the first may have been opened in the prompt."""
    found = list(_CHANNEL.finditer(text))
    if not found:
        return text
    thoughts = [_MARKS.sub("", text[: found[0].start()])]
    thoughts += [each["text"] for each in found if each["name"] != "final"]
    answers = [each["text"] for each in found if each["name"] == "final"]
    thought = "\n\n".join(stripped for each in thoughts if (stripped := each.strip()))
    if not answers:
        return f"<think>{thought}"
    return f"<think>{thought}</think>{answers[-1]}" if thought else answers[-1]
