"""Opening files to read, named pipes among them: one that nobody writes to would block for ever."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import IO

SECONDS = 30.0
"""How long somebody may take to open a named pipe for writing; a shell does it at once."""


def open_to_read(path: Path) -> IO[bytes]:
    """Opens a file."""
    if not stat.S_ISFIFO(path.stat().st_mode):
        return path.open("rb")
    # Opening a pipe waits for its other end, and nothing but that end can stop it.
    opened: list[int] = []
    waiting = threading.Thread(target=lambda: opened.append(os.open(path, os.O_RDONLY)), daemon=True)
    waiting.start()
    waiting.join(SECONDS)
    if waiting.is_alive():
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        waiting.join()
        os.close(opened[0])
        raise OSError(errno.ETIMEDOUT, f"a pipe that nobody has opened for writing within {SECONDS:g} seconds")
    if not opened:  # removed in between, or not readable: let it say so itself
        return path.open("rb")
    return os.fdopen(opened[0], "rb")
