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


def test_docstrings_are_read_in_two_parts(tmp_path: Path) -> None:
    assert list(read_docstrings(write_library(tmp_path, reader=MODULE))) == [
        Documented("Reads several files.", BODY),
        Documented(
            "Close the open file.",
            "First paragraph of the method's body, which stands on two lines and is long enough to be found. "
            "Second paragraph.",
        ),
        Documented("Fetch the next block.", "Short."),
    ]


def test_files_come_in_the_order_of_their_paths_and_broken_ones_are_passed_over(tmp_path: Path) -> None:
    modules = {"b": "Second.", "a": "First.", "tests__c": "Left out.", "package__test__d": "Left out."}
    sources = {name: f'"""{summary}\n\nBody."""' for name, summary in (modules | {"package__tested": "Third."}).items()}
    library = write_library(tmp_path, **sources, broken="def (:", zeros="\0")
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
    ],
)
def test_queries_and_documents_have_to_be_long_enough(summary: str, words: int, is_usable: bool) -> None:
    assert usable(Documented(summary, " ".join(["word"] * words)), (2, 4)) is is_usable


def test_collection_is_a_corpus_with_a_training_split(tmp_path: Path) -> None:
    library = write_library(tmp_path / "library", reader=MODULE, copy=MODULE.replace("several", "many"))
    for name in ("docs", "again"):
        main(["--output", str(tmp_path / name), "--library", str(library)])
    corpus = open_corpus(str(tmp_path / "docs"), split="train")
    # The second file's descriptions are the first's.
    assert corpus.queries() == {"q0": "Reads many files.", "q1": "Close the open file."}
    judgments = [(judged.query_id, judged.doc_id, judged.relevance) for judged in corpus.qrels()]
    assert judgments == [("q0", "d0", 1), ("q1", "d1", 1)]
    documents = [json.loads(line) for line in (tmp_path / "docs" / "corpus.jsonl").read_text("utf-8").splitlines()]
    assert [document["_id"] for document in documents] == ["d0", "d1"]
    assert documents[0]["text"] == BODY
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        assert (tmp_path / "docs" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_most_words_bounds_the_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = write_library(tmp_path, reader=MODULE.replace("Reads several files", "Reads several old files"))
    for most, count in (("3", 1), ("4", 2)):
        main(["--output", str(tmp_path / "docs"), "--library", str(library), "--most-words", most])
        assert capsys.readouterr().out.startswith(f"{count} queries")


def test_what_can_not_be_read_or_written_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no Python files with docstrings"):
        write_collection(tmp_path / "docs", library=tmp_path)
    assert not (tmp_path / "docs").exists()
    library = write_library(tmp_path / "library", reader=MODULE)
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(library / "reader.py" / "docs"), "--library", str(library)])
    assert stop.value.code == 1
    assert "choose another output" in capsys.readouterr().err
