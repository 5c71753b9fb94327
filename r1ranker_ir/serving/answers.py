"""What is answered to a ranked request, in each client's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from r1ranker_ir.runs.traces import trace_of
from r1ranker_ir.serving.forms import RerankTexts, RerankV1
from r1ranker_ir.serving.service import Served

ORDER_HEADER = "X-R1Ranker-Order"
"""Where every ranking says how it ended, also in forms whose body has no place for it."""

_WARNINGS = {
    "partial": "the deadline or a budget ended the ranking: this is the best order known by then",
    "input": "the model failed: this is the order of the input",
}


class Json(Response):
    """JSON in ASCII: half a surrogate pair, which a text may hold, is no UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def rerank_answer(served: Served, asked: RerankV1, version: int, request_id: str) -> dict[str, Any]:
    """The body for clients of Jina and Cohere."""
    order, usage = served.ranking.order, served.ranking.usage
    results = []
    for index, score in list(zip(order, served.scores, strict=True))[: asked.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if asked.return_documents:
            given = asked.documents[index]
            result["document"] = given if isinstance(given, Mapping) else {"text": given}
        results.append(result)
    read, written = usage.prompt_tokens, usage.completion_tokens
    body: dict[str, Any] = {
        "id": request_id,
        "object": "list",
        "model": served.model,
        "order": served.order,
        "calibrated": served.relevance is not None,
        "results": results,
        "usage": {
            "total_tokens": read + written,
            "prompt_tokens": read,
            "completion_tokens": written,
            "calls": usage.calls,
        },
        "meta": {
            "api_version": {"version": str(version)},
            "tokens": {"input_tokens": read, "output_tokens": written},
            **({"warnings": [_WARNINGS[served.order]]} if served.order in _WARNINGS else {}),
        },
    }
    if asked.explain:
        body["trace"] = trace_of(served.ranking, served.strategy, served.notes, served.conditions)
    return body


def scores_answer(served: Served, asked: RerankTexts) -> list[dict[str, Any]]:
    """The body for clients of text-embeddings-inference."""
    scored = list(zip(served.ranking.order, served.scores, strict=True))
    return [
        {"index": index, "score": score, **({"text": asked.texts[index]} if asked.return_text else {})}
        for index, score in scored[: asked.top_n]
    ]
