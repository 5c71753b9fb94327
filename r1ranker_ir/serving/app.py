"""The HTTP application."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response, StreamingResponse

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import source_hash
from r1ranker_ir.serving.answers import ORDER_HEADER, Json, rerank_answer, scores_answer
from r1ranker_ir.serving.api_page import api_page
from r1ranker_ir.serving.forms import Failure, RerankAnswer, RerankEither, RerankV1, RerankV2, TextScore, read_texts
from r1ranker_ir.serving.gate import App, Gate
from r1ranker_ir.serving.live import events
from r1ranker_ir.serving.metrics import Metrics
from r1ranker_ir.serving.refusals import ModelFailure, RefusedRequest, error_body
from r1ranker_ir.serving.service import Served, Service
from r1ranker_ir.types import Program
from r1ranker_ir.version import VERSION

T = TypeVar("T")

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": said}
    for status, said in {
        400: "The body is not JSON.",
        401: "The key is missing or unknown.",
        404: "No reranker has this name.",
        413: "The body, a list or its texts are too large.",
        422: "A field does not have the form it needs, or the texts can't be ranked.",
        429: "The queue is full; Retry-After says when to try again.",
        500: "The model failed.",
        503: "The models are being loaded.",
    }.items()
}
_PAGE = Path(__file__).with_name("page.html")
_KEY = Depends(HTTPBearer(auto_error=False, description="A key of the service, where it asks for one."))


def application(service: Service, failed: Callable[[], None] = lambda: None) -> App:
    """The service as an ASGI application, which loads the models when it starts; `failed` is called if it can't."""
    app = FastAPI(
        title="R1-Ranker-IR",
        version=VERSION,
        summary="Rerank documents with language models that reason.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        default_response_class=Json,
    )
    app.state.service, app.state.failed = service, failed
    app.state.metrics = metrics = Metrics(service)
    asked: dict[str, Any] = {"responses": _ERRORS, "dependencies": [_KEY]}
    app.post("/v1/rerank", response_model=RerankAnswer, **asked)(rerank_v1)
    app.post("/v2/rerank", response_model=RerankAnswer, **asked)(rerank_v2)
    app.post("/rerank", response_model=list[TextScore] | RerankAnswer, **asked)(rerank_either)
    app.post("/v1/rerank/events", response_class=StreamingResponse, **asked)(rerank_events)
    app.get("/", response_class=Response, include_in_schema=False)(page)
    app.get("/docs", response_class=Response, include_in_schema=False)(api)
    app.get("/v1/models", responses={401: _ERRORS[401]}, dependencies=[_KEY])(models)
    app.get("/health")(health)
    app.get("/ready", responses={503: _ERRORS[503]})(ready)
    app.get("/metrics", response_class=Response)(counts)
    app.add_exception_handler(InputError, _refuse)
    app.add_exception_handler(ModelFailure, _fail)
    app.add_exception_handler(Exception, _fail)
    app.add_exception_handler(RequestValidationError, _refuse_fields)
    app.add_exception_handler(HTTPException, _refuse_http)
    paths = frozenset(path for each in app.routes if (path := getattr(each, "path", "")))
    return Gate(app, service, metrics, paths)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service

    def load() -> None:
        try:
            service.open()
        except Exception:
            # What it was is said by whoever runs the service.
            app.state.failed()

    if not service.is_ready:
        threading.Thread(target=load, name="r1ranker-loading", daemon=True).start()
    yield


async def rerank_v1(request: Request, asked: RerankV1) -> Response:
    """Rerank documents, in the form of Jina and of Cohere's version 1."""
    return await _rerank(request, asked, 1, None)


async def rerank_v2(request: Request, asked: RerankV2) -> Response:
    """Rerank documents, in the form of Cohere's version 2."""
    return await _rerank(request, asked, 2, asked.max_tokens_per_doc)


async def rerank_either(request: Request, asked: RerankEither) -> Response:
    """Rerank texts, in the form of text-embeddings-inference; documents as /v1/rerank does, as vLLM has it."""
    if isinstance(asked, RerankV1):
        return await _rerank(request, asked, 1, None)
    served = await _served(request, asked.model, asked.query, asked.texts, deadline=asked.deadline)
    return Json(scores_answer(served, asked), headers={ORDER_HEADER: served.order})


async def rerank_events(request: Request, asked: RerankV1) -> Response:
    """Rerank as /v1/rerank does, told as it happens: an event `step` per call, and at the end `result` or `error`."""
    texts, request_id = read_texts(asked), request.state.request_id
    service: Service = request.app.state.service
    service.ranker_of(asked.model)

    async def ranked(watch: Callable[[Program], Program]) -> dict[str, Any]:
        given: dict[str, Any] = {"request_id": request_id, "deadline": asked.deadline, "watched": watch}
        served = await service.rank(asked.model, asked.query, texts, **given)
        request.state.served = served
        return rerank_answer(served, asked, 1, request_id)

    return StreamingResponse(events(ranked), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def page(request: Request) -> Response:
    """A page to try it, whose policy lets its own script and style alone work."""
    text = _PAGE.read_text(encoding="utf-8")
    script, style = (
        source_hash(text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]) for tag in ("script", "style")
    )
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


async def api(request: Request) -> Response:
    """What is answered here, as a page."""
    text, style = api_page(request.app.openapi())
    policy = f"default-src 'none'; style-src {source_hash(style)}; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


async def models(request: Request) -> Response:
    """The rerankers that `model` may name."""
    service: Service = request.app.state.service
    named = {"object": "model", "created": service.started, "owned_by": "r1ranker-ir"}
    data = [
        {"id": name, **named, "strategy": service.strategy_of(name), "calibrated": service.is_calibrated(name)}
        for name in service.names
    ]
    return Json({"object": "list", "data": data})


async def health(request: Request) -> Response:
    """Whether the process lives."""
    return Json({"status": "ok"})


async def ready(request: Request) -> Response:
    """Whether all models are loaded."""
    is_ready = request.app.state.service.is_ready
    return Json({"status": "ok" if is_ready else "loading"}, 200 if is_ready else 503)


async def counts(request: Request) -> Response:
    """Counts for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _rerank(request: Request, asked: RerankV1, version: int, max_tokens: int | None) -> Response:
    texts = read_texts(asked)
    given: dict[str, Any] = {"max_tokens": max_tokens, "deadline": asked.deadline}
    served = await _served(request, asked.model, asked.query, texts, **given)
    body = rerank_answer(served, asked, version, request.state.request_id)
    return Json(body, headers={ORDER_HEADER: served.order})


async def _served(request: Request, model: str | None, query: str, texts: list[str], **given: Any) -> Served:
    service: Service = request.app.state.service
    ranked = service.rank(model, query, texts, request_id=request.state.request_id, **given)
    served: Served = await _unless_gone(request, ranked)
    request.state.served = served
    return served


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Does the work for as long as the client waits for it."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    if working.cancelled():
        raise RefusedRequest("the client has gone", 499)
    return working.result()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Json(error_body(status, message, request.state.request_id), status, headers=headers)


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedRequest) else 422
    after = error.retry_after if isinstance(error, RefusedRequest) else None
    return _error(request, status, str(error), None if after is None else {"Retry-After": str(after)})


async def _fail(request: Request, error: Exception) -> Response:
    # The words of others may quote a text.
    return _error(request, 500, str(error) if isinstance(error, ModelFailure) else "the service failed")


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _refuse_fields(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        why, place = first.get("ctx", {}).get("error", ""), first["loc"][-1]
        return _error(request, 400, f"the body is not JSON: {why} (at character {place})")
    if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
        return _error(request, 422, "the body is not read as JSON: send it with Content-Type: application/json")
    place = ".".join(map(str, first["loc"][1:])) or "the body"
    told = str(first["msg"]).removeprefix("Value error, ")
    return _error(request, 422, f"{place}: {told}")
