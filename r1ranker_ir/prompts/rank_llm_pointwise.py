"""rank_llm's pointwise prompt files: a chat model says yes or no of a document, graded by the probability of yes.

Other files of the method hold the input of an encoder or of T5, which no chat model is asked with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1ranker_ir.errors import InputError

from .family_files import checked_part, checked_texts
from .family_template import FamilyTemplate, Turn

POINTWISE = "pointwise"
_OPTIONAL = ("body", "system_message", "message_roles", "instruction")
_DOCUMENT = ("query", "doc_content")


def build_pointwise_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Checks a pointwise prompt file of rank_llm.

    Args:
        content: the parsed YAML: `method: pointwise`, and either `system_message` and `body` with `{query}` and
            `{doc_content}`, or `message_roles: reranker` and `instruction`, for chat templates that have the roles
            `query` and `document`; `body` says nothing then.
        source: where it comes from, for errors.

    Returns:
        The template.

    Raises:
        InputError: if it is for another kind of model, a key is unknown, missing or no text, or a placeholder is
            unknown or missing.
    """
    texts = checked_texts(content, source, f"a template of {POINTWISE}", ("method",), _OPTIONAL)
    if texts["message_roles"] == "reranker":
        if not texts["instruction"].strip():
            raise InputError(f"{source}: instruction is missing: with message_roles 'reranker' it is the system's turn")
        return FamilyTemplate(
            name=source,
            protocol="yes-no",
            asks="grade",
            system=texts["instruction"].strip(),
            user="{docs}",
            candidate="{candidate}",
            before=(Turn("query", "{query}"),),
            last_role="document",
        )
    if texts["message_roles"] not in ("", "default"):
        raise InputError(f"{source}: message_roles is {texts['message_roles']!r}: use reranker or default")
    if not texts["system_message"].strip() and not texts["instruction"].strip() and not texts["message_roles"]:
        raise InputError(
            f"{source}: it holds the input of a model that scores one document, an encoder's or T5's, such as MonoT5, "
            "MonoELECTRA or Jina's rerankers: a causal language model is not trained on it, so it can't be used here. "
            "To ask a chat model for yes or no with it, add system_message, or message_roles: default"
        )
    body = checked_part(texts, "body", source, _DOCUMENT, _DOCUMENT)
    return FamilyTemplate(
        name=source,
        protocol="yes-no",
        asks="grade",
        system=texts["system_message"].strip(),
        user=body.replace("<unk>", "").replace("{doc_content}", "{docs}"),
        candidate="{candidate}",
    )
