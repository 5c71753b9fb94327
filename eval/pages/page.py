"""The page itself: one HTML file without anything from elsewhere, whose policy lets its own script alone run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from r1ranker_ir.eval.output.sheets import Sheet
from r1ranker_ir.eval.pages.chunks import page_json
from r1ranker_ir.files.digests import source_hash
from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.version import VERSION

_FOLDER = Path(__file__).parent
_SCRIPTS = ("elements.js", "texts.js", "elimination.js", "query.js", "table.js", "report.js")


@dataclass(frozen=True)
class Section:
    """A part of the page beside the queries: tables, remarks, and a picture as SVG that was made here."""

    title: str
    sheets: tuple[Sheet, ...]
    remarks: tuple[str, ...] = ()
    picture: str = ""


def page_of(
    above: Sequence[Section], overview: Mapping[str, Any], chunks: Mapping[str, str], below: Sequence[Section] = ()
) -> str:
    """The whole page: sections around the table of queries, what that shows, and compressed pieces by name."""
    style = "\n" + _read("report.css")
    script = '\n"use strict";\n' + "\n".join(map(_read, _SCRIPTS))
    policy = (
        f"default-src 'none'; script-src {source_hash(script)}; style-src {source_hash(style)}; base-uri 'none'; "
        "form-action 'none'"
    )
    return Template(_read("report.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        version=escape(VERSION),
        above="\n".join(map(_section, above)),
        below="\n".join(map(_section, below)),
        overview=page_json(overview),
        chunks="\n".join(f'<script type="text/plain" id="{name}">{piece}</script>' for name, piece in chunks.items()),
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _section(section: Section) -> str:
    remarks = "".join(f"<li>{_text(each)}</li>" for each in section.remarks)
    return (
        f"<section><h2>{_text(section.title)}</h2>{section.picture}{''.join(map(_table, section.sheets))}"
        + (f"<details><summary>How to read this</summary><ul>{remarks}</ul></details>" if remarks else "")
        + "</section>"
    )


def _table(sheet: Sheet) -> str:
    words = ["" if number < sheet.words else ' class="figure"' for number in range(len(sheet.headings))]
    head = "".join(f'<th scope="col"{of}>{_text(each)}</th>' for of, each in zip(words, sheet.headings, strict=True))
    rows = "".join(
        f'<tr><th scope="row"{words[0]}>{_text(first)}</th>'
        + "".join(f"<td{of}>{_text(each)}</td>" for of, each in zip(words[1:], rest, strict=True))
        + "</tr>"
        for first, *rest in sheet.rows
    )
    title = f"<caption>{_text(sheet.title)}</caption>" if sheet.title else ""
    named = _text(sheet.title) or "Measures"
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{named}"><table>{title}<thead><tr>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _text(text: str) -> str:
    return escape(visible(text))
