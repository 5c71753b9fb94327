"""Rank-R1's prompt files (repository ielab/llm-rankers, Rank-R1/prompts/*.toml).

Setwise ones ask for the best candidate; one with `{num}` is for its listwise rankers and asks for an order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1ranker_ir.errors import InputError

from .family_files import checked_part, checked_texts
from .family_template import FamilyTemplate
from .published import compile_pattern
from .template import has_placeholder

REQUIRED = ("prompt_system", "prompt_user", "pattern")
OPTIONAL = ("doc_separator", "doc_prefix", "ground_truth")

# What version 0.1 was trained on; its file says neither.
_SEPARATOR, _PREFIX = "\n", "[{num}] "


def build_rank_r1_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Checks a Rank-R1 prompt file.

    Args:
        content: the parsed TOML: `prompt_system`, `prompt_user` with `{query}` and `{docs}`, `pattern`; and where they
            are there `doc_separator`, `doc_prefix` with `{num}`, and `ground_truth`, which only its training reads.
            With `{num}`, how many there are, in `prompt_user`, an order is asked for.
        source: where it comes from, for errors.

    Returns:
        The template.

    Raises:
        InputError: if a key is unknown, missing or no text, or a placeholder is unknown or missing.
    """
    texts = checked_texts(content, source, "a Rank-R1 template", REQUIRED, OPTIONAL)
    user = checked_part(texts, "prompt_user", source, ("query", "docs", "num"), ("query", "docs"))
    listwise = has_placeholder(user, "num")
    pattern = texts["pattern"]
    compile_pattern(pattern, f"{source}: pattern")
    prefix = _PREFIX
    if "doc_prefix" in content:
        prefix = checked_part(texts, "doc_prefix", source, ("num",), ("num",))
        if "[{num}]" not in prefix:
            raise InputError(
                f"{source}: doc_prefix is {prefix!r}: the answers are read as [1], so it has to hold [{{num}}]"
            )
    return FamilyTemplate(
        name=source,
        protocol="rank-r1-listwise" if listwise else "rank-r1",
        asks="order" if listwise else "best",
        system=texts["prompt_system"],
        user=user,
        candidate=prefix.replace("{num}", "{rank}") + "{candidate}",
        separator=texts["doc_separator"] if "doc_separator" in content else _SEPARATOR,
        thinks="<think>" in pattern.lower(),
        tagged="<answer>" in pattern.lower(),
        keeps_brackets=True,
        pattern=pattern,
    )
