"""rank_llm's prompt files (repository castorini/rank_llm, src/rank_llm/rerank/prompt_templates/*.yaml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from r1ranker_ir.errors import InputError

from .family_files import checked_part, checked_texts
from .family_template import FamilyTemplate, Turn
from .timed_patterns import timed_pattern

SINGLE_TURN, MULTI_TURN, POINTWISE = "singleturn_listwise", "multiturn_listwise", "pointwise"
_PATTERNS = ("output_validation_regex", "output_extraction_regex")
_OF_ALL, _OF_ONE, _DOCUMENT = ("query", "num"), ("rank", "candidate"), ("query", "doc_content")
# Methods whose files hold the input of models that are no causal ones.
_NOT_SERVED = {
    "pairwise": "the input of DuoT5, an encoder-decoder that compares two documents",
    "rankfid": "the input of LiT5, an encoder-decoder that reads each passage apart and joins them in its decoder "
    "(fusion in decoder)",
}
# A scalar that YAML does not take for a quoted one, because an r stands before the quotation mark.
_RAW = re.compile(r"""\s*r(["'])(.*)\1\s*""", re.DOTALL)
_EXAMPLE_IN_LETTERS = re.compile(r"\[[A-Z]\] > \[[A-Z]\]")


def build_rank_llm_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Builds a template from parsed YAML; its `method` says which keys it has.

    With `singleturn_listwise` it holds `body` with `{rank}` and `{candidate}` (also `{score}`, the first stage's), and
    may hold `system_message`, `prefix` and `suffix` with `{query}` and `{num}` (the suffix also `{psg_ids}`); with
    `multiturn_listwise` `body_user`, and `prefix_user`, `prefix_assistant`, `body_assistant`, `suffix_user`. Both may
    hold `output_validation_regex` and `output_extraction_regex`. Identifiers are letters where these, or the example of
    an order, say so.
    """
    method = content.get("method")
    readers = {SINGLE_TURN: _single_turn, MULTI_TURN: _multi_turn, POINTWISE: _pointwise}
    if isinstance(method, str) and method in readers:
        return readers[method](content, source)
    if isinstance(method, str) and method in _NOT_SERVED:
        raise InputError(
            f"{source}: method is {method!r}: it holds {_NOT_SERVED[method]}, which a causal language model can't be "
            f"asked with; templates with {SINGLE_TURN}, {MULTI_TURN} or {POINTWISE} can be used here"
        )
    raise InputError(
        f"{source}: method is {method!r}: of rank_llm's templates those with {SINGLE_TURN}, {MULTI_TURN} or "
        f"{POINTWISE} can be used"
    )


def _common(texts: Mapping[str, str], source: str, body: str) -> dict[str, Any]:
    """What both methods say alike."""
    # The answers' regular expressions are for rank_llm's analysis; its reading takes all digits.
    valid, extracted = (_unquoted(texts[key]) for key in _PATTERNS)
    for key, pattern in zip(_PATTERNS, (valid, extracted), strict=True):
        timed_pattern(pattern, f"{source}: {key}")
    wording = " ".join(text for key, text in texts.items() if key not in _PATTERNS)
    return {
        "name": source,
        "protocol": "rankgpt",
        "asks": "order",
        "system": texts["system_message"],
        "mark": _mark(texts[body], f"{source}: {body}"),
        "letters": "A-Z" in extracted or (not extracted and _EXAMPLE_IN_LETTERS.search(wording) is not None),
        "thinks": "<think>" in wording,
        "tagged": "<answer>" in wording,
        "valid": valid,
    }


def _unquoted(pattern: str) -> str:
    raw = _RAW.fullmatch(pattern)
    return raw[2] if raw else pattern.strip()


def _mark(body: str, where: str) -> tuple[str, str]:
    """What stands around a candidate's number: brackets, or a word before it."""
    if "[{rank}]" in body:
        return "[", "]"
    if word := re.search(r"(PASSAGE)\{rank\}", body):
        return word[1], ""
    raise InputError(f"{where} is {body!r}: answers are read as [1] or PASSAGE1, so it must hold [{{rank}}]")


def _single_turn(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    optional = ("system_message", "prefix", "suffix", *_PATTERNS)
    texts = checked_texts(content, source, f"a template of {SINGLE_TURN}", ("method", "body"), optional)
    body = checked_part(texts, "body", source, (*_OF_ONE, "score"), _OF_ONE)
    prefix = checked_part(texts, "prefix", source, _OF_ALL)
    suffix = checked_part(texts, "suffix", source, (*_OF_ALL, "psg_ids"))
    _check_query(source, prefix + suffix)
    return FamilyTemplate(user=f"{prefix}{{docs}}{suffix}", candidate=body, **_common(texts, source, "body"))


def _multi_turn(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    optional = ("system_message", "prefix_user", "prefix_assistant", "body_assistant", "suffix_user", *_PATTERNS)
    texts = checked_texts(content, source, f"a template of {MULTI_TURN}", ("method", "body_user"), optional)
    body = checked_part(texts, "body_user", source, _OF_ONE, _OF_ONE)
    received = checked_part(texts, "body_assistant", source, ("rank",))
    opening = [checked_part(texts, key, source, _OF_ALL) for key in ("prefix_user", "prefix_assistant")]
    suffix = checked_part(texts, "suffix_user", source, _OF_ALL)
    _check_query(source, "".join(opening) + suffix)
    if bool(opening[0]) != bool(opening[1]):
        raise InputError(f"{source}: prefix_user and prefix_assistant go together: give both, or none")
    if not received and not opening[1]:
        raise InputError(
            f"{source}: neither prefix_assistant nor body_assistant is there: it has one turn, so its method is "
            f"{SINGLE_TURN}"
        )
    if received and not suffix:
        raise InputError(f"{source}: suffix_user is missing: the last turn is a user's")
    before = (Turn("user", opening[0]), Turn("assistant", opening[1])) if opening[0] else ()
    return FamilyTemplate(
        user=suffix if received else f"{{docs}}{suffix}",
        candidate=body,
        before=before,
        each=(Turn("user", body), Turn("assistant", received)) if received else (),
        **_common(texts, source, "body_user"),
    )


def _check_query(source: str, around: str) -> None:
    if "{query}" not in around:
        raise InputError(f"{source}: placeholder {{query}} is missing: put it before or behind the candidates")


def _pointwise(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """A chat model says yes or no of a document, graded by the probability of yes.

    The file has `system_message` and `body` with `{query}` and `{doc_content}`, or `message_roles: reranker` and
    `instruction`, for chat templates with the roles `query` and `document`. Other files of the method hold the input of
    an encoder or of T5, which no chat model is asked with.
    """
    optional = ("body", "system_message", "message_roles", "instruction")
    texts = checked_texts(content, source, f"a template of {POINTWISE}", ("method",), optional)
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
