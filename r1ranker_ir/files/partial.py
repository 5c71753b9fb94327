"""Output files that grow under another name until they are whole, so that failures and full disks lose no work."""

from __future__ import annotations

import contextlib
import glob
import gzip
import logging
import os
import secrets
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from r1ranker_ir.errors import InputError, StorageError
from r1ranker_ir.files.json_lines import holds_lines_of
from r1ranker_ir.files.locks import output_lock
from r1ranker_ir.files.streams import OutputStream, check_place, is_stream

logger = logging.getLogger(__name__)

_PRIVATE, _PUBLIC = 0o600, 0o666


def partial_path(path: str | Path) -> Path:
    """Where an output grows."""
    return Path(f"{path}.partial")


class PartialFile:
    """A file that is written query by query; a context manager.

    What is written goes to `<path>.partial`, each piece out of this process's hands when `write` returns, and the file
    gets its name when all went well. After a failure the whole pieces stay in the partial file, and a log message says
    where; an earlier file of the name stays as it was. One process at a time writes a file. A partial file that is
    there already is kept as `<path>.partial.1` (or another number) until a whole file holds its lines. Standard output
    (`-`), pipes and devices are written to as they are. A name in `.gz` is packed.

    Args:
        option: what names the file, such as `--output`.
        private: only its owner may read the file.
    """

    def __init__(self, path: str | Path, option: str, *, private: bool = False) -> None:
        self.path = Path(path)
        self.partial = partial_path(path)
        self.pieces = 0
        self._named = str(path)
        self._option = option
        self._mode = _PRIVATE if private else _PUBLIC
        self._stream = is_stream(path)
        self._file: IO[bytes] | None = None
        self._below: IO[bytes] | None = None
        self._size = 0
        self._lock = contextlib.ExitStack()
        if not self._stream:
            check_place(path, option)

    def __enter__(self) -> Self:
        try:
            if self._stream:
                self._below = cast(IO[bytes], OutputStream(self._named))
            else:
                self._lock.enter_context(output_lock(self.path, self._option))
                if (aside := set_aside(self.partial)) is not None:
                    logger.warning(
                        "%s is of a run that was stopped: it is begun again; what it holds is in %s until it is "
                        "written again",
                        *(self.partial, aside),
                    )
                self._below = _open_new(self.partial, self._mode)
            self._file = self._below
            if self.path.suffix == ".gz":
                # Without a time in its header, a compressed file of the same content is the same file.
                name = str(self.partial)
                self._file = cast(IO[bytes], gzip.GzipFile(name, "wb", fileobj=self._below, mtime=0))
        except OSError as error:
            self._lock.close()
            named = self._named if self._stream else str(self.partial)
            raise InputError(f"can't write {named!r}: {error.strerror}: choose another {self._option}") from error
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            try:
                if kind is not None and not self._stream:
                    self._keep()
                    return
                self._close()
                if not self._stream:
                    os.replace(self.partial, self.path)
                    self._drop_repeated()
            except OSError as failed:
                if not self._stream:
                    self._keep()
                elif kind is not None:
                    return
                raise self._failure(failed) from failed

    def write(self, piece: bytes) -> None:
        """Writes one query's lines."""
        if self._file is None or self._below is None:
            raise InputError(f"{self._named!r} is not open: use it in a with statement")
        try:
            self._file.write(piece)
            self._file.flush()
            self._below.flush()
        except OSError as error:
            if self._named == "-" and isinstance(error, BrokenPipeError):
                raise  # the reader has seen enough, as `head` has
            raise self._failure(error) from error
        if not self._stream:
            self._size = self.partial.stat().st_size
        self.pieces += 1

    def _drop_repeated(self) -> None:
        """Removes what earlier runs left behind, where the file that is whole now holds the same lines."""
        for aside in sorted(self.partial.parent.glob(f"{glob.escape(self.partial.name)}.*")):
            if not aside.suffix[1:].isdecimal() or not aside.is_file() or aside.is_symlink():
                continue
            if holds_lines_of(self.path, aside):
                aside.unlink()
            else:
                logger.warning("%s, of a run that was stopped, holds other lines than %s: it is kept", aside, self.path)

    def _close(self) -> None:
        """Closes the file and what it is written through."""
        assert self._file is not None and self._below is not None
        try:
            self._file.close()
        finally:
            self._below.close()

    def _keep(self) -> None:
        """Closes the file with what is whole, and takes it away where that is nothing."""
        try:
            self._close()
        except OSError:
            # Some of what could not be written may be there all the same: half a line, which nobody could read.
            os.truncate(self.partial, self._size)
        if self.pieces:
            logger.warning("stopped early: the %d finished queries are kept in %s", self.pieces, self.partial)
        else:
            self.partial.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> StorageError:
        if self._named == "-":
            return StorageError(f"can't write to standard output: {error.strerror}: write it elsewhere")
        if self._stream:
            return StorageError(f"can't write {self._named!r}: {error.strerror}: choose another {self._option}")
        return StorageError(
            f"can't go on writing {str(self.partial)!r}: {error.strerror}: make room, or choose another "
            f"{self._option}; what was finished before is kept"
        )


def set_aside(partial: Path) -> Path | None:
    """Gives what an earlier run left behind another name; what a link leads to stays untouched."""
    if not os.path.lexists(partial):
        return None
    if not partial.is_symlink() and partial.is_file() and partial.stat().st_size == 0:
        partial.unlink()
        return None
    aside = next(free for number in count(1) if not os.path.lexists(free := Path(f"{partial}.{number}")))
    os.rename(partial, aside)
    return aside


def _open_new(path: Path, mode: int = _PUBLIC) -> IO[bytes]:
    """Opens a file that does not exist yet: nothing is overwritten, and no link is followed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    return cast(IO[bytes], os.fdopen(descriptor, "wb"))


@contextlib.contextmanager
def growing_file(path: str | Path, option: str | None, *, private: bool = False) -> Iterator[Path]:
    """Gives the name of a new file to fill, which gets the wanted name when all went well and is removed otherwise.

    Whatever the name stood for before, a link for instance, is replaced; streams (see `is_stream`) get the content.
    With an `option`, for what takes a while, it grows in `<path>.partial`, and one process at a time writes it.
    """
    if is_stream(path):
        import shutil
        import tempfile

        with tempfile.TemporaryDirectory(prefix="r1ranker-") as folder:
            filled = Path(folder) / "output"
            filled.touch()
            yield filled
            with contextlib.closing(OutputStream(path)) as stream, filled.open("rb") as content:
                shutil.copyfileobj(content, stream)
        return
    with contextlib.ExitStack() as lock:
        if option is None:
            growing = Path(path).with_name(f".{secrets.token_hex(4)}.{Path(path).name}.partial")
        else:
            check_place(path, option)
            growing = partial_path(path)
            lock.enter_context(output_lock(Path(path), option))
            if (aside := set_aside(growing)) is not None:
                logger.warning("%s was left behind by an earlier run: it is now %s", growing, aside)
        _open_new(growing, _PRIVATE if private else _PUBLIC).close()
        try:
            yield growing
            os.replace(growing, path)
        finally:
            growing.unlink(missing_ok=True)


def whole_file(path: str | Path, *, private: bool = False) -> contextlib.AbstractContextManager[Path]:
    """As `growing_file`, for what is written at once."""
    return growing_file(path, None, private=private)


def write_whole(path: str | Path, text: str, *, private: bool = False) -> None:
    """Writes a text file, whole or not at all; see `whole_file`."""
    with whole_file(path, private=private) as growing:
        growing.write_bytes(text.encode("utf-8", "backslashreplace"))
