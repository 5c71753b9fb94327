"""What prompts and templates are known by, in traces and in the completions cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from r1ranker_ir.types import Message


def digest_of_messages(messages: Sequence[Message]) -> str:
    """SHA-256 of a rendered prompt's roles and contents, before the model's chat template, in 64 hexadecimal digits."""
    turns = [[message.role, message.content] for message in messages]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


def digest_of_template(content: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 of what shapes a template's prompts, whatever the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
