"""Output files that grow under another name until they are whole, so that failures and full disks lose no work."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from r1ranker_ir.errors import InputError, StorageError

logger = logging.getLogger(__name__)


class PartialFile:
    """A file that is written query by query; a context manager.

    What is written goes to `<path>.partial`, each piece out of this process's hands when `write` returns, and the file
    gets its name when all went well. After a failure the whole pieces stay in the partial file, and a log message says
    where; an earlier file of the name stays as it was.

    Args:
        path: the file; gzip if it ends in `.gz`.
        option: what the user is to choose another value of if the file can't be written there, such as `--output`.
        of_answers: a model's answers make the file, which the completions cache may hold should it be begun again.

    Raises:
        InputError: if the path is a folder, or lies in none.
    """

    def __init__(self, path: str | Path, option: str, *, of_answers: bool = True) -> None:
        self.path = Path(path)
        self.partial = Path(f"{path}.partial")
        self.pieces = 0
        self._option = option
        self._of_answers = of_answers
        self._file: IO[bytes] | None = None
        self._size = 0
        if self.path.is_dir():
            raise InputError(f"can't write {str(path)!r}: it is a folder: choose another {option}")
        if not self.path.parent.is_dir():
            raise InputError(
                f"can't write {str(path)!r}: folder {str(self.path.parent)!r} does not exist: create it first, or "
                f"choose another {option}"
            )

    def __enter__(self) -> Self:
        if self.partial.exists():
            cached = ", and answers that are in the completions cache are not computed anew"
            logger.warning(
                "%s is of a run that was stopped: it is begun again%s", self.partial, cached if self._of_answers else ""
            )
        try:
            # Without a time in its header, a compressed file of the same content is the same file.
            zipped = self.path.suffix == ".gz"
            file = gzip.GzipFile(self.partial, "wb", mtime=0) if zipped else self.partial.open("wb")
        except OSError as error:
            raise InputError(
                f"can't write {str(self.partial)!r}: {error.strerror}: choose another {self._option}"
            ) from error
        self._file = cast(IO[bytes], file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        if kind is None:
            try:
                self._file.close()
                os.replace(self.partial, self.path)
            except OSError as failed:
                self._keep()
                raise self._failure(failed) from failed
        else:
            self._keep()

    def write(self, piece: bytes) -> None:
        """Writes one query's lines.

        Args:
            piece: the lines, each with its line break.

        Raises:
            InputError: if the file is not open.
            StorageError: if the disk is full or fails.
        """
        if self._file is None:
            raise InputError(f"{str(self.path)!r} is not open: use it in a with statement")
        try:
            self._file.write(piece)
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error
        self._size = self.partial.stat().st_size
        self.pieces += 1

    def _keep(self) -> None:
        """Closes the file with what is whole, and takes it away where that is nothing."""
        assert self._file is not None
        try:
            self._file.close()
        except OSError:
            # Some of what could not be written may be there all the same: half a line, which nobody could read.
            os.truncate(self.partial, self._size)
        if self.pieces:
            logger.warning("stopped early: the %d finished queries are kept in %s", self.pieces, self.partial)
        else:
            self.partial.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(
            f"can't go on writing {str(self.partial)!r}: {error.strerror}: make room, or choose another "
            f"{self._option}; what was finished before is kept"
        )
