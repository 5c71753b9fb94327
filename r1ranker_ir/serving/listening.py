"""Where the service listens, and how it takes its leave."""

from __future__ import annotations

from dataclasses import dataclass

from r1ranker_ir.option_fields import engine_option


@dataclass(frozen=True)
class Listening:
    """Where the service listens, and how long it takes its leave."""

    host: str = engine_option("127.0.0.1", "Address to listen at; 0.0.0.0 for all of this machine's.")
    port: int = engine_option(8080, "Port to listen at; 0 for a free one.", least=0, most=65535)
    grace: float = engine_option(
        90.0, "Seconds for what was accepted to be finished after SIGTERM; then it is dropped.", least=0
    )
