"""Outputs that are written as they come: standard output, pipes and devices, which no file may replace."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.terminal_text import visible, visible_bytes

STANDARD_STREAM = "-"
"""Standard input or output, where a file is asked for."""
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/(?:fd/(\d+)|(stdin|stdout|stderr))")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path names no ordinary file: standard output (`-`), a pipe, a socket, a terminal or another device.

    Links are followed; a path where nothing is yet names an ordinary file.
    """
    if str(path) == STANDARD_STREAM or descriptor_of(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_place(path: str | Path, option: str, *, may_be_folder: bool = False) -> None:
    """Makes sure that a file can be there: in a folder that exists, and where no folder is."""
    path = Path(path)
    if path.is_dir() and not may_be_folder:
        raise InputError(f"can't write {str(path)!r}: it is a folder: choose another {option}")
    if not path.parent.is_dir():
        raise InputError(
            f"can't write {str(path)!r}: folder {str(path.parent)!r} does not exist: create it first, or choose "
            f"another {option}"
        )


class OutputStream:
    """Writes to a stream; on a terminal, control characters are escaped."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file: BinaryIO | None = None  # none for standard output
        if str(path) == STANDARD_STREAM:
            return
        sys.stdout.flush()
        descriptor = descriptor_of(path)
        # Not Path.open("wb"), which would make a file where the pipe has been removed meanwhile.
        opened = os.open(path, os.O_WRONLY) if descriptor is None else os.dup(descriptor)
        self._file = cast(BinaryIO, os.fdopen(opened, "wb", buffering=0))

    def write(self, piece: bytes) -> None:
        if self._file is None:
            _write_standard(sys.stdout, piece)
            return
        rest = memoryview(visible_bytes(piece) if self._file.isatty() else piece)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def flush(self) -> None:
        """Does nothing: no piece is held back."""

    def close(self) -> None:
        """Closes the stream; standard output stays open."""
        if self._file is not None:
            self._file.close()


def _write_standard(stream: TextIO, piece: bytes) -> None:
    buffer = getattr(stream, "buffer", None)
    if buffer is None or stream.isatty():
        text = piece.decode("utf-8", "backslashreplace")
        stream.write(visible(text) if stream.isatty() else text)
    else:
        # The bytes themselves: the text layer would write them in the locale's encoding, with its line ends.
        stream.flush()
        buffer.write(piece)
        buffer.flush()
    stream.flush()


def descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """The open descriptor of this process that a path such as `/dev/stdout` stands for.

    Opened by its name, a file behind it would be emptied.
    """
    found = _DESCRIPTOR.fullmatch(os.path.abspath(path)) if os.name == "posix" else None
    if found is None:
        return None
    return _STANDARD[found[2]] if found[2] else int(found[1])
