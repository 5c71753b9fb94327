"""What is wanted in each domain: the words for the prompt, and the weights of routing objectives."""

from __future__ import annotations

import tomllib
from importlib import resources

from r1ranker_ir.errors import InputError

_TABLES = tomllib.loads(resources.files(__package__).joinpath("domains.toml").read_text(encoding="utf-8"))
RECOMMENDATION_DOMAINS: tuple[str, ...] = tuple(_TABLES["recommendation"])
ROUTING_WEIGHTS: dict[str, tuple[float, float]] = {
    name: (objective["effect"], objective["cost"]) for name, objective in _TABLES["routing"].items()
}
"""How much effect and cost count in each objective of routing."""


def aim_of(domain: str, known: tuple[str, ...] = (*RECOMMENDATION_DOMAINS, *ROUTING_WEIGHTS)) -> str:
    """What the best candidate of a domain or an objective must be, in words for the prompt."""
    if domain not in known:
        raise InputError(f"domain is {domain!r}: use one of {', '.join(known)}")
    items, routes = _TABLES["recommendation"], _TABLES["routing"]
    return str(items[domain] if domain in items else routes[domain]["aim"])
