"""`r1ranker data recommendation`: from a source to a file of requests, and on to samples and figures."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import ir_measures
import pytest
from commands import r1ranker

from r1ranker_ir.data.request_files import JudgedRequest, read_requests


def recommendation(*arguments: Any, code: int = 0) -> str:
    """Runs the verb and gives what it says on standard error."""
    result = r1ranker("data", "recommendation", *arguments, code=code)
    assert result.stdout == ""
    return " ".join(result.stderr.split()) if code == 2 else result.stderr


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """60 users of 50 movies, in the form of ml-1m; user 60 has one rating, and a line names no movie."""
    rng, folder = random.Random(1), tmp_path / "ml-tiny"
    folder.mkdir()
    titles = "".join(f"{number}::Film n° {number} ({1950 + number})::Drama\n" for number in range(1, 51))
    (folder / "movies.dat").write_bytes(titles.encode("latin-1"))
    lines = [
        f"{user}::{movie}::4::{978300000 + place}"
        for user in range(1, 60)
        for place, movie in enumerate(rng.sample(range(1, 51), 25))
    ]
    lines += ["60::1::4::978300000", "3::51::4::978300000"]
    (folder / "ratings.dat").write_text("\n".join(lines))
    return folder


def test_a_file_of_requests(movies: Path, tmp_path: Path) -> None:
    output = tmp_path / "rec.jsonl"
    common = ["--source", movies, "--output", output, "--on-error", "skip"]
    said = recommendation(*common, "--seed", 2)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert f"{output}: 59 requests; 60 users and 50 items read; 2 rows left out" in said
    assert "1 × unknown item id" in said and "1 × short history" in said
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 60)]
    for row in rows:
        assert (row["task"], row["source"]) == ("item", "ml-tiny")
        assert row["aim"] == "the movie that this viewer watches next"
        assert len(row["context"].split("\n")) == len(row["candidates"]) == 20
        assert sum(each["gain"] for each in row["candidates"]) == 1
        assert all(set(each["scores"]) == {"popularity", "item-knn"} for each in row["candidates"])
    first = output.read_bytes()
    recommendation(*common, "--seed", 2, "--quiet")
    assert output.read_bytes() == first
    recommendation(*common, "--seed", 3, "--quiet")
    assert output.read_bytes() != first


def test_the_options_reach_the_protocol(movies: Path, tmp_path: Path) -> None:
    output = tmp_path / "rec.jsonl.gz"
    common = ["--source", movies, "--output", output, "--on-error", "skip", "--history", 4, "--candidates", 5]
    said = recommendation(*common, "--users", 40, "--split", "test", "--negatives", "popularity", "--min-history", 24)
    made = list(read_requests(output))
    assert f"{len(made)} requests, not the 40 that were asked for; 60 users" in said
    assert 3 < len(made) < 25
    assert {len(judged.request.query.split("\n")) for judged in made} == {4}
    assert {len(judged.request.candidates) for judged in made} == {5}


def test_runs_of_recommenders(movies: Path, tmp_path: Path) -> None:
    lists, other, output = tmp_path / "sasrec.trec", tmp_path / "other.trec.gz", tmp_path / "rec.jsonl"
    lines = [f"{user} Q0 {movie} {movie} {-movie} sasrec\n" for user in range(1, 60) for movie in range(1, 51)]
    lists.write_text("".join(lines))
    other.write_bytes(gzip.compress("".join(lines[:-50]).encode()))
    common = ["--source", movies, "--output", output, "--on-error", "skip"]
    said = recommendation(*common, "--scores", f"mine={other}")
    assert "58 requests" in said and "1 × user has no scores of mine" in said
    common += ["--candidates-run", lists, "--candidates", 8]
    said = recommendation(*common)
    made = list(read_requests(output))
    missing = int(next(line for line in said.splitlines() if line.endswith("lack the target")).split()[0])
    assert len(made) + missing == 59 and 10 < missing < 50
    assert set(made[0].scores) == {"popularity", "item-knn", "sasrec"}
    for judged in made:
        ids = [int(each.id) for each in judged.request.candidates]
        assert ids == sorted(ids)
        assert list(judged.scores["sasrec"]) == sorted(judged.scores["sasrec"], reverse=True)
    said = recommendation(*common, "--add-targets")
    assert "59 requests; 60 users and 50 items read; 2 rows left out" in said
    assert f"{missing} lists of sasrec that lack the target" in said


def test_nothing_is_written_of_nothing(movies: Path, tmp_path: Path) -> None:
    output = tmp_path / "rec.jsonl"
    said = recommendation("--source", movies, "--output", output, code=1)
    assert "Error: ratings.dat:1477: unknown item id: '51' has no title" in said
    common = ["--source", movies, "--output", output, "--on-error", "skip"]
    said = recommendation(*common, "--min-history", 30, code=1)
    assert "gives no request (61 rows left out (60 × short history, 1 × unknown item id))" in said
    assert not output.exists() and not Path(f"{output}.partial").exists()
    assert "does not exist" in recommendation("--source", tmp_path / "no", "--output", output, code=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--domain", "cost"], "--domain: 'cost' is unknown: use one of product, movie, music, game, book"),
        (["--add-targets"], "--add-targets: it goes with --candidates-run"),
        (["--scores", "mine"], "--scores: 'mine' is not NAME=RUN"),
        (["--scores", "popularity=p.trec"], "'popularity' is the name of other scores already"),
        (["--scores", "a=1", "--candidates-run", "x/a.trec.gz"], "--scores: 'a' is the name of other scores already"),
        (["--candidates-run", "item-knn.trec"], "--candidates-run: 'item-knn' is the name of other scores already"),
        (["--users", "0"], "Invalid value for '--users'"),
    ],
)
def test_command_lines_that_make_no_sense(arguments: list[str], said: str) -> None:
    assert said in recommendation("--source", ".", "--output", "rec.jsonl", *arguments, code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("data --seed 1 recommendation --source . --output r.jsonl", "--seed stands before 'recommendation': write"),
        ("data", "Invalid value for --output: it is missing"),
        ("data --requests r.jsonl", "Invalid value for --output: it is missing"),
    ],
)
def test_options_before_the_command_are_refused(arguments: str, said: str) -> None:
    assert said in " ".join(r1ranker(*arguments.split(), code=2).stderr.split())


def reciprocal_rank(made: list[JudgedRequest], orders: list[list[int]]) -> float:
    qrels, run = [], []
    for judged, order in zip(made, orders, strict=True):
        user, ids = judged.request.query_id, [each.id for each in judged.request.candidates]
        qrels += [ir_measures.Qrel(user, item, int(gain)) for item, gain in zip(ids, judged.gains, strict=True)]
        run += [ir_measures.ScoredDoc(user, ids[place], -float(rank)) for rank, place in enumerate(order)]
    return float(ir_measures.calc_aggregate([ir_measures.RR], qrels, run)[ir_measures.RR])


def test_requests_that_give_the_answer_away_are_told_of(tmp_path: Path) -> None:
    output = tmp_path / "rec.jsonl"
    recommendation(
        *("--source", repeating_source(tmp_path / "songs", "choices"), "--output", output),
        *("--candidates", 5, "--repeats", "keep", "--quiet"),
    )
    samples = tmp_path / "steps.parquet"
    made = r1ranker("data", "--requests", output, "--output", samples, "--candidates", 5)
    assert "in 15 of 30 requests the best candidate is the only one that stands in the user's history" in made.stderr
    runs = tmp_path / "runs"
    measured = r1ranker("suite", output, "--reranker", "r1ranker-direct-tiny", "--queries", 12, "--output", runs)
    assert "in 12 of 12 requests the best candidate is the only one" in " ".join(measured.stderr.split())


def given_away(judged: JudgedRequest) -> bool:
    """Whether the target, and no other candidate, stands in the history."""
    chosen = {line.casefold() for line in judged.request.query.splitlines()}
    found = [place for place, each in enumerate(judged.request.candidates) if each.text.casefold() in chosen]
    return found == list(judged.best)


def repeating_source(folder: Path, form: str) -> Path:
    """30 users: the first 10 come back to their first song at the end, 5 more to another one of its title."""
    folder.mkdir()
    last = {user: user if user <= 10 else user + 50 if user <= 15 else user + 3 for user in range(1, 31)}
    chosen = {user: [user, user + 1, user + 2, last[user]] for user in last}
    titles = {item: f"Song {item - 50 if item > 50 else item}" for item in range(1, 101)}
    rows = [f"{item}\t{title}\n" for item, title in titles.items()]
    (folder / "x.item").write_text("item_id:token\ttitle:token_seq\n" + "".join(rows))
    if form == "lists":
        rows = [f"{user}\t{' '.join(map(str, items[:-1]))}\t{items[-1]}\n" for user, items in chosen.items()]
        header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    else:
        rows = [f"{user}\t{item}\t{place}\n" for user, items in chosen.items() for place, item in enumerate(items)]
        header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "x.inter").write_text(header + "".join(rows))
    return folder


@pytest.mark.parametrize("form", ["lists", "choices"])
def test_a_target_that_was_chosen_before_is_not_given_away(form: str, tmp_path: Path) -> None:
    source, output = repeating_source(tmp_path / "songs", form), tmp_path / "rec.jsonl"
    common = ["--source", source, "--output", output, "--candidates", 5]
    for repeats, kept, told in (
        ("drop", 15, "15 users left out who chose their target before"),
        ("hide", 30, "15 users who chose their target before; it was taken out"),
        ("keep", 30, "15 users who chose their target before: of their candidates, it alone"),
    ):
        said = recommendation(*common, *([] if repeats == "drop" else ["--repeats", repeats]))
        made = list(read_requests(output))
        assert len(made) == kept and told in said
        assert sum(map(given_away, made)) == (15 if repeats == "keep" else 0)


def test_amazon_games(data_folder: Path, tmp_path: Path) -> None:
    source, output = data_folder / "recommendation" / "amazon-games", tmp_path / "rec.jsonl"
    if not source.is_dir():
        pytest.skip(f"{source} does not exist")
    common = ["--source", source, "--output", output, "--domain", "game", "--split", "test", "--users", 500]
    assert "\n2 users left out who chose their target before" in recommendation(*common)
    # Two ids of one title are what users choose again here.
    assert all(not given_away(judged) for judged in read_requests(output))
    said = recommendation(*common, "--repeats", "keep")
    made = list(read_requests(output))
    assert sum(map(given_away, made)) == 2
    assert "500 requests; 50546 users and 16859 items read; 0 rows left out" in said
    assert not any("&amp;" in judged.request.query for judged in made)
    for name, expected in {"popularity": 0.4786, "item-knn": 0.5986}.items():
        orders = [sorted(range(20), key=lambda place: -judged.scores[name][place]) for judged in made]
        assert reciprocal_rank(made, orders) == pytest.approx(expected, abs=5e-5)
    # The file's own order: H(20)/20 = 0.1799, with a standard error of 0.0097 for 500 users.
    assert reciprocal_rank(made, [list(range(20))] * 500) == pytest.approx(0.1799, abs=0.03)
