"""Text for people: without anything that a terminal would obey, and in UTF-8 wherever there is no terminal."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# What moves a terminal's cursor, colours its text, rings its bell or turns the direction of writing, and half surrogate
# pairs, which no encoding has; not tabs and line feeds.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Replaces control characters by escapes such as `\\x1b`."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def visible_json(text: str) -> str:
    """The same for JSON, in JSON's own escapes, so that its meaning stays."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def visible_bytes(piece: bytes) -> bytes:
    """The same for UTF-8 data that go to a terminal."""
    return visible(piece.decode("utf-8", "surrogateescape")).encode("utf-8", "backslashreplace")


def prepare_streams() -> None:
    """Has standard output and error write UTF-8, whatever the locale says; a terminal keeps its encoding.

    What a terminal's encoding lacks is shown as an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            # A stream whose descriptor was exchanged for another kind of file can't be set up anew.
            with contextlib.suppress(OSError):
                stream.reconfigure(encoding=encoding, errors="backslashreplace")


def echo(message: str = "", *, err: bool = False, nl: bool = True) -> None:
    _write(sys.stderr if err else sys.stdout, visible(message) + ("\n" if nl else ""))


def echo_data(data: str, *, nl: bool = True) -> None:
    """Prints data for programs, such as CSV, on standard output: as they are, but escaped on a terminal."""
    _write(sys.stdout, (visible(data) if sys.stdout.isatty() else data) + ("\n" if nl else ""))


def echo_json(data: str, *, nl: bool = True) -> None:
    """Prints JSON on standard output, control characters in JSON's own escapes."""
    _write(sys.stdout, visible_json(data) + ("\n" if nl else ""))


def console(**options: Any) -> Console:
    """A console of rich that shows control characters as escapes, its own apart."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class VisibleConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=visible(segment.text))

    return VisibleConsole(highlight=False, **options)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
