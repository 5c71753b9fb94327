"""Whether a chat template comes to an end, before it is rendered where nothing could stop it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_TRIAL = Path(__file__).with_name("template_trial.py")
# A template takes milliseconds. On a busy machine the process itself may take seconds to start.
_CPU_SECONDS, _SECONDS = 3, 20
_BYTES, _CHARACTERS = 2**29, 10**6


def why_it_does_not_end(
    template: str, special: Mapping[str, str], conversations: Sequence[Sequence[Mapping[str, Any]]]
) -> str:
    """Renders conversations in another process."""
    return _verdict(template, json.dumps(special, sort_keys=True), json.dumps(conversations))


@lru_cache(maxsize=64)
def _verdict(template: str, special: str, conversations: str) -> str:
    given = {
        "path": sys.path,
        "template": template,
        "special": json.loads(special),
        "conversations": json.loads(conversations),
        "bytes": _BYTES,
        "cpu_seconds": _CPU_SECONDS,
        "characters": _CHARACTERS,
    }
    # Without site packages' start-up code: the path that is handed over holds all that is needed.
    command = [sys.executable, "-I", "-S", str(_TRIAL)]
    try:
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"is not done after {_SECONDS} seconds"
    except OSError as error:
        logger.debug("whether the chat template ends can't be tried: %s", error)
        return ""
    said = done.stdout.strip()
    if done.returncode == 0 and said:
        return "" if said == "ends" else said
    if done.returncode < 0:  # stopped by the system, at a limit
        return f"is not done after {_CPU_SECONDS} seconds of computing"
    logger.debug("whether the chat template ends can't be tried: %s", done.stderr.strip()[-500:])
    return ""
