"""The service as a process: it listens, and on SIGTERM finishes what was accepted."""

from __future__ import annotations

import signal
from collections.abc import Callable

import uvicorn

from r1ranker_ir.serving.app import application
from r1ranker_ir.serving.listening import Listening
from r1ranker_ir.serving.service import Service


def run_service(service: Service, listening: Listening, started: Callable[[str], None] | None = None) -> None:
    """Listens until SIGTERM or SIGINT, and finishes what was accepted; raises what kept a model from loading.

    `started` is told the address once the service listens.
    """

    def stop() -> None:
        server.should_exit = True

    config = uvicorn.Config(
        application(service, stop),
        host=listening.host,
        port=listening.port,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=round(listening.grace),
    )
    server = _Server(config)
    server.said = started
    # uvicorn raises the signal again once all is finished: what ends well is no death by a signal.
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if service.failure is not None:
        raise service.failure


class _Server(uvicorn.Server):
    said: Callable[[str], None] | None = None

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started and self.said is not None:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.said(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
