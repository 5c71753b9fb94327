"""Under which key an answer is kept, and in which bytes."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from r1ranker_ir.prompts.digest import digest_of_messages
from r1ranker_ir.types import Answer, Call, ChosenBy, ClosedAt, Usage

FORMAT = 1
"""The form of keys, of values and of the tables; raised with every change."""

_CHECKSUM_BYTES = 8
# Whether the text is compressed, and how many bytes it takes; numbers follow it.
_HEAD = struct.Struct("<?I")
# Thoughts shrink to about a half at the fastest level already; short answers would cost time and gain nothing.
_LONG_BYTES, _COMPRESSION = 512, 1


def key_maker(identity: Mapping[str, Any]) -> Callable[[Call], bytes]:
    """Makes the function that gives the calls to a backend of this identity their keys: SHA-256 of all that counts."""
    whose = _json([FORMAT, identity])

    def key_of(call: Call) -> bytes:
        asked: list[Any] = [digest_of_messages(call.messages), call.identifiers, call.form]
        if call.thought is not None or call.top:
            asked += [call.thought, call.top]
        if not call.thinks or not call.tagged or call.free:
            asked += [{"thinks": call.thinks, "tagged": call.tagged, "free": call.free}]
        if call.named:
            asked += ["named"]
        if call.sample:
            asked += ["sample", call.sample]
        if call.continuation:
            asked += ["continuation", call.continuation]
        return hashlib.sha256(whose + _json(asked)).digest()

    return key_of


def version_of(identity: Mapping[str, Any]) -> str:
    """The part of a backend's identity that tells versions of one model from each other, short enough for a table."""
    checkpoint = identity.get("checkpoint", {})
    content = checkpoint.get("files", checkpoint.get("gguf", ""))
    return str(identity.get("base_url") or checkpoint.get("revision", content)[:12])


def encode(key: bytes, answer: Answer) -> bytes:
    """Turns an answer into bytes that `decode` turns back without any loss, behind a checksum of key and bytes."""
    usage, text = answer.usage, answer.text
    # The thought nearly always stands in the text, and need not be kept twice.
    start = text.find(answer.thought)
    content = _json(
        [
            text,
            answer.thought if start < 0 else [start, start + len(answer.thought)],
            answer.choice,
            None if answer.probabilities is None else list(answer.probabilities),
            answer.thought_closed,
            [usage.calls, usage.prompt_tokens, usage.completion_tokens],
            # Left out where there is nothing to say, as in the records of versions that did not know it.
            *([answer.closed_at] if answer.closed_at or answer.log_probabilities or answer.chosen_by else []),
            *([answer.log_probabilities] if answer.log_probabilities or answer.chosen_by else []),
            *([answer.chosen_by] if answer.chosen_by else []),
        ]
    )
    if long := len(content) > _LONG_BYTES:
        content = zlib.compress(content, _COMPRESSION)
    numbers = tuple((answer.probabilities or {}).values())
    packed = _HEAD.pack(long, len(content)) + content + struct.pack(f"<{len(numbers)}d", *numbers)
    return _checksum(key, packed) + packed


def decode(key: bytes, value: bytes) -> Answer | None:
    """Turns bytes back into the answer; `None` if they were damaged, or belong to another key."""
    checksum, packed = value[:_CHECKSUM_BYTES], value[_CHECKSUM_BYTES:]
    if checksum != _checksum(key, packed):
        return None
    long, length = _HEAD.unpack_from(packed)
    content, numbers = packed[_HEAD.size : _HEAD.size + length], packed[_HEAD.size + length :]
    if long:
        content = zlib.decompress(content)
    record = json.loads(content.decode("utf-8", "surrogatepass"))
    text, thought, choice, identifiers, thought_closed, usage = record[:6]
    closed_at: ClosedAt | None = record[6] if len(record) > 6 else None
    log_probabilities = tuple(record[7]) if len(record) > 7 and record[7] else None
    chosen_by: ChosenBy | None = record[8] if len(record) > 8 else None
    probabilities = struct.unpack(f"<{len(numbers) // 8}d", numbers)
    return Answer(
        text=text,
        thought=text[slice(*thought)] if isinstance(thought, list) else thought,
        choice=None if choice is None else tuple(choice),
        probabilities=None if identifiers is None else dict(zip(identifiers, probabilities, strict=True)),
        thought_closed=thought_closed,
        usage=Usage(*usage),
        closed_at=closed_at,
        log_probabilities=log_probabilities,
        chosen_by=chosen_by,
    )


def _json(content: Any) -> bytes:
    # Escapes would make one character of two lone surrogates, so characters are written as they are.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "surrogatepass")


def _checksum(key: bytes, packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=_CHECKSUM_BYTES, key=key).digest()
