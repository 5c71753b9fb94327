"""ReasonRank's prompt file (repository 8421BCD/ReasonRank, listwise_prompt_r1.toml): listwise, after a thought.

The file holds the system turns and the answer's pattern. The user's turn stands in that project's program and not in
the file: where the file is given as it is, a wording of ours stands in, and a warning says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .family_files import checked_part, checked_texts
from .family_template import FamilyTemplate
from .published import compile_pattern

logger = logging.getLogger(__name__)

REQUIRED = ("system_prompt_reasoning", "pattern")
OPTIONAL = ("system_prompt", "user_prompt")

# The program's form (a blank line before [1], a candidate a line), in words of our own.
_OWN_USER = """These {num} passages, each behind its number in brackets, are to be put in order for a search: {query}

{docs}The search once more: {query}
Order all {num} passages, the one that serves the search best first. Name every number exactly once, in the form \
[] > [], such as [2] > [1]."""


def build_reasonrank_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Checks ReasonRank's prompt file.

    Args:
        content: the parsed TOML: `system_prompt_reasoning` and `pattern`; `system_prompt`, which is for models that do
            not reason, is not used. A key of ours, `user_prompt` with `{query}`, `{num}` and `{docs}` (the candidates,
            each with its line break), can be added to hold the user's turn that the project's program writes.
        source: where it comes from, for errors.

    Returns:
        The template.

    Raises:
        InputError: if a key is unknown, missing or no text, or a placeholder is unknown or missing.
    """
    texts = checked_texts(content, source, "ReasonRank's template", REQUIRED, OPTIONAL)
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
