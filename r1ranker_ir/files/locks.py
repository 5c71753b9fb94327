"""Locks on outputs, and folders for them: no two processes or threads write the same file or folder at once."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from r1ranker_ir.errors import InputError, R1RankerError
from r1ranker_ir.files.streams import check_place, is_stream

FOLDER_LOCK = ".r1ranker.lock"
"""The lock's file in a folder that one command writes at a time."""


def make_folder(folder: Path, *, private: bool = True) -> None:
    """Makes a folder and those above it that are missing, `private` to its owner; one that exists keeps its mode."""
    if not folder.is_dir():
        make_folder(folder.parent, private=private)
        folder.mkdir(0o700 if private else 0o777, exist_ok=True)


def make_output_folder(
    folder: str | Path,
    option: str,
    *,
    private: bool = False,
    error: Callable[[str], R1RankerError] = InputError,
) -> None:
    """The same for a folder of results that `option` names, such as `--output`; an `error` says why it can't be."""
    try:
        make_folder(Path(folder), private=private)
    except OSError as failed:
        raise error(f"can't make folder {str(folder)!r}: {failed.strerror}: choose another {option}") from failed


@contextlib.contextmanager
def output_lock(path: Path, option: str) -> Iterator[None]:
    """Holds the lock of an output file, or says that it is held; `option`, such as `--output`, names the output.

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
    new = not folder.exists()
    make_output_folder(folder, option, private=private)
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
        raise InputError(
            f"{str(output)!r} is being written by another run, which holds the lock {str(file)!r}: wait until it has "
            f"ended, or choose another {option}"
        ) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"can't write {str(output)!r}: {reason}: choose another {option}") from error
    try:
        yield
    finally:
        # Taken away while it is held: who waits for it sees that the file is gone, and makes a new one.
        with contextlib.suppress(OSError):
            state = file.lstat()
            if os.name == "posix" and stat.S_ISREG(state.st_mode) and state.st_size == 0:
                file.unlink()
        lock.release()
