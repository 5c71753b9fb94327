"""`r1ranker data recommendation`: from a source to a file of requests, and on to samples and figures."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import ir_measures
import pytest
from typer.testing import CliRunner

from r1ranker_ir.cli import app
from r1ranker_ir.request_files import JudgedRequest, read_requests


def recommendation(*arguments: Any, code: int = 0) -> str:
    """Runs the verb and gives what it says on standard error."""
    result = CliRunner().invoke(app, ["data", "recommendation", *map(str, arguments)])
    assert result.exit_code == code, result.output
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


def test_samples_can_be_made_of_the_requests(movies: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    output, samples = tmp_path / "rec.jsonl", tmp_path / "steps.parquet"
    recommendation("--source", movies, "--output", output, "--on-error", "skip", "--users", 5, "--candidates", 6)
    result = CliRunner().invoke(app, ["data", "--requests", str(output), "--candidates", "6", "--output", str(samples)])

    assert result.exit_code == 0, result.output
    assert "25 samples (iterative) of 5 queries" in result.stderr


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


def test_options_before_the_command_are_refused() -> None:
    result = CliRunner().invoke(app, ["data", "--seed", "1", "recommendation", "--source", ".", "--output", "r.jsonl"])
    assert result.exit_code == 2
    assert "--seed stands before 'recommendation': write the options after it" in " ".join(result.stderr.split())
    for arguments in (["data"], ["data", "--requests", "r.jsonl"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert "Invalid value for --output: it is missing" in " ".join(result.stderr.split())


def reciprocal_rank(made: list[JudgedRequest], orders: list[list[int]]) -> float:
    qrels, run = [], []
    for judged, order in zip(made, orders, strict=True):
        user, ids = judged.request.query_id, [each.id for each in judged.request.candidates]
        qrels += [ir_measures.Qrel(user, item, int(gain)) for item, gain in zip(ids, judged.gains, strict=True)]
        run += [ir_measures.ScoredDoc(user, ids[place], -float(rank)) for rank, place in enumerate(order)]
    return float(ir_measures.calc_aggregate([ir_measures.RR], qrels, run)[ir_measures.RR])


def test_amazon_games(data_folder: Path, tmp_path: Path) -> None:
    source, output = data_folder / "recommendation" / "amazon-games", tmp_path / "rec.jsonl"
    if not source.is_dir():
        pytest.skip(f"{source} does not exist")
    said = recommendation(
        *("--source", source, "--output", output, "--domain", "game", "--split", "test", "--users", 500)
    )
    made = list(read_requests(output))

    assert "500 requests; 50546 users and 16859 items read; 0 rows left out" in said
    assert not any("&amp;" in judged.request.query for judged in made)
    of_baselines = {
        name: reciprocal_rank(
            made, [sorted(range(20), key=lambda place: -judged.scores[name][place]) for judged in made]
        )
        for name in ("popularity", "item-knn")
    }
    assert of_baselines == pytest.approx({"popularity": 0.4786, "item-knn": 0.5986}, abs=5e-5)
    # Random orders, and the file's own: H(20)/20 = 0.1799, with a standard error of 0.0097 for 500 users.
    assert reciprocal_rank(made, [list(range(20))] * 500) == pytest.approx(0.1799, abs=0.03)
    rng = random.Random(0)
    assert reciprocal_rank(made, [rng.sample(range(20), 20) for _ in made]) == pytest.approx(0.1799, abs=0.03)
