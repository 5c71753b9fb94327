"""What one request may hold and take, and how many requests there may be at once."""

from __future__ import annotations

from dataclasses import dataclass

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.byte_sizes import parse_bytes
from r1ranker_ir.option_fields import check_offered, limit_option
from r1ranker_ir.serving.refusals import RefusedRequest


@dataclass(frozen=True)
class ServiceLimits:
    """Limits of the service; each field says what it is for."""

    max_documents: int = limit_option(1000, "Most documents in a request.", least=1)
    max_characters: int = limit_option(2_000_000, "Most characters of a query and its documents together.", least=1)
    max_bytes: int = limit_option(
        16 * 2**20,
        "Most bytes of a request's body: a number, or a size such as 16MiB.",
        metavar="SIZE",
        parse=lambda text: parse_bytes(text, "the size"),
        unset="16MiB",
    )
    deadline: float = limit_option(
        60.0, "Seconds after which a request is answered with the best order so far; a request may ask for fewer."
    )
    max_active: int = limit_option(64, "Most requests that are ranked at once; they share batches.", least=1)
    max_waiting: int = limit_option(256, "Most requests that wait for a place; others are refused (429).", least=0)

    def __post_init__(self) -> None:
        check_offered(self)
        if not 0 < self.deadline < float("inf"):
            raise InputError(f"deadline is {self.deadline}: give seconds above 0")
        if self.max_bytes < 1:
            raise InputError(f"max_bytes is {self.max_bytes}: give at least 1")

    def check(self, query: str, documents: int, characters: int) -> None:
        """Refuses what is too much."""
        if documents > self.max_documents:
            raise RefusedRequest(f"there are {documents} documents: give at most {self.max_documents}", 413)
        if (whole := characters + len(query)) > self.max_characters:
            raise RefusedRequest(f"query and documents have {whole} characters: give {self.max_characters}", 413)
