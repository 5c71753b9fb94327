"""Requests of every shape that the OpenAPI description allows, and others: none of them breaks the service."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from loopback import Running

SECONDS = 240


@pytest.mark.slow
def test_no_generated_request_breaks_the_service(numbers: Running, tmp_path: Path) -> None:
    """Generates requests for some minutes, which are more than 2,000 on two cores; prints how many."""
    schemathesis = shutil.which("schemathesis")
    if schemathesis is None:
        pytest.skip("there is no schemathesis on the PATH: install it into an environment of its own")
    # Without shrinking, which may go on for hours; what is found can be sent again as it is.
    asked = ["--phases", "coverage,fuzzing", "--mode", "all", "--max-time", str(SECONDS), "--no-shrink", "--seed", "1"]
    checks = ["--checks", "not_a_server_error", "--request-timeout", "60", "--continue-on-failure"]
    done = subprocess.run(
        [schemathesis, "run", f"{numbers.url}/openapi.json", *asked, *checks],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:]
    counts = re.findall(
        r'^r1ranker_requests_total{path="(.*)",status="(\d+)"} (\d+)', numbers.get("/metrics").text, re.M
    )
    rankings = sum(int(count) for path, _, count in counts if "rerank" in path)
    print(f"{rankings} requests for rankings: {counts}")
    assert rankings >= 2000 and not any(status.startswith("5") for _, status, _ in counts)
    answer = numbers.post("/v1/rerank", {"query": "q", "documents": ["number 2", "number 1"]})
    assert answer.json()["order"] == "complete"
