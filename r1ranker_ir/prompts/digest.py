"""What prompts and templates are known by, in traces and in the completions cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from r1ranker_ir.types import Message


def digest_of_messages(messages: Sequence[Message]) -> str:
    """Hashes a rendered prompt, before the model's chat template.

    Args:
        messages: the turns.

    Returns:
        SHA-256 of roles and contents as 64 hexadecimal digits; equal in every process and on every machine.
    """
    turns = [[message.role, message.content] for message in messages]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


def digest_of_template(content: Mapping[str, Any]) -> str:
    """Hashes what a template holds.

    Args:
        content: everything that shapes a prompt, as plain data; the order of keys does not matter.

    Returns:
        The first 16 hexadecimal digits of SHA-256.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
