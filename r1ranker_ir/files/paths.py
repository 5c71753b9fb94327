"""Which files a command reads and writes: an output must be no input, and no two outputs the same file."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.partial import partial_path
from r1ranker_ir.files.streams import STANDARD_STREAM, descriptor_of, is_stream

logger = logging.getLogger(__name__)

# What SQLite keeps beside a database.
_BESIDE_A_CACHE = ("", "-wal", "-shm", "-journal")
_OF_A_CORPUS = ("corpus.jsonl", "queries.jsonl", "qrels.trec", ".tsv")
# What a checkpoint's folder holds; other files in it, such as runs, are nobody's input.
_OF_A_CHECKPOINT = tuple(".json .safetensors .bin .pt .model .txt .jinja .md .toml .gguf .npz .py".split())
_MOST_FILES = 10_000


@dataclass(frozen=True)
class NamedFile:
    """A file and the option that names it, such as `--run`; no path where the option is not given."""

    option: str
    path: str | os.PathLike[str] | None

    @property
    def text(self) -> str:
        return os.fspath(self.path or "")

    def __str__(self) -> str:
        return f"{self.option} {self.text!r}"


def check_outputs(outputs: Iterable[NamedFile], inputs: Iterable[NamedFile], *, announce: bool = False) -> None:
    """Makes sure that what is written destroys nothing that is read, before anything is opened.

    Files are compared as the system knows them: by other names, through links, and by hard links they are the same. An
    output counts with its `.partial` file, and with what earlier runs left as `.partial.1`, which may be removed.
    """
    written = [named for named in outputs if named.path is not None]
    read = [named for named in inputs if named.path is not None and str(named.path) != STANDARD_STREAM]
    places = [(named, _places(named)) for named in written]
    for number, (output, its_places) in enumerate(places):
        other_choice = f"choose another {output.option}"
        for named in read:
            for place in its_places:
                if _is_same(place, str(named.path)):
                    how = "is" if place == output.text else f"grows as {place!r}, which is"
                    raise InputError(f"{output} {how} the same file as {named}, which would be lost: {other_choice}")
            if _is_left_over(str(named.path), its_places[-1]):
                raise InputError(
                    f"{named} is what an earlier run to {output} left behind, and is removed once that holds the same "
                    f"lines: rename it first, or {other_choice}"
                )
        for other, other_places in places[:number]:
            if any(_is_same(place, another) for place in its_places for another in other_places):
                raise InputError(f"{other} and {output} are written to the same file: {other_choice}")
    for named in written if announce else ():
        if not is_stream(named.text) and Path(named.text).is_file() and Path(named.text).stat().st_size:
            logger.warning("%s exists already: it is replaced when the new one is whole", named.text)


def check_folder(folder: str | os.PathLike[str], option: str, inputs: Iterable[NamedFile]) -> None:
    """Makes sure that a folder whose files are written anew holds nothing that is read."""
    whole = Path(os.path.realpath(folder))
    for named in inputs:
        if named.path is not None and Path(os.path.realpath(named.path)).is_relative_to(whole):
            raise InputError(
                f"{named} lies in folder {os.fspath(folder)!r}, whose files are written anew: choose another {option}, "
                f"or put it elsewhere"
            )


def corpus_inputs(option: str, name: str | os.PathLike[str] | None) -> Iterator[NamedFile]:
    """The files of a corpus that is a folder or a file; those of the ir_datasets catalogue lie in its own folder."""
    return folder_inputs(option, name, _OF_A_CORPUS)


def cache_inputs(option: str, path: object) -> Iterator[NamedFile]:
    path = getattr(path, "path", path)
    if isinstance(path, str | os.PathLike):
        for ending in _BESIDE_A_CACHE:
            yield NamedFile(option, f"{os.path.expanduser(path)}{ending}")


def checkpoint_inputs(option: str, path: object) -> Iterator[NamedFile]:
    if isinstance(path, str | os.PathLike):
        yield from folder_inputs(option, path, _OF_A_CHECKPOINT)


def folder_inputs(option: str, path: str | os.PathLike[str] | None, endings: tuple[str, ...]) -> Iterator[NamedFile]:
    """The files of a folder that are read by their endings, or the file itself."""
    if path is None:
        return
    if Path(path).is_file():
        yield NamedFile(option, path)
    found = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in sorted(names))
    yield from (NamedFile(option, each) for each in islice(found, _MOST_FILES) if each.endswith(endings))


def _places(output: NamedFile) -> list[str]:
    """Where an output is written: at its name, and where it grows."""
    return [output.text] if is_stream(output.text) else [output.text, str(partial_path(output.text))]


def _is_left_over(read: str, partial: str) -> bool:
    """Whether a file that is read is one of those that are set aside while an output grows."""
    stem, _, number = os.path.realpath(read).rpartition(".")
    return number.isdecimal() and _is_same(stem, partial)


def _is_same(one: str, other: str) -> bool:
    if one == other == STANDARD_STREAM:
        return True
    states = [_state(path) for path in (one, other)]
    if states[0] is not None and states[1] is not None:
        # Two terminals or null devices may be the same: nothing is lost by that.
        return os.path.samestat(states[0], states[1]) and not stat.S_ISCHR(states[0].st_mode)
    if any(is_stream(path) for path in (one, other)):
        return False
    return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def _state(path: str) -> os.stat_result | None:
    try:
        descriptor = 1 if path == STANDARD_STREAM else descriptor_of(path)
        return os.stat(path) if descriptor is None else os.fstat(descriptor)
    except OSError:
        return None
