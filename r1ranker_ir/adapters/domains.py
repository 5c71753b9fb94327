"""What is wanted in each domain: the words for the prompt, and the weights of routing objectives."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from r1ranker_ir.errors import InputError


@lru_cache(maxsize=1)
def _tables() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files(__package__).joinpath("domains.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def recommendation_domains() -> tuple[str, ...]:
    """Names the domains of recommendation."""
    return tuple(_tables()["recommendation"])


def routing_objectives() -> tuple[str, ...]:
    """Names the objectives of routing."""
    return tuple(_tables()["routing"])


def objective_weights(objective: str) -> tuple[float, float]:
    """How much effect and cost count in an objective."""
    known = _tables()["routing"]
    if objective not in known:
        raise InputError(f"objective is {objective!r}: use one of {', '.join(known)}, or (weight of effect, of cost)")
    return known[objective]["effect"], known[objective]["cost"]


def aim_of(domain: str) -> str:
    """What the best candidate of a domain or an objective must be, in words for the prompt."""
    items, routes = _tables()["recommendation"], _tables()["routing"]
    if domain in items:
        return str(items[domain])
    if domain in routes:
        return str(routes[domain]["aim"])
    raise InputError(f"domain is {domain!r}: use one of {', '.join((*items, *routes))}")
