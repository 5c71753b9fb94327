"""What every request passes before the application: its id, its key, its size; and after it: logs and counts."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.serving.answers import Json
from r1ranker_ir.serving.metrics import Metrics
from r1ranker_ir.serving.refusals import RefusedRequest, error_body
from r1ranker_ir.serving.service import Served, Service

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = "X-Request-ID"
OPEN = ("/", "/health", "/ready", "/metrics", "/docs", "/openapi.json")
"""What is answered without a key."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SECONDS_TO_SEND = 60.0  # a body, at most


@dataclass(frozen=True)
class Gate:
    """The application with what every request passes."""

    app: App
    service: Service
    metrics: Metrics
    paths: frozenset[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, accounted = time.monotonic(), False
        status = 499  # until something is sent, nobody has waited for it
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(REQUEST_ID.lower().encode(), "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (REQUEST_ID.lower().encode(), request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            elif not message.get("more_body", False):
                account()  # first, so that whoever has the answer finds it counted
            await send(message)

        def account() -> None:
            nonlocal accounted
            if not accounted:
                accounted = True
                self._account(scope, status, time.monotonic() - started)

        try:
            self._check_key(scope["path"], headers.get(b"authorization", ""))
            whole = await self._body(headers.get(b"content-length", ""), receive)
            if whole is not None:
                await self.app(scope, _replayed(whole, receive), marked)
        except RefusedRequest as refused:
            body = error_body(refused.status, str(refused), request_id)
            asks = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
            await Json(body, refused.status, headers=asks)(scope, receive, marked)
        except Exception as error:
            # An error of this program: its words may quote a text.
            logger.error("the request failed (%s)", type(error).__name__, extra={"fields": {"id": request_id}})
            logger.debug("the request failed", exc_info=True)
            if status == 499:
                await Json(error_body(500, "the service failed", request_id), 500)(scope, receive, marked)
        finally:
            account()

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts and logs a request that has been answered, or whose client has gone."""
        path = scope["path"] if scope["path"] in self.paths else "other"
        self.metrics.count_request(path, status)
        state = scope["state"]
        fields = {"id": state["request_id"], "path": path, "status": status, "seconds": round(seconds, 4)}
        if isinstance(served := state.get("served"), Served):
            self.metrics.count_ranking(served)
            fields |= _fields_of(served)
        quiet = path in ("/health", "/ready", "/metrics")
        logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})

    def _check_key(self, path: str, authorization: str) -> None:
        if not self.service.keys or path in OPEN:
            return
        scheme, _, key = authorization.partition(" ")
        # Each is compared, in the same time whether it fits or not.
        shown = key.strip().encode("latin-1")  # as the header was decoded
        fits = [hmac.compare_digest(shown, known.encode()) for known in self.service.keys]
        if scheme.lower() != "bearer" or not any(fits):
            raise RefusedRequest("the key is missing or unknown: send it as Authorization: Bearer KEY", 401)

    async def _body(self, length: str, receive: Receive) -> bytes | None:
        """The body, no larger than it may be; `None` if the client has gone."""
        most = self.service.limits.max_bytes
        too_large = RefusedRequest(f"the body is too large: send at most {most} bytes", 413)
        if length.isdecimal() and (len(length) > 18 or int(length) > most):
            raise too_large
        parts = bytearray()
        try:
            async with asyncio.timeout(_SECONDS_TO_SEND):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts += message.get("body", b"")
                    if len(parts) > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(parts)
        except TimeoutError:
            raise RefusedRequest("the body did not arrive in time: send it again", 408) from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_again() -> Message:
        message = next(messages, None)
        return await receive() if message is None else message

    return receive_again


def _fields_of(served: Served) -> dict[str, Any]:
    ranking, usage = served.ranking, served.ranking.usage
    return {
        "model": served.model,
        "order": served.order,
        "documents": len(ranking.order),
        "calls": usage.calls,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "repairs": ranking.repairs,
    }
