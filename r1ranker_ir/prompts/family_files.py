"""Checks that the readers of other systems' template files share: keys, texts, placeholders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

from .template import check_placeholders


def checked_texts(
    content: Mapping[str, Any], source: str, kind: str, required: Collection[str], optional: Collection[str]
) -> dict[str, str]:
    """The texts of a parsed template file by key; an InputError names a key that is unknown, missing or no text."""
    known = [*required, *optional]
    if unknown := [key for key in content if key not in known]:
        raise InputError(f"{source}: unknown key {quoted(unknown[0])}; {kind} has {', '.join(known)}")
    if missing := [key for key in required if key not in content]:
        raise InputError(f"{source}: key {missing[0]!r} is missing; {kind} has {', '.join(known)}")
    if bad := [key for key, value in content.items() if not isinstance(value, str)]:
        raise InputError(f"{source}: {bad[0]} is {quoted(content[bad[0]])}; give a string")
    return {key: content.get(key, "") for key in known}


def checked_part(
    texts: Mapping[str, str], key: str, source: str, allowed: Collection[str], needed: Collection[str] = ()
) -> str:
    """One of these texts; an InputError names a placeholder that is unknown or missing."""
    check_placeholders(f"{source}: {key}", texts[key], allowed, needed)
    return texts[key]
