"""Requests of every shape that the OpenAPI description allows, and others: none of them breaks the service."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from loopback import Running


@pytest.mark.slow
def test_no_generated_request_breaks_the_service(numbers: Running, tmp_path: Path) -> None:
    schemathesis = shutil.which("schemathesis")
    if schemathesis is None:
        pytest.skip("there is no schemathesis on the PATH: install it into an environment of its own")
    # The rankings' endpoints are five: at least 2,000 requests.
    asked = ["--phases", "coverage,fuzzing", "--mode", "all", "--max-examples", "450", "--seed", "1"]
    checks = ["--checks", "not_a_server_error", "--request-timeout", "60", "--continue-on-failure"]
    done = subprocess.run(
        [schemathesis, "run", f"{numbers.url}/openapi.json", *asked, *checks],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:]
    assert (
        numbers.post("/v1/rerank", {"query": "q", "documents": ["number 2", "number 1"]}).json()["order"] == "complete"
    )
