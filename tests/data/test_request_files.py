"""Files of ranking requests: what is written is read, and what is malformed is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.request_files import JudgedRequest, read_requests, request_row, write_requests
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.types import TASKS, Candidate, RankingRequest

TEXT = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def judged_requests(draw: st.DrawFn) -> JudgedRequest:
    count = draw(st.integers(0, 5))
    columns = st.dictionaries(TEXT, st.lists(NUMBER, min_size=count, max_size=count).map(tuple), max_size=2)
    candidates = tuple(Candidate(draw(TEXT), draw(TEXT)) for _ in range(count))
    request = RankingRequest(draw(TEXT), candidates, draw(st.sampled_from(TASKS)), draw(TEXT), draw(st.text()))
    gains = tuple(draw(st.lists(st.floats(0, 1e9), min_size=count, max_size=count)))
    scores, values = (draw(columns) if count else {} for _ in range(2))
    return JudgedRequest(request, gains, draw(TEXT), scores, values)


@given(judged=judged_requests(), suffix=st.sampled_from(["", ".gz"]))
def test_a_request_survives_its_line(
    judged: JudgedRequest, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("requests") / f"asked.jsonl{suffix}"
    assert write_requests(path, [judged, judged]) == 2
    assert [request_row(each) for each in read_requests(path)] == [request_row(judged)] * 2
    assert list(read_requests(path, queries=1)) == [judged]


LINE: dict[str, Any] = {
    "context": "q",
    "candidates": [
        {"text": "a", "scores": {"bm25": 1}, "values": {"cost": 0.5}},
        {"text": "b", "gain": 1, "scores": {"bm25": 2}, "values": {"cost": 0.25}},
    ],
}


def with_second(**changes: Any) -> dict[str, Any]:
    return LINE | {"candidates": [LINE["candidates"][0], LINE["candidates"][1] | changes]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (with_second(scores={}), r"field 'candidates\[1\].scores': 'bm25' is given for some candidates only"),
        (with_second(scores={"bm25": 1, "x": 2}), r"scores': 'x' is given for some candidates only"),
        (with_second(values=[1]), r"field 'candidates\[1\].values' is \[1\]: give an object"),
        (with_second(values={"cost": "low"}), r"values.cost' is 'low': give a number"),
        (with_second(values={"cost": True}), r"values.cost' is True: give a number"),
        (with_second(gain=-1), r"field 'candidates\[1\].gain' is -1: give at least 0"),
        (with_second(gain=float("inf")), r"field 'candidates\[1\].gain' is inf: give a finite number"),
        (with_second(gian=1), r"field 'candidates\[1\].gian' is unknown: did you mean 'gain'"),
        (with_second(id=True), r"field 'candidates\[1\].id' is True: give a text"),
        (LINE | {"candidates": ["a"]}, r"field 'candidates\[0\]' is 'a': give an object with text, id, gain"),
        (LINE | {"query": "q"}, "fields 'context' and 'query' are both given: give the one or the other"),
        ({"context": "q"}, "field 'candidates' is missing: give it"),
        (LINE | {"aim": 3}, "field 'aim' is 3: give a text"),
        ("[1]", "a JSON list where an object is needed"),
        ("[" * 100_000, "not valid JSON"),
        ('{"context": "q", "candidates": [{"text": "a", "gain": 1%s}]}' % ("0" * 400), "more than 100 digits"),
        ('{"context": "q", "candidates": [{"text": "a", "gain": 1}]', "the file ends within this line"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: Any, said: str) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{line if isinstance(line, str) else json.dumps(line)}")
    with pytest.raises(DataFileError, match=rf"asked\.jsonl:2: .*{said}"):
        list(read_requests(path))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"gains": (1.0,)}, "request 'u1' of 's': 1 gains for 2 candidates"),
        ({"values": {"cost": (1.0, 2.0, 3.0)}}, "3 cost for 2 candidates"),
        ({"scores": {"bm25": (1.0, float("nan"))}}, "bm25 holds nan"),
        ({"gains": (-1.0, 0.0)}, "gain -1.0: give a number of at least 0"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: dict[str, Any], said: str) -> None:
    request = RankingRequest("q", (Candidate("a", "x"), Candidate("b", "y")), query_id="u1")
    with pytest.raises(InputError, match=said):
        JudgedRequest(**{"request": request, "gains": (1.0, 0.0), "source": "s"} | columns)
    assert JudgedRequest(request, (0.0, 0.0)).best == ()
    assert JudgedRequest(request, (0.5, 0.5)).best == (0, 1)


def test_a_file_that_fails_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judged = JudgedRequest(RankingRequest("q", (Candidate("a", "x"), Candidate("b", "y"))), (0.0, 1.0))

    def stopped() -> Iterator[JudgedRequest]:
        yield judged
        raise DataFileError("o.csv:3: no number")

    path = tmp_path / "asked.jsonl"
    with pytest.raises(DataFileError):
        write_requests(path, stopped())
    assert not path.exists()
    assert write_requests(path, [judged]) == 1
    assert f"{path}.partial is of a run that was stopped: it is begun again; what it holds is in" in caplog.text
