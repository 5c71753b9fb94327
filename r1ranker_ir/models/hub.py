"""Whether the Hugging Face hub answers, asked once before many files are asked for."""

from __future__ import annotations

import logging
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10.0
# Long enough for one loading, short enough to notice that the network is back.
_VALID_SECONDS = 60.0
_ANSWERS: dict[tuple[str, str | None], tuple[float, bool]] = {}


def only_local(checkpoint: str, revision: str | None = None) -> bool:
    """Whether a checkpoint's files can come from this disk only: those of a path, or of a hub that does not answer.

    The hub is asked once, without the retries that every single file would go through.
    """
    if Path(checkpoint).exists():
        return True
    known = _ANSWERS.get((checkpoint, revision))
    if known is None or time.monotonic() - known[0] > _VALID_SECONDS:
        known = _ANSWERS[checkpoint, revision] = (time.monotonic(), _ask_hub(checkpoint, revision))
    return not known[1]


def _ask_hub(checkpoint: str, revision: str | None) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().model_info(checkpoint, revision=revision, timeout=_TIMEOUT_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return True
    # The hub's client has changed its HTTP library more than once, and with it the errors of a dead connection.
    except Exception as error:
        logger.info("the hub does not answer for %s: %s", checkpoint, error)
        return False
    return True
