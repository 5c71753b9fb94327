"""The collection made of docstrings: what becomes a query and a document, and that it is a corpus like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.errors import InputError
from r1ranker_ir.training.demo.documentation import Documented, main, read_docstrings, usable, write_collection

BODY = "It takes whatever the caller gives, one after the other, and gives back all of it at once."
MODULE = f'''"""Reads several files.

{BODY}
"""

import os


class Reader:
    """A summary alone."""

    def close(self):
        """Close the
        open file.

        First paragraph of the method's body, which stands on
        two lines and is long enough to be found.

        Second paragraph.
        """

    async def fetch(self):
        """Fetch the next block.

        Short.
        """
'''


def write_library(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return folder


def documented(summary: str, words: int = 12) -> Documented:
    return Documented(summary, " ".join(["word"] * words))


def test_docstrings_are_read_in_two_parts(tmp_path: Path) -> None:
    library = write_library(tmp_path, reader=MODULE)
    assert list(read_docstrings(library)) == [
        Documented("Reads several files.", BODY),
        Documented(
            "Close the open file.",
            "First paragraph of the method's body, which stands on two lines and is long enough to be found. "
            "Second paragraph.",
        ),
        Documented("Fetch the next block.", "Short."),
    ]


def test_files_come_in_the_order_of_their_paths_and_broken_ones_are_passed_over(tmp_path: Path) -> None:
    library = write_library(
        tmp_path,
        b='"""Second.\n\nBody."""',
        a='"""First.\n\nBody."""',
        broken="def (:",
        zeros="\0",
        tests__c='"""Left out.\n\nBody."""',
        package__test__d='"""Left out.\n\nBody."""',
        package__tested='"""Third.\n\nBody."""',
    )
    (library / "latin.py").write_bytes(b'"""Bytes \xe9 that are no UTF-8.\n\nBody."""')
    summaries = [each.summary for each in read_docstrings(library)]
    assert summaries == ["First.", "Second.", "Bytes � that are no UTF-8.", "Third."]


@pytest.mark.parametrize(
    ("summary", "words", "is_usable"),
    [
        ("Open a file.", 12, True),
        ("Open a file.", 11, False),
        ("Open it.", 12, False),  # one content word
        ("Open open opens.", 12, False),  # the same word three times
        ("Open the next archive file.", 12, True),
        ("Open the next archive file lazily.", 12, False),  # five content words
        ("Open a file " + "of the " * 6, 12, True),  # fifteen words
        ("Open a file " + "of the " * 7, 12, False),  # seventeen
        ("!", 12, False),
    ],
)
def test_queries_have_few_content_words_and_documents_many(summary: str, words: int, is_usable: bool) -> None:
    assert usable(documented(summary, words), (2, 4)) == is_usable


def test_collection_is_a_corpus_with_one_relevant_document_a_query(tmp_path: Path) -> None:
    copies = {"reader": MODULE, "second": MODULE.replace("Reads several", "Reads many")}
    library = write_library(tmp_path / "library", **copies)
    assert write_collection(tmp_path / "docs", library=library) == 2  # the second file's descriptions are the first's
    corpus = open_corpus(str(tmp_path / "docs"), split="train")
    assert corpus.queries() == {"q0": "Reads several files.", "q1": "Close the open file."}
    assert [(judged.query_id, judged.doc_id, judged.relevance) for judged in corpus.qrels()] == [
        ("q0", "d0", 1),
        ("q1", "d1", 1),
    ]
    documents = [json.loads(line) for line in (tmp_path / "docs" / "corpus.jsonl").read_text("utf-8").splitlines()]
    assert [document["_id"] for document in documents] == ["d0", "d1"]
    assert documents[0]["text"] == BODY


def test_same_library_gives_the_same_files(tmp_path: Path) -> None:
    library = write_library(tmp_path / "library", reader=MODULE)
    for name in ("one", "two"):
        main(["--output", str(tmp_path / name), "--library", str(library), "--most-words", "3"])
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_most_words_bounds_the_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = write_library(
        tmp_path / "library", reader=MODULE.replace("Reads several files", "Reads several old files")
    )
    for most, count in (("3", 1), ("4", 2)):
        main(["--output", str(tmp_path / "docs"), "--library", str(library), "--most-words", most])
        assert capsys.readouterr().out.startswith(f"{count} queries")


def test_folder_without_documentation_and_folder_that_can_not_be_written_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="no Python files with docstrings"):
        write_collection(tmp_path / "docs", library=tmp_path)
    assert not (tmp_path / "docs").exists()
    library = write_library(tmp_path / "library", reader=MODULE)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(tmp_path / "file" / "docs"), "--library", str(library)])
    assert stop.value.code == 1
    assert "choose another output" in capsys.readouterr().err


def test_standard_library_is_enough_to_train_on(tmp_path: Path) -> None:
    assert write_collection(tmp_path / "docs", content_words=(2, 4)) >= 500
