"""Under which conditions rankings are made: what a fitted map of their scores must not be used without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1ranker_ir.files.digests import text_digest
from r1ranker_ir.prompts.prompt import PromptTemplate
from r1ranker_ir.rankers.settings import RankerSettings
from r1ranker_ir.strategies import Strategy
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Condition

_DIGITS = 16
_SETTINGS = ("answers", "api", "temperature", "extra_body", "examples", "example_kind", "example_encoder")
# They end a ranking, and one that was ended has no scores.
_BUDGET = ("max_calls", "max_tokens")


def conditions_of(
    model: str,
    strategy: Strategy,
    options: RankingOptions,
    settings: RankerSettings,
    template: PromptTemplate,
    limits: Mapping[str, Any],
    bank: str | None,
) -> dict[str, Condition]:
    """What decides what a score means: model, prompt, limits, and all options that differ from their defaults.

    Args:
        model: of its place, the last part alone counts: a checkpoint may be moved.
        strategy: how it ranks.
        options: how the ranking goes about its calls.
        settings: what it is told besides.
        template: the prompt's wording, of which the strategy's own section counts.
        limits: windows, and what cuts texts and thoughts; those that are `None` are left out.
        bank: the digest of the bank of thoughts that worked examples come from.
    """
    marks, judged = options.marks, options.vote_by == "judged"
    own = template if marks or judged else template.only(strategy.asked_with(options).name)
    stated, backend = settings.stated(), settings.declared_backend.name
    found: dict[str, Any] = {
        "model": Path(model).name or model,
        "backend": backend,
        "template": own.digest(mark=marks, judge=judged),
        **{name: value for name, value in limits.items() if value is not None and value is not False},
        **{name: stated[name] for name in _SETTINGS if name in stated},
        **({} if bank is None else {"thoughts": bank}),
        **{name: value for name, value in options.stated().items() if name not in _BUDGET},
    }
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Condition:
    """A value that JSON has; what a server is sent beside a prompt may hold secrets, so its digest alone is told."""
    if isinstance(value, str | int | float):
        return value
    if value is None:
        return "none"
    return text_digest(json.dumps(value, sort_keys=True, default=str))[:_DIGITS]
