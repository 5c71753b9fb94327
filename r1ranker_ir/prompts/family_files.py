"""Template files of Rank-R1 and ReasonRank, and the checks that all readers of other systems' files share."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

from .family_template import FamilyTemplate
from .published import compile_pattern
from .template import check_placeholders, has_placeholder

logger = logging.getLogger(__name__)

# What version 0.1 of Rank-R1 was trained on; its file says neither.
_SEPARATOR, _PREFIX = "\n", "[{num}] "
# The program's form (a blank line before [1], a candidate a line), in words of our own.
_OWN_USER = """These {num} passages, each behind its number in brackets, are to be put in order for a search: {query}

{docs}The search once more: {query}
Order all {num} passages, the one that serves the search best first. Name every number exactly once, in the form \
[] > [], such as [2] > [1]."""


def checked_texts(
    content: Mapping[str, Any], source: str, kind: str, required: Collection[str], optional: Collection[str]
) -> dict[str, str]:
    """The texts of a parsed template file by key; an InputError names a key that is unknown, missing or no text."""
    known = [*required, *optional]
    if unknown := [key for key in content if key not in known]:
        raise InputError(f"{source}: unknown key {quoted(unknown[0])}; {kind} has {', '.join(known)}")
    if missing := [key for key in required if key not in content]:
        raise InputError(f"{source}: key {missing[0]!r} is missing; {kind} has {', '.join(known)}")
    if bad := [key for key, value in content.items() if not isinstance(value, str)]:
        raise InputError(f"{source}: {bad[0]} is {quoted(content[bad[0]])}; give a string")
    return {key: content.get(key, "") for key in known}


def checked_part(
    texts: Mapping[str, str], key: str, source: str, allowed: Collection[str], needed: Collection[str] = ()
) -> str:
    """One of these texts; an InputError names a placeholder that is unknown or missing."""
    check_placeholders(f"{source}: {key}", texts[key], allowed, needed)
    return texts[key]


def build_rank_r1_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Builds a template from a Rank-R1 file (repository ielab/llm-rankers, Rank-R1/prompts/*.toml).

    It asks for the best candidate, or for an order if `prompt_user` holds `{num}`. `doc_prefix` holds `{num}` too;
    only its training reads `ground_truth`.
    """
    required, optional = ("prompt_system", "prompt_user", "pattern"), ("doc_separator", "doc_prefix", "ground_truth")
    texts = checked_texts(content, source, "a Rank-R1 template", required, optional)
    user = checked_part(texts, "prompt_user", source, ("query", "docs", "num"), ("query", "docs"))
    listwise = has_placeholder(user, "num")
    pattern = texts["pattern"]
    compile_pattern(pattern, f"{source}: pattern")
    prefix = _PREFIX
    if "doc_prefix" in content:
        prefix = checked_part(texts, "doc_prefix", source, ("num",), ("num",))
        if "[{num}]" not in prefix:
            raise InputError(
                f"{source}: doc_prefix is {prefix!r}: the answers are read as [1], so it must hold [{{num}}]"
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


def build_reasonrank_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Builds a template from ReasonRank's file (repository 8421BCD/ReasonRank, listwise_prompt_r1.toml).

    The user's turn stands in that project's program and not in its file: it can be added as `user_prompt`, a key of
    ours, with `{query}`, `{num}` and `{docs}` (the candidates, each with its line break); else a wording of ours stands
    in, and a warning says so. `system_prompt` is for models that do not reason, and not used.
    """
    required, optional = ("system_prompt_reasoning", "pattern"), ("system_prompt", "user_prompt")
    texts = checked_texts(content, source, "ReasonRank's template", required, optional)
    compile_pattern(texts["pattern"], f"{source}: pattern")
    user = _OWN_USER
    if "user_prompt" in content:
        user = checked_part(texts, "user_prompt", source, ("query", "num", "docs"), ("query", "docs"))
    else:
        logger.warning(
            "%s holds no user's turn: that of ReasonRank stands in its program, not in the file, so a wording of ours "
            "is used, which its checkpoints were not trained on. Add it as user_prompt with {query}, {num} and {docs}, "
            "or give rank_llm's reasonrank_template.yaml",
            source,
        )
    return FamilyTemplate(
        name=source,
        protocol="reasonrank",
        asks="order",
        system=texts["system_prompt_reasoning"],
        user=user,
        candidate="[{rank}] {candidate}\n",
        thinks=True,
        tagged=True,
        pattern=texts["pattern"],
    )
