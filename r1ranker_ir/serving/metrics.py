"""Counts for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from r1ranker_ir.serving.service import Served, Service

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_COUNTED = {
    "queries": "Rankings that were finished.",
    "calls": "Calls to the model.",
    "cached_calls": "Calls that were answered from the cache.",
    "prompt_tokens": "Tokens that the model read.",
    "completion_tokens": "Tokens that the model wrote.",
    "repairs": "Answers that had to be repaired.",
}


@dataclass(frozen=True)
class _OfEngines(Collector):
    """What the engines count, read when it is asked for."""

    service: Service

    def collect(self) -> Iterator[Metric]:
        for name, said in _COUNTED.items():
            family = CounterMetricFamily(f"r1ranker_{name}", said, labels=["model"])
            for model, ranker in self.service.rankers.items():
                summary = ranker.summary
                value = getattr(summary, name) if hasattr(summary, name) else getattr(summary.usage, name)
                family.add_metric([model], value)
            yield family


class Metrics:
    """What is counted of requests, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_OfEngines(service))
        self._requests = Counter(
            "r1ranker_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self._orders = Counter(
            "r1ranker_rankings", "Rankings by how they ended.", ["model", "order"], registry=self._registry
        )
        self._seconds = Histogram(
            "r1ranker_ranking_seconds",
            "Seconds of a ranking, waiting included.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._documents = Counter(
            "r1ranker_documents", "Documents that were ranked.", ["model"], registry=self._registry
        )
        for name, said in (("active", "Requests being ranked."), ("waiting", "Requests that wait for a place.")):
            gauge = Gauge(f"r1ranker_{name}", said, registry=self._registry)
            gauge.set_function(partial(getattr, service.admission, name))

    def count_request(self, path: str, status: int) -> None:
        """Counts what was answered."""
        self._requests.labels(path, str(status)).inc()

    def count_ranking(self, served: Served) -> None:
        """Counts a ranking."""
        self._orders.labels(served.model, served.order).inc()
        self._seconds.labels(served.model).observe(served.seconds)
        self._documents.labels(served.model).inc(len(served.ranking.order))

    def text(self) -> bytes:
        """All counts in Prometheus' text form."""
        return generate_latest(self._registry)
