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
# A template takes milliseconds, but on a busy machine the process itself may take half a minute to start. The limit of
# computing time holds everywhere but on Windows.
_SECONDS = 20 if sys.platform == "win32" else 120
_LIMITS = {"bytes": 2**29, "cpu_seconds": 3, "characters": 10**6}


def why_it_does_not_end(
    template: str, special: Mapping[str, str], conversations: Sequence[Sequence[Mapping[str, Any]]]
) -> str:
    """Renders conversations in another process, and says what the template does in place of ending, if it does not.

    `special` are the tokenizer's named tokens, which templates write. Errors of the template count as an end.
    """
    given = {"template": template, "special": special, "conversations": conversations, "path": sys.path, **_LIMITS}
    return _verdict(json.dumps(given, sort_keys=True))


@lru_cache(maxsize=64)
def _verdict(given: str) -> str:
    # Without site packages' start-up code: the path that is handed over holds all that is needed.
    command = [sys.executable, "-I", "-S", str(_TRIAL)]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"is not done after {_SECONDS} seconds"
    except OSError as error:
        logger.debug("whether the chat template ends can't be tried: %s", error)
        return ""
    said = done.stdout.strip()
    if done.returncode == 0 and said:
        return "" if said == "ends" else said
    if done.returncode < 0:  # stopped by the system, at a limit
        return f"is not done after {_LIMITS['cpu_seconds']} seconds of computing"
    logger.debug("whether the chat template ends can't be tried: %s", done.stderr.strip()[-500:])
    return ""
