"""What the service does not answer with a ranking: a status, words for the client, and when to try again."""

from __future__ import annotations

from r1ranker_ir.errors import InputError, R1RankerError

KINDS = {
    401: "Unauthorized",
    404: "NotFound",
    408: "Timeout",
    429: "Overloaded",
    503: "Unhealthy",
}
"""Status to the kind of error that its body names, in the words of text-embeddings-inference where it has one."""


class RefusedRequest(InputError):
    """A request that can't be answered as it stands, or not now."""

    def __init__(self, message: str, status: int = 422, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ModelFailure(R1RankerError):
    """The model or its server failed; why is for the service's log alone."""


def error_body(status: int, message: str, request_id: str) -> dict[str, str]:
    """A body that every client finds its message in: Cohere's in `message`, Jina's in `detail`, TEI's in `error`."""
    return {
        "message": message,
        "detail": message,
        "error": message,
        "error_type": KINDS.get(status, "Validation" if status < 500 else "Backend"),
        "id": request_id,
    }
