"""Template files of Rank-R1 and ReasonRank, and what the readers of other systems' files share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.records import Record, checked_record

from .family_template import FamilyTemplate
from .published import checked_answer_pattern
from .template import check_placeholders, has_placeholder

logger = logging.getLogger(__name__)

# The program's form (a blank line before [1], a candidate a line), in words of our own.
_OWN_USER = """These {num} passages, each behind its number in brackets, are to be put in order for a search: {query}

{docs}The search once more: {query}
Order all {num} passages, the one that serves the search best first. Name every number exactly once, in the form \
[] > [], such as [2] > [1]."""

AnswerPattern = Annotated[str, AfterValidator(checked_answer_pattern)]


def holding(allowed: str, needed: str = "") -> AfterValidator:
    """Makes a text of a record one that may hold some placeholders, and needs some of them: words of both."""
    return AfterValidator(partial(check_placeholders, allowed=allowed.split(), required=needed.split()))


class _RankR1File(Record):
    prompt_system: str
    prompt_user: Annotated[str, holding("query docs num", "query docs")]
    pattern: AnswerPattern
    # What version 0.1 was trained on; its file says neither.
    doc_separator: str = "\n"
    doc_prefix: Annotated[str, holding("num", "num")] = "[{num}] "
    ground_truth: str = ""  # only its training reads it


class _ReasonRankFile(Record):
    system_prompt_reasoning: str
    pattern: AnswerPattern
    system_prompt: str = ""  # for models that do not reason
    user_prompt: Annotated[str, holding("query num docs", "query docs")] = _OWN_USER


def build_rank_r1_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Builds a template from a Rank-R1 file (repository ielab/llm-rankers, Rank-R1/prompts/*.toml).

    It asks for the best candidate, or for an order if `prompt_user` holds `{num}`.
    """
    told = checked_record(_RankR1File, content, source, error=InputError)
    if "[{num}]" not in told.doc_prefix:
        raise InputError(
            f"{source}: doc_prefix is {told.doc_prefix!r}: the answers are read as [1], so it must hold [{{num}}]"
        )
    listwise = has_placeholder(told.prompt_user, "num")
    return FamilyTemplate(
        name=source,
        protocol="rank-r1-listwise" if listwise else "rank-r1",
        asks="order" if listwise else "best",
        system=told.prompt_system,
        user=told.prompt_user,
        candidate=told.doc_prefix.replace("{num}", "{rank}") + "{candidate}",
        separator=told.doc_separator,
        thinks="<think>" in told.pattern.lower(),
        tagged="<answer>" in told.pattern.lower(),
        keeps_brackets=True,
        pattern=told.pattern,
    )


def build_reasonrank_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Builds a template from ReasonRank's file (repository 8421BCD/ReasonRank, listwise_prompt_r1.toml).

    The user's turn stands in that project's program and not in its file: it can be added as `user_prompt`, a key of
    ours, with `{query}`, `{num}` and `{docs}` (the candidates, each with its line break); else a wording of ours stands
    in, and a warning says so.
    """
    told = checked_record(_ReasonRankFile, content, source, error=InputError)
    if "user_prompt" not in content:
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
        system=told.system_prompt_reasoning,
        user=told.user_prompt,
        candidate="[{rank}] {candidate}\n",
        thinks=True,
        tagged=True,
        pattern=told.pattern,
    )
