"""YAML as plain data; what reads it is an optional dependency."""

from __future__ import annotations

import re
from typing import Any

from r1ranker_ir.errors import DataFileError, missing_extra

# Longer than the characters and marks that the parser quotes of its own accord.
_QUOTED = re.compile(r"'[^']{9,}'|\"[^\"]{9,}\"")


def parse_yaml(text: str, where: str, *, feature: str, extra: str) -> Any:
    """Parses YAML.

    Args:
        text: a file's content.
        where: its file, for errors.
        feature: what wants to read it, as the subject of a sentence.
        extra: the extra that brings PyYAML for it.

    Returns:
        Plain data.

    Raises:
        DataFileError: if it is no YAML.
        MissingExtraError: if PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise missing_extra(feature, extra, error) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = _problem(error)
    # Outside of the clause: the parser's own error would stay its context, and shows the line, which may hold a key.
    raise DataFileError(f"{where} is not valid YAML: {problem}")


def _problem(error: Any) -> str:
    """What the parser says, and where, without the text that it stands at."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    told = [getattr(error, name, None) for name in ("context", "problem")]
    words = ", ".join(" ".join(each.split()) for each in told if each) or type(error).__name__
    return place + _QUOTED.sub("'…'", words)
