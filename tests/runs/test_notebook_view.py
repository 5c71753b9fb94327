"""Results in a notebook, as text and as data: hostile texts stay text, and what is written as JSON is a trace."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.backends.oracle import OracleBackend
from r1ranker_ir.integrations.documents import read_documents
from r1ranker_ir.integrations.results import TracedResults
from r1ranker_ir.rankers.cascade import Cascade
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.notebook_view import ranking_html
from r1ranker_ir.runs.traces import TracedRanking, read_trace
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror="alert(1)">',
    "</bdi></td></table></div></details><b>loose</b>",
    "\u202egnitirw fo noitcerid eht\u2066 \x1b[31m \ud800",
    "&lt;b&gt; $x^2$ 'quoted'",
    "ab " * 350_000,
)
ALLOWED = {"div", "p", "b", "bdi", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}


class Reader(HTMLParser):
    """Reads a page, refuses what it should not hold, and keeps its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED and {name for name, _ in attrs} <= {"class", "style", "scope", "dir"}, (tag, attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def traced(texts: tuple[str, ...], strategy: str = "iterative") -> TracedRanking:
    """A ranking that has each text as an id, a passage, the query, a thought, an answer, a note and a hash."""
    candidates = tuple(Candidate(text, text) for text in texts)
    steps = tuple(
        Step(
            (0, place), (place,), text, f"<think>{text}</think>{text}", {0: 0.25, place: 0.75}, True, True, 1, Usage(1)
        )
        for place, text in enumerate(texts)
        if place
    )
    ranking = Ranking(RankingRequest(f"query {texts[0]}", candidates), tuple(range(len(texts))), steps)
    return TracedRanking(strategy, ranking, (texts[0],))


def test_hostile_texts_stay_text() -> None:
    page = ranking_html(traced(HOSTILE))
    read = Reader(page)
    assert "<script>alert(1)</script>" in read.text and "\\u202egnitirw" in read.text and "\u202e" not in page
    assert page.count("<details>") == 1 + 5 and len(page) < 200_000
    assert page.encode() and "mathjax_ignore" in page


@given(texts=st.lists(st.text(max_size=30), min_size=2, max_size=4, unique=True))
def test_any_text_stays_text(texts: list[str]) -> None:
    Reader(ranking_html(traced(tuple(texts))))


def oracle(strategy: str = "iterative", **options: Any) -> Ranker:
    return Ranker("m", strategy=strategy, backend=OracleBackend(gains={"": {"a": 1.0, "b": 3.0, "c": 2.0}}), **options)


@pytest.fixture
def results() -> TracedResults:
    entries = read_documents(["wheels", "fleas", "cats"], ["a", "b", "c"], [{"page": 1}, {}, {"when": Path("x")}])
    request = RankingRequest("fleas", tuple(Candidate(each.doc_id, each.document.text) for each in entries))
    [ranking] = oracle().rank([request])
    return TracedResults(ranking, entries, "iterative")


def test_results_in_a_notebook_as_text_and_as_data(results: TracedResults, tmp_path: Path) -> None:
    page = Reader(results._repr_html_())
    assert "iterative: 3 passages, 2 calls" in page.text and "Step 1 of 2: a" in page.text and "excluded" in page.text
    assert repr(results) == "<TracedResults: <Ranking of 'fleas': 'b', 'c', 'a'; 2 steps>>"
    assert repr(results[0]) == "<TracedResult 1: 'b', 'fleas'>" and len(repr(results)) < 100
    data = results.to_dict()
    assert list(data["results"][0].values())[:3] == [1, "b", 1.0]
    assert data["order"] == [row["doc_id"] for row in data["results"]] and data["results"][2]["metadata"] == {"page": 1}
    path = tmp_path / "log.jsonl"
    path.write_text(results.to_json() + "\n")
    [again] = read_trace(path)
    assert again == TracedRanking("iterative", results.ranking)
    assert json.loads(results.ranking.to_json()).items() <= json.loads(again.to_json()).items()


def test_ids_that_repeat_are_told_apart_in_data(tmp_path: Path) -> None:
    request = RankingRequest("fleas", tuple(Candidate(name, f"text {name}") for name in ("b", "b", "b#2", "a")))
    [ranking] = oracle().rank([request])
    assert set(ranking.to_dict()["texts"]) == {"b", "b#3", "b#2", "a"}
    path = tmp_path / "log.jsonl"
    path.write_text(TracedRanking("iterative", ranking).to_json() + "\n")
    [again] = read_trace(path)
    assert again.ranking.order == ranking.order and len(again.ranking.steps) == len(ranking.steps)


def test_rankers_say_what_they_are() -> None:
    ranker = oracle(max_calls=9, max_thought_tokens=9)
    assert repr(ranker).startswith("Ranker('m', strategy='iterative', max_calls=9, max_thought_tokens=9, ")
    assert "backend=<OracleBackend>" in repr(ranker) and len(repr(ranker)) < 200
    assert repr(Cascade(ranker, ranker, depth=3)) == f"Cascade({ranker!r}, {ranker!r}, depth=3)"
    assert "secret" not in repr(
        Ranker("m", strategy="direct", backend="openai", base_url="http://secret@a/v1", extra_body={"a": "secret"})
    )


def test_a_ranker_with_other_options_shares_the_model() -> None:
    ranker = oracle()
    other = ranker.having(max_calls=9, window_size=7)
    assert (other.options.max_calls, other.window_size, ranker.options.max_calls) == (9, 7, None)
    assert ranker.window_size == 20 and other.stride < 7 and other.engine is ranker.engine
    for changes, said in (
        ({"colour": 1}, "'colour' can't be changed of an open ranker: use one of schedule, "),
        ({"schedule": "sideways"}, "schedule"),
        ({"window_size": 1}, "window"),
        ({"sort": "bubble"}, "sort"),
    ):
        with pytest.raises(ValueError, match=said):
            ranker.having(**changes)
