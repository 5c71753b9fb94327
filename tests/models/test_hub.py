"""A hub that can't be reached is asked once, not once a file and a retry."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

LOAD = """
import r1ranker_ir
from rerankers import Reranker
try:
    Reranker("r1ranker-iterative", verbose=0)
except r1ranker_ir.CheckpointError as error:
    print(error)
"""


@pytest.fixture
def dead_hub() -> Iterator[tuple[str, list[int]]]:
    """A server on loopback that drops every connection, and the list of those it has dropped."""
    dropped: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drop() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                dropped.append(address[1])
                connection.close()

        threading.Thread(target=drop, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", dropped


def test_default_checkpoint_without_network_fails_without_retries(
    dead_hub: tuple[str, list[int]], tmp_path: Path
) -> None:
    endpoint, dropped = dead_hub
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "R1RANKER_MODEL")
    }
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Qwen/Qwen2.5-3B-Instruct" in done.stdout
    assert "r1ranker-iterative-tiny" in done.stdout
    # One question by us; the client may knock twice. Every single file would be asked for six times.
    assert len(dropped) <= 2, done.stderr
    assert "Retrying" not in done.stderr
