"""A collection to train small rankers on: first lines of docstrings as queries, the rest of each as its document.

    python -m r1ranker_ir.training.demo.documentation --output out/python-docs

reads the standard library of the Python that runs it and writes a folder in BEIR layout, with one relevant document per
query. It needs no network, and no judgments of anybody's collection come near it.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1ranker_ir.errors import InputError, R1RankerError

from .lexicon import STOP_WORDS, docstrings, words_of

_LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3"}
_MOST_QUERY_WORDS, _LEAST_BODY_WORDS = 16, 12


@dataclass(frozen=True)
class Documented:
    """A docstring in two parts, each on one line."""

    summary: str
    description: str


def read_docstrings(library: Path) -> Iterator[Documented]:
    """Yields the docstrings below a folder that have a first paragraph and more."""
    for path in sorted(library.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(library).parts):
            continue
        for text in docstrings(path):
            summary, _, description = text.partition("\n\n")
            if description.strip():
                yield Documented(" ".join(summary.split()), " ".join(description.split()))


def usable(documented: Documented, content_words: tuple[int, int]) -> bool:
    """Tells whether a summary can be a query and a description a document."""
    query = words_of(documented.summary)
    content = set(query) - STOP_WORDS
    long_enough = len(words_of(documented.description)) >= _LEAST_BODY_WORDS
    return content_words[0] <= len(content) <= content_words[1] and len(query) <= _MOST_QUERY_WORDS and long_enough


def write_collection(output: Path, *, content_words: tuple[int, int] = (2, 8), library: Path | None = None) -> int:
    """Writes the collection as a BEIR folder whose judgments are its training split."""
    library = library or Path(sysconfig.get_path("stdlib"))
    pairs: dict[str, Documented] = {}
    for documented in read_docstrings(library):
        if usable(documented, content_words):
            pairs.setdefault(documented.description[:200], documented)
    if not pairs:
        raise InputError(f"{str(library)!r} holds no Python files with docstrings that fit: give another folder")
    written = {
        "corpus.jsonl": [
            json.dumps({"_id": f"d{n}", "text": each.description}) for n, each in enumerate(pairs.values())
        ],
        "queries.jsonl": [json.dumps({"_id": f"q{n}", "text": each.summary}) for n, each in enumerate(pairs.values())],
        "qrels/train.tsv": ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(len(pairs)))],
    }
    try:
        (output / "qrels").mkdir(parents=True, exist_ok=True)
        for name, lines in written.items():
            (output / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't write {str(output)!r}: {error.strerror}: choose another output") from error
    return len(pairs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description="Write a collection made of Python's own documentation.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, in BEIR layout")
    parser.add_argument("--most-words", type=int, default=8, help="most content words of a query (default %(default)s)")
    parser.add_argument("--library", type=Path, help="folder of Python files; by default the standard library")
    given = parser.parse_args(arguments)
    try:
        count = write_collection(given.output, content_words=(2, given.most_words), library=given.library)
    except R1RankerError as error:
        parser.exit(1, f"Error: {error}\n")
    print(f"{count} queries with one relevant document each in {given.output}")


if __name__ == "__main__":
    main()
