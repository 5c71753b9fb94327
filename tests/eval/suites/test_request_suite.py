"""Suites of request files and Ranking-bench: a served model that knows the answers, baselines, counts, comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import manifest_of, r1ranker, tree, write_corpus
from ir_measures import Qrel
from servers import Reply, Request, ScriptedServer, completion, serving

from r1ranker_ir.data.request_files import JudgedRequest, read_requests, write_requests
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.eval.suites.requests import RequestFileSource
from r1ranker_ir.eval.suites.tables import REQUEST_MEASURES, open_suite
from r1ranker_ir.types import Candidate, RankingRequest

PROTOCOLS = Path(__file__).resolve().parents[4] / "shared" / "PROTOCOLS.md"
TASKS = ("movie", "music", "game", "performance", "cost", "balance", "passage-5", "passage-7", "passage-9")
AIM = "the film that this viewer watches next"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def knowing(asked: Request) -> Reply:
    """Ranks texts with the word `good` first and keeps the prompts' order else."""
    best_first = sorted(asked.shown, key=lambda name: "good" not in asked.shown[name])
    return completion(f"<think>So.</think><answer>{' > '.join(best_first)}</answer>", usage=(10, 2))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving(knowing) as running:
        yield running


@pytest.fixture
def served(server: ScriptedServer) -> tuple[str, ...]:
    """The options that name the server's model."""
    named = "--reranker r1ranker-direct --model knowing --backend openai --no-cache --batch-size 1".split()
    return (*named, "--base-url", server.base_url)


def judged(
    query_id: str,
    texts: Sequence[str],
    gains: Sequence[float],
    *,
    ids: Sequence[str] | None = None,
    query: str = "Heat\nAlien",
    **columns: Any,
) -> JudgedRequest:
    named = zip(ids or [f"i{place}" for place in range(len(texts))], texts, strict=True)
    request = RankingRequest(query, tuple(Candidate(*pair) for pair in named), "item", query_id, AIM)
    return JudgedRequest(request, tuple(gains), "films", **columns)


def suite(*arguments: str | Path, code: int = 0) -> Any:
    return r1ranker("suite", *arguments, code=code)


def row(report: str, name: str) -> list[str]:
    """A row's cells behind its name, of the only table that has it."""
    [line] = [line for line in report.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def order(run: Path, query_id: str) -> list[str]:
    return [entry.doc_id for entry in read_run(run)[query_id]]


# --- a file of requests -----------------------------------------------------------------------------------------------

FILMS = [
    judged(
        "u1",
        ["a bad film", "the alien returns", "a good film", "a dull film"],
        [0, 0, 1, 0],
        scores={"popularity": (1.0, 2.0, 2.0, 0.0), "oracle (known)": (0.0, 0.0, 1.0, 0.0)},
        values={"price": (4.0, 2.0, 0.001, 2.0)},
    ),
    judged(
        "u2",
        ["a good film", "nothing", "something", "whatever"],
        [1, 0, 0, 0],
        scores={"popularity": (0.0, 9.0, 9.0, 9.5), "oracle (known)": (1.0, 0.0, 0.0, 0.0)},
        values={"price": (0.002, 1.0, 2.0, 0.998)},
    ),
]


def test_a_file_of_requests_is_a_suite(server: ScriptedServer, served: tuple[str, ...]) -> None:
    write_requests("films.jsonl", FILMS)
    said = suite("films.jsonl", *served, "--save-traces", "--output", "out").stderr
    assert "films needs: nothing to download" in said and "1 of 1 data sets done" in said
    # The ranker reads the task's words, the aim and the whole list.
    assert len(server.requests) == 2
    assert all(AIM in asked.question and "Heat" in asked.question for asked in server.requests)
    folder = Path("out/films")
    names = ("bm25", "oracle-known", "order-of-the-file", "popularity")
    files = ["requests.jsonl", "reranked.trec", "traces.jsonl"]
    assert sorted(tree(folder)) == [*(f"baselines/{name}.trec" for name in names), *files]
    assert list(read_requests(folder / "requests.jsonl")) == FILMS
    assert order(folder / "reranked.trec", "u1") == ["i2", "i0", "i1", "i3"]
    assert order(folder / "baselines" / "popularity.trec", "u1") == ["i1", "i2", "i0", "i3"]  # a tie as in the file
    assert order(folder / "baselines" / "bm25.trec", "u1") == ["i1", "i0", "i2", "i3"]  # "alien" is of the history
    assert order(folder / "baselines" / "order-of-the-file.trec", "u2") == ["i0", "i1", "i2", "i3"]
    report = Path("out/README.md").read_text()
    assert "Requests of `films.jsonl`; 2 requests; 4 candidates each." in report
    assert "documents of each query" not in report and "## Sources" not in report
    header = row(report, "system")
    assert header == [*REQUEST_MEASURES.split(), "first choice: price"]
    chance = row(report, "random, expected")
    assert chance[0] == "0.5208" and chance[4] == "0.7500"  # H(4) / 4, and 3 places of 4
    assert chance[-1] == "1.5001"  # the mean over all candidates: 8.001 / 4 and 4 / 4
    assert row(report, "popularity (here)")[0] == "0.3750" and row(report, "popularity (here)")[-1] == "1.4990"
    assert row(report, "oracle (known) (here)")[0] == "1.0000"
    assert row(report, "**r1ranker-direct** (here)") == ["1.0000"] * 7 + ["0.0015"]
    manifest = manifest_of("out")
    assert manifest["depth"] is None and set(manifest["files"]) == set(tree(Path("out"))) - {"manifest.json"}
    [dataset] = manifest["datasets"]
    assert dataset["first_stage"] is None and set(dataset["checksums"]) == {"requests", "file"}
    assert dataset["requests"]["judgments"] == "gains as grades" and dataset["requests"]["given"] == 2
    [measured] = json.loads(Path("out/measures.json").read_text())
    assert measured["random"]["mean"]["RR"] == pytest.approx(25 / 48)
    assert measured["first_choice"]["reranked.trec"] == {"price": pytest.approx(0.0015)}
    assert [run["run"] for run in measured["runs"]][-1] == "reranked.trec"
    suite("films.jsonl", *served, "--save-traces", "--output", "again", "--quiet")
    assert tree(Path("again")) == tree(Path("out"))


def test_runs_of_a_suite_are_compared_on_its_requests(served: tuple[str, ...]) -> None:
    write_requests("films.jsonl", FILMS * 2)  # ids that repeat get others, the same ones everywhere
    suite("films.jsonl", *served, "--output", "out", "--quiet")
    runs = ["out/films/baselines/popularity.trec", "out/films/reranked.trec"]
    for corpus in ("films.jsonl", "out/films/requests.jsonl"):
        command = ["compare", "--corpus", corpus, "--baseline", *runs, "--measures", "RR", "--format", "json"]
        done = r1ranker(*command)
        means = {run["run"]: run["means"]["RR"]["mean"] for run in json.loads(done.stdout)["runs"]}
        assert means == {"popularity": pytest.approx(0.375), "reranked": 1.0}
    assert "0.3750" in r1ranker("evaluate", "--corpus", "films.jsonl", *runs, "--measures", "RR").stdout
    assert "4 requests have ids" not in Path("out/README.md").read_text()
    assert "2 requests have ids" in Path("out/README.md").read_text()


def test_gains_that_are_no_whole_numbers_make_the_best_relevant(served: tuple[str, ...]) -> None:
    requests = [
        judged("q1", ["x", "a good one", "y"], [0.25, 1.0, 0.5]),
        judged("q2", ["good x", "y", "good z"], [1.0, 0.0, 1.0]),
        judged("q3", ["x", "y", "z"], [0.0, 0.0, 0.0], values={"price": (1.0, 2.0, 3.0)}),
        judged("q4", ["a good one"], [1.0]),
    ]
    write_requests("mixed.jsonl", requests)
    suite("mixed.jsonl", *served, "--output", "out", "--measures", "RR Success@1 AP")
    report = Path("out/README.md").read_text()
    assert "Relevant is the candidate of the greatest gain" in report
    assert "1 of 4 requests have no gain above 0" in report
    assert "1 to 3 candidates each" in report and "There is no formula here for AP." in report
    # 11/18 of one relevant among three, 5/6 of two among three, 1 of one alone.
    chance = (11 / 18 + 5 / 6 + 1) / 3, (1 / 3 + 2 / 3 + 1) / 3
    assert row(report, "random, expected") == [*(f"{value:.4f}" for value in chance), "–"]
    assert row(report, "**r1ranker-direct** (here)") == ["1.0000"] * 3
    qrels = [Qrel(*pair, 1) for pair in (("q1", "i1"), ("q2", "i0"), ("q2", "i2"), ("q4", "i0"))]
    run = read_run("out/mixed/baselines/order-of-the-file.trec")
    measured = {key: value for key, value in run.items() if key != "q3"}
    independent = evaluate(qrels, measured, parse_measures("RR Success@1 AP"))
    assert row(report, "order of the file (here)") == [f"{value:.4f}" for value in independent.mean.values()]
    assert len(read_run("out/mixed/reranked.trec")) == 4
    [dataset] = manifest_of("out")["datasets"]
    assert (dataset["counts"]["queries"], dataset["judged_queries"], dataset["run_queries"]) == (4, 3, 3)


def test_what_is_missing_is_said_and_names_do_not_collide(served: tuple[str, ...]) -> None:
    requests = [
        judged("a user", ["x", "good"], [0, 3], ids=["The Thing", "The_Thing"], scores={"bm25": (2.0, 1.0)}),
        judged("a_user", ["x", "good"], [2, 1], ids=["same", "same"], scores={"bm25": (2.0, 1.0), "knn": (1.0, 2.0)}),
    ]
    write_requests("odd.jsonl", requests)
    suite("odd.jsonl", *served, "--output", "out", "--shuffle", "7")
    report = Path("out/README.md").read_text()
    assert row(report, "knn (here)") == ["–"] * 7
    assert "No figures for knn: 1 of 2 requests have no such score." in report
    assert row(report, "bm25 (given) (here)")[0] == "0.7500"
    assert {"bm25.trec", "bm25-given.trec"} <= {path.name for path in Path("out/odd/baselines").iterdir()}
    assert order(Path("out/odd/baselines/bm25-given.trec"), "a_user") == ["same", "same_2"]
    assert order(Path("out/odd/baselines/bm25-given.trec"), "a_user_2") == ["The_Thing_2", "The_Thing"]
    assert "2 requests have ids, or ids of candidates, that a TREC run can't hold" in report
    assert "shuffled before (seed 7)" in report
    # Grades are gains: 3 alone, and 2 and 1 in the wrong order.
    ndcg = (1 + (1 + 2 / 1.5849625) / (2 + 1 / 1.5849625)) / 2
    assert row(report, "**r1ranker-direct** (here)")[1] == f"{ndcg:.4f}"


def test_only_the_first_requests_are_run_and_nothing_is_searched(served: tuple[str, ...]) -> None:
    write_requests("films.jsonl.gz", FILMS)
    suite("films.jsonl.gz", *served, "--queries", "1", "--output", "out")
    assert "2 requests, of which the first 1 were run" in Path("out/README.md").read_text()
    assert list(read_run("out/films/reranked.trec")) == ["u1"]
    assert len(list(read_requests("out/films/requests.jsonl"))) == 1
    corpus = ("--corpus", "films.jsonl.gz", "--output", "x")
    for command in (("search", *corpus), ("rerank", *corpus, "--run", "out/films/reranked.trec", *served)):
        assert "with r1ranker suite films.jsonl.gz" in r1ranker(*command, code=1).output


def test_shuffling_keeps_each_request_its_own_order(tmp_path: Path) -> None:
    write_requests("films.jsonl", FILMS)
    plain = list(RequestFileSource("films.jsonl").requests())
    assert plain == [each.request for each in FILMS]
    shuffled = RequestFileSource("films.jsonl", shuffle=3).requests()
    assert [sorted(each.candidates, key=lambda c: c.id) for each in shuffled] == [list(r.candidates) for r in plain]
    write_requests("second.jsonl", FILMS[1:])
    [(position, alone)] = RequestFileSource("second.jsonl", shuffle=3).requests().between(0, 5)
    assert (position, alone) == (0, list(shuffled)[1])


def test_a_table_may_hold_request_files_and_corpora(served: tuple[str, ...]) -> None:
    write_requests("films.jsonl", FILMS)
    write_corpus(Path("corpus"), {"d1": "good fleas", "d2": "fleas"}, {"q1": "fleas"}, {("q1", "d1"): 1})
    table = '[datasets.corpus]\ncorpus = "corpus"\nmeasures = "RR"\n[datasets.films]\ncorpus = "films.jsonl"\n'
    Path("both.toml").write_text(table)
    suite("both.toml", *served, "--depth", "2", "--output", "out")
    report = Path("out/README.md").read_text()
    assert "The top 2 documents of each query were reranked" in report and "are ranked as" not in report
    assert "| data set | measure | first stage (here) | random, expected | BM25 (here) |" in report
    overview = [line for line in report.splitlines() if line.startswith(("| corpus |", "| films |"))]
    assert [[cell.strip() for cell in line.split("|")[2:-1]] for line in overview] == [
        ["RR", "0.5000", "–", "–", "1.0000"],
        ["RR", "–", "0.5208", "0.6667", "1.0000"],
    ]
    assert [each.get("requests") is not None for each in manifest_of("out")["datasets"]] == [False, True]


# --- Ranking-bench ----------------------------------------------------------------------------------------------------


def bench_rows() -> list[dict[str, Any]]:
    """A row of each task, a second one of some, and rows that can't be used."""

    def row(task: str, problem: str, gt: str | None, candidates: list[str]) -> dict[str, Any]:
        return {"task_name": task, "problem": problem, "gt": gt, "candidates": candidates}

    past = "I've watched these in the past, in order:\n['0. Heat', '1. Alien']\n\nNow there are 3 candidates."
    items = ["Bad film", "A good film", "Dull film"]
    models = ["Large (70b)", "Small (8b)"]
    asked = (
        "The LLM names and descriptions:\n    # Small (8b): a good one.\n    # Large (70b): dear.\n"
        f"    ## Here is a query: what is 2 + 2? and LLM condidates: {models}. Select."
    )
    texts = ["Ticks wait in grass.", "good fleas live for a year"]
    about = "## Here is a query: how old are fleas and candidate passages:\n"
    about += "".join(f"passage {place}: {text}\n" for place, text in enumerate(texts))
    return [
        *(row(f"Rec-{name}", past, items[1], items) for name in ("Movie", "Music", "Game")),
        *(row(f"Router-{name}", asked, models[1], models) for name in ("Performance", "Cost", "Balance")),
        *(row(f"Passage-{count}", about, "passage 1", texts) for count in (5, 7, 9)),
        *[row("Rec-Game", past, "None of them", items)] * 2,
        row("Passage-5", about, "passage 1", texts[:1]),
        row("Rec-Movie", past, items[1], items),
        row("Rec-Movie", past, None, items),
    ]


def test_ranking_bench_runs_its_nine_tasks_and_counts_its_problems(
    server: ScriptedServer, served: tuple[str, ...]
) -> None:
    pytest.importorskip("datasets", reason="datasets reads Ranking-bench's rows")
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(bench_rows()), "bench.parquet")
    suite("ranking-bench", "--tasks", "all", "--source", "bench.parquet", *served, "--output", "out")
    report, manifest = Path("out/README.md").read_text(), manifest_of("out")
    assert tuple(each["name"] for each in manifest["datasets"]) == TASKS
    dropped = {each["name"]: each["requests"]["dropped_rows"] for each in manifest["datasets"]}
    assert {name: counts for name, counts in dropped.items() if counts} == {
        "movie": {"problem, gt or task_name is no text": 1},
        "game": {"gt is not among the candidates": 2},
        "passage-5": {"fewer than 2 candidates": 1},
    }
    assert "Rows of the source that could not be used: 2 (2 × gt is not among the candidates)." in report
    assert "Requests of `bench.parquet: Rec-Game`; 1 requests; 3 candidates each." in report
    # Ids of rows on one history are alike, and titles hold white space.
    movies = read_run("out/movie/reranked.trec")
    assert list(movies)[1] == f"{next(iter(movies))}_2"
    assert [entries[0].doc_id for entries in movies.values()] == ["A_good_film"] * 2
    assert any("the best answer, whatever it costs" in asked.question for asked in server.requests)
    overview = report[: report.index("## movie")]
    assert row(overview, "data set")[1:4] == ["random, expected", "BM25 (here)", "r1ranker-direct (here)"]
    assert row(overview, "game")[:4] == ["RR", "0.6111", "0.5000", "1.0000"]
    assert row(overview, "game")[-1] == "0.4249"  # IRanker-3B's
    published = (34.69, 29.18, 42.49, 23.62, 30.39, 24.44, 60.98, 53.22, 49.96)
    assert row(overview, "mean of 3")[-1] == f"{sum(published) / 900:.4f}"
    assert "They compare only as far as their requests and candidates are these." in report
    assert "datasets" in manifest["versions"]


def test_ranking_bench_takes_a_folder_of_our_builders_files(served: tuple[str, ...]) -> None:
    Path("bench").mkdir()
    write_requests("bench/game.jsonl", FILMS)
    write_requests("bench/cost.jsonl.gz", FILMS[:1])
    chosen = ("ranking-bench", "--source", "bench", *served)
    suite(*chosen, "--tasks", "game,cost", "--output", "out")
    manifest = manifest_of("out")
    assert [each["corpus"] for each in manifest["datasets"]] == ["bench/game.jsonl", "bench/cost.jsonl.gz"]
    assert "--datasets" in manifest["command"] and "--source" in manifest["command"]
    # A task without a file fails, and the others are run.
    said = suite(*chosen, "--tasks", "recommendation", "--output", "some", code=1).stderr
    assert "request file 'bench/movie.jsonl' does not exist" in said and "1 of 3 data sets done" in said
    assert "| movie | RR | – | – | failed | 0.1756 |" in Path("some/README.md").read_text()


def test_without_the_hub_each_task_says_so(served: tuple[str, ...]) -> None:
    pytest.importorskip("datasets", reason="datasets asks the hub")
    said = suite("ranking-bench", "--tasks", "passage-5", *served, "--output", "out", code=1).stderr
    assert "datasets downloads ulab-ai/Ranking-bench" in said and "can't load Ranking-bench from 'direct'" in said


@pytest.mark.skipif(not PROTOCOLS.is_file(), reason=f"{PROTOCOLS} does not exist")
def test_published_figures_are_those_of_the_paper() -> None:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PROTOCOLS.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    head = next(position for position, cells in enumerate(rows) if cells[:2] == ["model", "Movie"])
    assert [name.lower() for name in rows[head][1:7]] == list(TASKS[:6])
    paper = {cells[0]: [round(float(cell) / 100, 4) for cell in cells[1:]] for cells in rows[head + 2 : head + 8]}
    ours: dict[str, list[float]] = {}
    for dataset in open_suite("ranking-bench").datasets:
        for figure in dataset.published:
            assert figure.measure == "RR"
            ours.setdefault(figure.system.replace(",", ""), []).append(figure.value)
    assert ours == paper and len(paper) == 6


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("films.jsonl", "--depth", "5"), 2, "ranking requests hold their candidates"),
        (("films.jsonl", "--first-stage", "bm25s"), 2, "--first-stage"),
        (("films.jsonl", "--source", "films.jsonl"), 1, "'films' of suite 'films' is not one of them"),
        (("ranking-bench", "--source", "nowhere"), 1, "give a folder with <task>.jsonl for each task, such as movie"),
        (("ranking-bench", "--tasks", "movies"), 1, "close: movie"),
        (("nowhere.jsonl",), 1, "neither a folder that exists nor an ir_datasets id"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(arguments: tuple[str, ...], code: int, message: str) -> None:
    write_requests("films.jsonl", FILMS)
    said = suite(*arguments, "--reranker", "r1ranker-direct-tiny", "--output", "out", code=code).stderr
    assert message in " ".join(said.split())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("requests", "message"),
    [([], "holds no ranking request"), ([judged("q", ["x", "y"], [0, 0])], "none of the 1 requests")],
)
def test_files_that_nothing_can_be_measured_on_fail(requests: list[JudgedRequest], message: str) -> None:
    write_requests("odd.jsonl", requests)
    said = suite("odd.jsonl", "--reranker", "r1ranker-direct-tiny", "--output", "out", code=1).stderr
    assert message in said and message in manifest_of("out")["datasets"][0]["failed"]


def test_a_malformed_line_is_named() -> None:
    write_requests("films.jsonl", FILMS)
    with Path("films.jsonl").open("a") as file:
        file.write('{"context": "x"}\n')
    assert "films.jsonl:3: " in suite("films.jsonl", "--reranker", "r1ranker-direct-tiny", code=1).stderr
