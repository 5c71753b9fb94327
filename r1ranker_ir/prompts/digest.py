"""What prompts and templates are known by, in traces and in the completions cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from r1ranker_ir.types import Message


def digest_of_messages(messages: Sequence[Message]) -> str:
    """Hashes a rendered prompt, before the model's chat template."""
    turns = [[message.role, message.content] for message in messages]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


def digest_of_template(content: Mapping[str, Any]) -> str:
    """Hashes what a template holds."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
