"""YAML as plain data; what reads it is an optional dependency."""

from __future__ import annotations

from typing import Any

from r1ranker_ir.errors import DataFileError, missing_extra


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
        raise DataFileError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
