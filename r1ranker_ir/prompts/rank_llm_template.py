"""rank_llm's prompt files (repository castorini/rank_llm, src/rank_llm/rerank/prompt_templates/*.yaml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.records import Record, checked_record

from .family_files import holding
from .family_template import FamilyTemplate, Turn
from .timed_patterns import checked_pattern

# Methods whose files hold the input of models that are no causal ones.
_NOT_SERVED = {
    "pairwise": "the input of DuoT5, an encoder-decoder that compares two documents",
    "rankfid": "the input of LiT5, an encoder-decoder that reads each passage apart and joins them in its decoder "
    "(fusion in decoder)",
}
# A scalar that YAML does not take for a quoted one, because an r stands before the quotation mark.
_RAW = re.compile(r"""\s*r(["'])(.*)\1\s*""", re.DOTALL)
_EXAMPLE_IN_LETTERS = re.compile(r"\[[A-Z]\] > \[[A-Z]\]")


def _unquoted(pattern: str) -> str:
    raw = _RAW.fullmatch(pattern)
    return checked_pattern(raw[2] if raw else pattern.strip())


_Pattern = Annotated[str, AfterValidator(_unquoted)]
_OfAll = Annotated[str, holding("query num")]


class _Listwise(Record):
    method: str
    system_message: str = ""
    # The answers' regular expressions are for rank_llm's analysis; its reading takes all digits.
    output_validation_regex: _Pattern = ""
    output_extraction_regex: _Pattern = ""


class _SingleTurn(_Listwise):
    """One turn of prefix, candidates and suffix."""

    body: Annotated[str, holding("rank candidate score", "rank candidate")]
    prefix: _OfAll = ""
    suffix: Annotated[str, holding("query num psg_ids")] = ""


class _MultiTurn(_Listwise):
    """A turn for each candidate, which the assistant may acknowledge."""

    body_user: Annotated[str, holding("rank candidate", "rank candidate")]
    body_assistant: Annotated[str, holding("rank")] = ""
    prefix_user: _OfAll = ""
    prefix_assistant: _OfAll = ""
    suffix_user: _OfAll = ""


class _Pointwise(Record):
    """A turn that asks a chat model for yes or no; or `instruction`, for chat templates with roles for rerankers."""

    method: str
    body: str = ""
    system_message: str = ""
    message_roles: Literal["", "default", "reranker"] = ""
    instruction: str = ""


class _PointwiseBody(Record):
    body: Annotated[str, holding("query doc_content", "query doc_content")]


def build_rank_llm_template(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """Builds a template from parsed YAML; its `method` says which keys it has.

    Identifiers are letters where the regular expressions, or the example of an order, say so.
    """
    method = content.get("method")
    readers = {"singleturn_listwise": _single_turn, "multiturn_listwise": _multi_turn, "pointwise": _pointwise}
    if isinstance(method, str) and method in readers:
        return readers[method](content, source)
    what = "is not one of rank_llm's that can be used here"
    if isinstance(method, str) and method in _NOT_SERVED:
        what = f"holds {_NOT_SERVED[method]}, which a causal language model can't be asked with"
    raise InputError(f"{source}: method is {method!r}: it {what}; use a template of {', '.join(readers)}")


def _common(told: _Listwise, source: str, body: str, around: str) -> dict[str, Any]:
    """What both methods say alike; `around` is the wording before and behind the candidates."""
    if "{query}" not in around:
        raise InputError(f"{source}: placeholder {{query}} is missing: put it before or behind the candidates")
    word = re.search(r"(PASSAGE)\{rank\}", body)
    if "[{rank}]" not in body and not word:
        raise InputError(f"{source}: body is {body!r}: answers are read as [1] or PASSAGE1, so it must hold [{{rank}}]")
    wording, extracted = f"{told.system_message} {around} {body}", told.output_extraction_regex
    return {
        "name": source,
        "protocol": "rankgpt",
        "asks": "order",
        "system": told.system_message,
        "candidate": body,
        "mark": ("[", "]") if word is None or "[{rank}]" in body else (word[1], ""),
        "letters": "A-Z" in extracted or (not extracted and _EXAMPLE_IN_LETTERS.search(wording) is not None),
        "thinks": "<think>" in wording,
        "tagged": "<answer>" in wording,
        "valid": told.output_validation_regex,
    }


def _single_turn(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    told = checked_record(_SingleTurn, content, source, error=InputError)
    common = _common(told, source, told.body, told.prefix + told.suffix)
    return FamilyTemplate(user=f"{told.prefix}{{docs}}{told.suffix}", **common)


def _multi_turn(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    told = checked_record(_MultiTurn, content, source, error=InputError)
    received, suffix = told.body_assistant, told.suffix_user
    common = _common(told, source, told.body_user, f"{told.prefix_user} {told.prefix_assistant} {suffix} {received}")
    if bool(told.prefix_user) != bool(told.prefix_assistant):
        raise InputError(f"{source}: prefix_user and prefix_assistant go together: give both, or none")
    if not received and not told.prefix_assistant:
        raise InputError(
            f"{source}: neither prefix_assistant nor body_assistant is there: it has one turn, so its method is "
            "singleturn_listwise"
        )
    if received and not suffix:
        raise InputError(f"{source}: suffix_user is missing: the last turn is a user's")
    return FamilyTemplate(
        user=suffix if received else f"{{docs}}{suffix}",
        before=(Turn("user", told.prefix_user), Turn("assistant", told.prefix_assistant)) if told.prefix_user else (),
        each=(Turn("user", told.body_user), Turn("assistant", received)) if received else (),
        **common,
    )


def _pointwise(content: Mapping[str, Any], source: str) -> FamilyTemplate:
    """A chat model says yes or no of a document, graded by the probability of yes."""
    told = checked_record(_Pointwise, content, source, error=InputError)
    common: dict[str, Any] = {"name": source, "protocol": "yes-no", "asks": "grade", "candidate": "{candidate}"}
    system, instruction = told.system_message.strip(), told.instruction.strip()
    if told.message_roles == "reranker":
        if not instruction:
            raise InputError(f"{source}: instruction is missing: with message_roles 'reranker' it is the system's turn")
        before = (Turn("query", "{query}"),)
        return FamilyTemplate(system=instruction, user="{docs}", before=before, last_role="document", **common)
    if not (system or instruction or told.message_roles):
        raise InputError(
            f"{source}: it holds the input of a model that scores one document, an encoder's or T5's, such as MonoT5, "
            "MonoELECTRA or Jina's rerankers: a causal language model is not trained on it, so it can't be used here. "
            "To ask a chat model for yes or no with it, add system_message, or message_roles: default"
        )
    body = checked_record(_PointwiseBody, {"body": told.body}, source, error=InputError).body
    return FamilyTemplate(system=system, user=body.replace("<unk>", "").replace("{doc_content}", "{docs}"), **common)
