"""The reranking systems that can be run side by side: under which names, and with which settings of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.family_template import FamilyTemplate
from r1ranker_ir.prompts.prompt import PromptTemplate


@dataclass(frozen=True)
class FamilyMember:
    """How a published system ranks.

    Args:
        strategy: the ranking program.
        checkpoint: its best known checkpoint; `None` for a system that asks any model.
        settings: what its authors run it with, where that differs from this project's defaults; all can be overridden.
        template: a packaged template of its form, in words of ours, for where none is given; `None` for the
            checkpoint's or the project's own.
        source: where it is published.
        words: where its prompts stand, if not in a template file that could be given as it is.
    """

    strategy: str
    checkpoint: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None
    source: str = ""
    words: str = ""


_WINDOWS = {"window_size": 20, "stride": 10}
# As rank_llm has it, RankGPT's prompts included. The limit in tokens is far above what 300 words take: it is for texts
# without spaces, which are one word.
_RANK_LLM = {"max_passage_words": 300, "max_passage_tokens": 2048, "repair_text": True}

_IN_PROGRAMS = "Its prompts stand in the programs of its repository (ulab-uiuc/IRanker), not in a file"

FAMILY: Mapping[str, FamilyMember] = MappingProxyType(
    {
        "rank-r1": FamilyMember(
            "setwise",
            "ielabgroup/Rank-R1-3B-v0.1",
            {"window_size": 20, "top_k": 10, "max_passage_tokens": 512, "max_thought_tokens": 2048},
            source="arXiv 2503.06034",
        ),
        "reasonrank": FamilyMember(
            "direct",
            "liuwenhan/reasonrank-7B",
            {**_WINDOWS, "max_passage_tokens": 512, "max_thought_tokens": 3072, "repair_text": True},
            source="github.com/8421BCD/ReasonRank",
        ),
        "listwise": FamilyMember(
            "direct",
            "castorini/rank_zephyr_7b_v1_full",
            {**_WINDOWS, **_RANK_LLM},
            "family_listwise.toml",
            source="RankZephyr, arXiv 2312.02724",
        ),
        "first": FamilyMember(
            "direct",
            "castorini/first_mistral",
            {**_WINDOWS, **_RANK_LLM, "think": "never"},
            "family_first.toml",
            source="arXiv 2406.15657",
        ),
        "rankgpt": FamilyMember(
            "direct", None, {**_WINDOWS, **_RANK_LLM}, "family_rankgpt.toml", source="arXiv 2304.09542"
        ),
        "iranker": FamilyMember(
            "iterative",
            None,
            {"window_size": 20, "max_thought_tokens": 1024},
            "family_iranker.toml",
            source="arXiv 2506.21638",
            words=_IN_PROGRAMS,
        ),
        "dranker": FamilyMember(
            "direct",
            None,
            {**_WINDOWS, "max_thought_tokens": 1024},
            "family_iranker.toml",
            source="arXiv 2506.21638",
            words=_IN_PROGRAMS,
        ),
    }
)
"""Name to system."""


def family_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a `Ranker` is to be told so that it ranks as a published system does.

    Args:
        name: one of `FAMILY`.
        given: the caller's own options, which win.

    Returns:
        All options, the template included where there is one, and the name itself as `system`.

    Raises:
        InputError: if the name is unknown.
    """
    if name not in FAMILY:
        raise InputError(f"system {name!r} is not known: use one of {', '.join(FAMILY)}")
    member = FAMILY[name]
    options = {**member.settings, **given, "system": name}
    if options.get("template") is None and member.template is not None:
        options["template"] = Path(__file__).parent / "prompts" / member.template
    return options


def wording_notes(system: str | None, model: str, template: PromptTemplate, *, own: bool) -> tuple[str, ...]:
    """Says where a published system is asked in other words than its checkpoints were trained on.

    Args:
        system: one of `FAMILY`; `None` for a ranker that is none of them.
        model: the checkpoint, or a server's name for it.
        template: what it is asked with.
        own: the template is the checkpoint's own, or the caller's choice: neither the project's default nor a packaged
            one.

    Returns:
        Sentences; none where there is nothing to say.
    """
    if system is None:
        return ()
    if not own:
        member = FAMILY[system]
        remedy = f"Give its project's template file (--template, template=; {member.source})"
        if member.words:
            remedy = (
                f"{member.words} ({member.source}): write them into a template file, as "
                "docs/prompts-and-checkpoints.md says, and give that (--template, template=)"
            )
        return (
            f"{system!r} is asked in this project's own words (template {_short(template.name)!r}), not in those of "
            f"the published system: figures may differ from the published ones, and checkpoints show what they learned "
            f"on the wording they were trained on. {remedy}",
        )
    if system == "rank-r1" and isinstance(template, FamilyTemplate) and template.protocol == "rank-r1":
        return _rank_r1_notes(model, template)
    return ()


def _rank_r1_notes(model: str, template: FamilyTemplate) -> tuple[str, ...]:
    """Version 0.1 was trained before Rank-R1's files got their `doc_prefix`, version 0.2 after that."""
    with_colon, second = template.candidate.startswith("[{rank}]:"), "v0.2" in model.lower()
    if with_colon == second:
        return ()
    trained, shown = ("[1]: text", "[1] text") if second else ("[1] text", "[1]: text")
    remedy = 'give doc_prefix = "[{num}]: "' if second else "take doc_prefix and doc_separator out of the file"
    return (
        f"Rank-R1's checkpoints of version {'0.2' if second else '0.1'} were trained on candidates as {trained!r}, and "
        f"template {_short(template.name)!r} shows them as {shown!r}: {remedy} for the form that {model!r} knows",
    )


def _short(name: str) -> str:
    return Path(name).name
