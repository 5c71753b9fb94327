"""Locks on outputs, and folders for them: no two processes or threads write the same file or folder at once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.streams import check_place, is_stream

FOLDER_LOCK = ".r1ranker.lock"
"""The lock's file in a folder that one command writes at a time."""
_MARK = "held by "
_MOST_READ = 500
_PRIVATE, _PUBLIC = 0o700, 0o777


def make_folder(folder: Path, *, private: bool = True) -> None:
    """Makes a folder and those above it that are missing, `private` to its owner; one that exists keeps its mode."""
    if not folder.is_dir():
        make_folder(folder.parent, private=private)
        folder.mkdir(_PRIVATE if private else _PUBLIC, exist_ok=True)


@contextlib.contextmanager
def output_lock(path: Path, option: str) -> Iterator[None]:
    """Holds the lock of an output file, or says who holds it; `option`, such as `--output`, names the output.

    The lock is the operating system's, on a hidden file beside the output: it ends with the process, however that ends.
    """
    check_place(path, option, may_be_folder=True)  # the library would make the folder that it lies in
    with _held(path.with_name(f".{path.name}.lock"), path, option):
        yield


def check_unlocked(path: str | os.PathLike[str] | None, option: str) -> None:
    """Makes sure that nobody writes an output, before work that takes a while: the lock itself is taken after it."""
    if path is not None and not is_stream(path):
        with output_lock(Path(path), option):
            pass


@contextlib.contextmanager
def folder_lock(folder: Path, option: str, *, private: bool = False) -> Iterator[None]:
    """The same for a folder of results, which is made where it is missing, and removed if it is still empty then."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output {str(folder)!r} is a file: give a folder, with another {option}")
    new = not folder.exists()
    try:
        make_folder(folder, private=private)
    except OSError as error:
        raise InputError(f"can't make folder {str(folder)!r}: {error.strerror}: choose another {option}") from error
    try:
        with _held(folder / FOLDER_LOCK, folder, option):
            yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _held(file: Path, output: Path, option: str) -> Iterator[None]:
    from filelock import FileLock, Timeout  # which brings asyncio: not wanted by whoever only reads runs

    lock = FileLock(file, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        signed = _signature(file)
        holder = signed.strip().removeprefix(_MARK) if signed else f"its lock {str(file)!r} is held"
        raise InputError(
            f"{str(output)!r} is being written by another run ({holder}): wait until it has ended, or choose another "
            f"{option}"
        ) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"can't write {str(output)!r}: {reason}: choose another {option}") from error
    try:
        _sign(file)
        yield
    finally:
        # Taken away while it is held: who waits for it sees that the file is gone, and makes a new one.
        with contextlib.suppress(OSError):
            if os.name == "posix" and _signature(file):
                file.unlink()
        lock.release()


def _sign(file: Path) -> None:
    """Says in the lock's file who holds it; leaves a file alone that turns out to be something else."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    text = f"{_MARK}process {os.getpid()} on {socket.gethostname()} since {since}\n"
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "r+b") as opened:
            state = os.fstat(descriptor)
            before = opened.read(_MOST_READ)
            if (
                stat.S_ISREG(state.st_mode)
                and state.st_nlink == 1
                and (not before or before.startswith(_MARK.encode()))
            ):
                opened.seek(0)
                opened.truncate()
                opened.write(text.encode())


def _signature(file: Path) -> str:
    """What a lock's file says of its holder; nothing where it is another file."""
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            content = opened.read(_MOST_READ).decode(errors="replace")
            return content if content.startswith(_MARK) else ""
    return ""
