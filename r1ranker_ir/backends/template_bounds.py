"""Whether a chat template comes to an end: rendered by this very file in a process of its own, which can be stopped."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

logger = logging.getLogger(__name__)

# A template takes milliseconds, but on a busy machine the process itself may take half a minute to start. The limit of
# computing time holds everywhere but on Windows.
_SECONDS = 20 if sys.platform == "win32" else 120
_BYTES, _CPU_SECONDS, _CHARACTERS = 2**29, 3, 10**6


def why_it_does_not_end(
    template: str, special: Mapping[str, str], conversations: Sequence[Sequence[Mapping[str, Any]]]
) -> str:
    """Renders conversations in another process, and says what the template does in place of ending, if it does not.

    `special` are the tokenizer's named tokens, which templates write. Errors of the template count as an end.
    """
    given = {"template": template, "special": special, "conversations": conversations, "path": sys.path}
    return _verdict(json.dumps(given, sort_keys=True))


@lru_cache(maxsize=64)
def _verdict(given: str) -> str:
    # Without site packages' start-up code: the path that is handed over holds all that is needed.
    command = [sys.executable, "-I", "-S", __file__]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"is not done after {_SECONDS} seconds"
    except OSError as error:
        logger.debug("whether the chat template ends can't be tried: %s", error)
        return ""
    if done.returncode < 0:  # stopped by the system, at a limit
        return f"is not done after {_CPU_SECONDS} seconds of computing"
    if done.returncode:
        logger.debug("whether the chat template ends can't be tried: %s", done.stderr.strip()[-500:])
    return done.stdout.strip()


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows: there, the time is all that is limited
        return
    for what, most in ((resource.RLIMIT_AS, _BYTES), (resource.RLIMIT_CPU, _CPU_SECONDS)):
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY or most <= hard:
            resource.setrlimit(what, (most, hard))


def _try(template: str, special: Mapping[str, str], conversation: Any) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    written = 0
    try:
        # Without what transformers adds: its functions take no time, and a template that lacks them ends.
        made = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).from_string(template)
        for piece in made.generate(messages=conversation, add_generation_prompt=True, **special):
            written += len(piece)
            if written > _CHARACTERS:
                return f"writes more than {_CHARACTERS:,} characters"
    except MemoryError:
        return "needs too much memory"
    # It is met again, and reported, where prompts are rendered.
    except Exception as error:
        logger.debug("%s", error)
    return ""


if __name__ == "__main__":
    given = json.load(sys.stdin)
    _limit()
    sys.path[:] = given["path"]
    tried = (_try(given["template"], given["special"], each) for each in given["conversations"])
    print(next(filter(None, tried), ""))
