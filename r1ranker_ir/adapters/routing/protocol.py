"""How questions become requests, and what an answer is taken to cost where nothing says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.option_fields import check_offered, option


@dataclass(frozen=True)
class RoutingProtocol:
    """How requests are made of observations; each field says what it is for."""

    cost_scale: Literal["question", "file"] = option("question", "Whose dearest answer costs 1.")
    output_tokens: int = option(256, "Tokens of an answer, for its cost, where neither is given.", least=0)
    seed: int = option(0, "Seed of the candidates' order.")

    def __post_init__(self) -> None:
        check_offered(self)
