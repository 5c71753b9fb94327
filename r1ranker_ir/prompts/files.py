"""Opening a template file, whosever form it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1ranker_ir.files.yaml_text import parse_yaml

from .family_files import build_rank_r1_template, build_reasonrank_template
from .family_template import FamilyTemplate
from .iranker_template import IRankerTemplate, build_iranker_template
from .rank_llm_template import build_rank_llm_template
from .template import Template, build_template, parse_toml, read_template_text

_YAML = (".yaml", ".yml")


def open_template(path: str | Path) -> Template | FamilyTemplate | IRankerTemplate:
    """Reads a template file; its keys tell whose it is.

    That is one of ours, or one in IRanker's form, or that of Rank-R1 or ReasonRank (TOML), or of rank_llm (YAML, or
    TOML with its keys).
    """
    text, source = read_template_text(path, "TOML or YAML"), str(path)
    if Path(path).suffix.lower() in _YAML:
        content = parse_yaml(text, f"template {source!r}", feature="A template in YAML", extra="local")
    else:
        content = parse_toml(text, source)
    return build_any_template(content, source)


def build_any_template(content: Any, source: str) -> Template | FamilyTemplate | IRankerTemplate:
    """Builds a template by the keys that it has; an InputError names what is unknown, missing or malformed."""
    keys = set(content) if isinstance(content, Mapping) else set()
    if {"strategy", "template"} <= keys and isinstance(content["template"], Mapping):
        # The file of a published system, which holds its template.
        return build_any_template({"name": Path(source).stem, **content["template"]}, source)
    if "form" in keys:
        return build_iranker_template(content, source)
    if "method" in keys or keys & {"body", "body_user"}:
        return build_rank_llm_template(content, source)
    if keys & {"prompt_system", "prompt_user"}:
        return build_rank_r1_template(content, source)
    if keys & {"system_prompt", "system_prompt_reasoning"}:
        return build_reasonrank_template(content, source)
    return build_template(content, source)
