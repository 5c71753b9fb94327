"""Structured logs: one JSON object a line, without texts of queries, documents and models."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """Writes a record as a JSON object; what was logged as `fields` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            # A traceback's last line is the error's message, which may quote a text: only when all is wanted.
            said["error"] = record.exc_info[0].__name__
            if record.levelno <= logging.DEBUG:
                said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


@contextlib.contextmanager
def json_logs(*, verbose: bool = False, quiet: bool = False) -> Iterator[None]:
    """Sends what the service and its server log to standard error meanwhile.

    Verbose logs hold the words of errors, which may quote texts.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    loggers = [logging.getLogger(name) for name in ("r1ranker_ir", "uvicorn")]
    before = [(each.level, list(each.handlers)) for each in loggers]
    for each in loggers:
        each.handlers[:] = [handler]
        each.setLevel(level)
    try:
        yield
    finally:
        for each, (was, handlers) in zip(loggers, before, strict=True):
            each.setLevel(was)
            each.handlers[:] = handlers
