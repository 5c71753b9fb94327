"""Opening files to read, named pipes among them, and reading whole those that are small by nature."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from r1ranker_ir.errors import InputError, R1RankerError

PIPE_SECONDS = 30.0
"""How long somebody may take to open a named pipe for writing; a shell does it at once."""
SETTINGS_BYTES = 2**20
"""More than any file of settings that a person writes; parsers of YAML and TOML take seconds for as much."""
RECORD_BYTES = 2**28
"""More than any record that a program writes of its work."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def open_to_read(path: Path) -> IO[bytes]:
    """Opens a file; a pipe that nobody opens for writing in time is an `OSError`, where it would block for ever."""
    if not stat.S_ISFIFO(path.stat().st_mode):
        return path.open("rb")
    # Opening a pipe waits for its other end, and nothing but that end can stop it.
    opened: list[int] = []
    waiting = threading.Thread(target=lambda: opened.append(os.open(path, os.O_RDONLY)), daemon=True)
    waiting.start()
    waiting.join(PIPE_SECONDS)
    if waiting.is_alive():
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        waiting.join()
        os.close(opened[0])
        raise OSError(errno.ETIMEDOUT, f"a pipe that nobody has opened for writing within {PIPE_SECONDS:g} seconds")
    if not opened:  # removed in between, or not readable: let it say so itself
        return path.open("rb")
    return os.fdopen(opened[0], "rb")


def read_small_text(
    path: str | os.PathLike[str],
    named: str,
    way_out: str,
    *,
    error: Callable[[str], R1RankerError] = InputError,
    most: int = SETTINGS_BYTES,
) -> str:
    """Reads a UTF-8 text file without its byte order mark, at most `most` bytes of it: `/dev/zero` has no end.

    Messages call it `named`, such as `template 'x.toml'`, and end with `way_out`, what to do if it can't be used.
    """
    try:
        with open_to_read(Path(path)) as file:
            raw = file.read(most + 1)
    except (OSError, ValueError) as problem:  # a path with a null character is a ValueError
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"{named} can't be read ({reason}): {way_out}") from problem
    if len(raw) > most:
        raise error(f"{named} can't be read: it holds more than {most >> 20} MiB: {way_out}")
    if raw.startswith(_UTF16):
        raise error(f"{named} is not UTF-8 text (it begins as UTF-16 does): convert it, or {way_out}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{named} is not UTF-8 text ({problem.reason}): {way_out}") from problem
    if "\0" in text:
        raise error(f"{named} is not text (it holds null characters): {way_out}")
    return text.replace("\r\n", "\n").replace("\r", "\n")
