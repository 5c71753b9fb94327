"""One call that fails: the others are answered and kept, the rest is ranked, and what failed is named at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker, write_corpus
from servers import Reply, Request, ScriptedServer, Serve, completion, refusal

from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.engine.outcomes import FailedRanking
from r1ranker_ir.errors import (
    BackendError,
    CallError,
    ContextLengthError,
    FailedRankingsError,
    R1RankerError,
)
from r1ranker_ir.integrations.rerankers import IRankerReranker
from r1ranker_ir.rankers.cascade import Cascade
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Candidate, RankingRequest

BACKWARDS = "<think>a</think><answer>[3] > [2] > [1]</answer>"
FILTER = refusal(400, "The response was filtered by the content management policy", code="content_filter")
TOO_LONG = refusal(400, "This model's maximum context length is 4096 tokens")


def requests_of(count: int) -> list[RankingRequest]:
    candidates = tuple(Candidate(f"d{place}", f"passage {place}") for place in range(3))
    return [RankingRequest(f"query number {number}.", candidates, query_id=f"q{number}") for number in range(count)]


def number_of(request: Request) -> int:
    return int(request.question.partition("query number ")[2].partition(".")[0])


def refusing(refused: dict[int, Reply], answer: str = BACKWARDS) -> Callable[[Request], Reply]:
    return lambda request: refused.get(number_of(request), completion(answer))


def ranker_on(server: ScriptedServer, strategy: str = "direct", **options: Any) -> Ranker:
    return Ranker("m", strategy=strategy, backend="openai", base_url=server.base_url, **{"max_retries": 0, **options})


# --- in Python ------------------------------------------------------------------------------------------------------


def test_refused_queries_are_named_and_the_others_ranked_and_kept(serve: Serve, tmp_path: Path) -> None:
    # A flagged text is one refusal, even with the status of a bad key.
    flagged = refusal(403, "your input was flagged: content management policy")
    server = serve(refusing({0: flagged, 17: TOO_LONG}))
    options = {"cache": tmp_path / "cache.sqlite"}
    with pytest.raises(FailedRankingsError) as caught:
        ranker_on(server, **options).rank(requests_of(31))
    error = caught.value
    assert "2 of 31 rankings failed" in str(error)
    assert "query 'q0'" in str(error) and "content management policy" in str(error)
    assert "query 'q17'" in str(error) and "context length is 4096" in str(error)
    assert sorted(error.failed) == [0, 17]
    assert all(isinstance(each, CallError) and each.refused for each in error.failed.values())
    assert len(error.rankings) == 31
    assert [place for place, ranking in enumerate(error.rankings) if ranking is None] == [0, 17]
    assert all(ranking is None or ranking.order == (2, 1, 0) for ranking in error.rankings)

    before = len(server.requests)
    with pytest.raises(FailedRankingsError, match="2 of 31"):
        ranker_on(server, **options).rank(requests_of(31))
    assert [number_of(each) for each in server.requests[before:]] in ([0, 17], [17, 0])
    server.behaviours = [completion(BACKWARDS)]
    assert len(ranker_on(server, **options).rank(requests_of(31))) == 31
    assert len(server.requests) == before + 4


def test_streams_yield_the_others_and_outcomes_say_which_failed(serve: Serve) -> None:
    server = serve(refusing({2: FILTER}))
    finished = []
    with pytest.raises(FailedRankingsError, match="1 of 6 rankings failed"):
        for index, _ in ranker_on(server).stream(requests_of(6)):
            finished.append(index)
    assert sorted(finished) == [0, 1, 3, 4, 5]
    # One that is alone fails with its own error.
    with pytest.raises(CallError, match="content management policy") as caught:
        ranker_on(server).rank(requests_of(6)[2:3])
    assert not isinstance(caught.value, FailedRankingsError)
    outcomes = dict(ranker_on(server).outcomes(requests_of(6)))
    [(failed, outcome)] = [pair for pair in outcomes.items() if isinstance(pair[1], FailedRanking)]
    assert (failed, outcome.query_id, sorted(outcomes)) == (2, "q2", list(range(6)))


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"strategy": "iterative"}, 2),
        ({"strategy": "setwise", "window_size": 3}, 1),
        ({"strategy": "pointwise"}, 3),
        ({"strategy": "direct", "votes": 3}, 3),
        ({"strategy": "iterative", "max_calls": 2}, 2),
    ],
    ids=str,
)
def test_whatever_the_strategy_the_answers_of_others_are_kept(
    serve: Serve, tmp_path: Path, options: dict[str, Any], calls: int
) -> None:
    server = serve(refusing({1: FILTER}, "<think>a</think><answer>[1]</answer>"))
    made = []
    for _ in range(2):
        before = len(server.requests)
        with pytest.raises(FailedRankingsError) as caught:
            ranker_on(server, cache=tmp_path / "cache.sqlite", max_repair_rate=1.0, **options).rank(requests_of(4))
        assert sorted(caught.value.failed) == [1]
        assert sum(ranking is not None for ranking in caught.value.rankings) == 3
        made.append(len(server.requests) - before)
    assert made[0] >= 3 * calls + 1
    assert made[1] == 1


def test_a_cascade_goes_on_without_the_failed(serve: Serve) -> None:
    first, second = serve(refusing({1: FILTER})), serve(refusing({3: TOO_LONG}))
    cascade = Cascade(ranker_on(first), ranker_on(second), depth=3)
    with pytest.raises(FailedRankingsError, match="2 of 5 rankings failed") as caught:
        cascade.rank(requests_of(5))
    assert "content management policy" in str(caught.value.failed[1])
    assert "context length" in str(caught.value.failed[3])
    assert [ranking is not None for ranking in caught.value.rankings] == [True, False, True, False, True]
    # Backwards twice.
    assert all(ranking is None or ranking.order == (0, 1, 2) for ranking in caught.value.rankings)


def test_rerankers_hand_over_what_was_finished(serve: Serve) -> None:
    server = serve(refusing({1: FILTER}, "<think>a</think><answer>[1]</answer>"))
    reranker = IRankerReranker("m", backend="openai", base_url=server.base_url, max_retries=0)
    queries = [f"query number {number}." for number in range(3)]
    with pytest.raises(FailedRankingsError) as caught:
        reranker.rank_batch(queries, [["a", "b", "c"]] * 3)
    first, failed, last = caught.value.results
    assert failed is None
    assert [result.doc_id for result in first.results] == [result.doc_id for result in last.results] == [2, 1, 0]
    with pytest.raises(CallError):
        reranker.rank(queries[1], ["a", "b", "c"])


def test_a_query_beyond_the_context_stops_no_other(make_checkpoint: Any) -> None:
    limits = {"context_length": 600, "max_thought_tokens": 4}
    ranker = Ranker(make_checkpoint("chatml"), strategy="iterative", device="cpu", **limits)
    requests = requests_of(4)
    requests[2] = RankingRequest("a query of very many words " * 200, requests[2].candidates, query_id="long")
    with pytest.raises(FailedRankingsError, match="query 'long' does not fit") as caught:
        ranker.rank(requests)
    assert [ranking is not None for ranking in caught.value.rankings] == [True, True, False, True]
    assert isinstance(caught.value.failed[2], ContextLengthError)
    with pytest.raises(ContextLengthError):
        ranker.rank(requests[2:3])


# --- what concerns all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 402, 404])
def test_what_concerns_all_stops_early_and_keeps_what_was_paid_for(serve: Serve, tmp_path: Path, status: int) -> None:
    def reply(request: Request) -> Reply:
        return refusal(status, "no entry") if number_of(request) == 5 else completion(BACKWARDS)

    server = serve(reply)
    options = {"concurrency": 2, "batch_size": 8, "cache": tmp_path / "cache.sqlite"}
    with pytest.raises(BackendError, match=f"status {status}") as caught:
        ranker_on(server, **options).rank(requests_of(40))
    assert not isinstance(caught.value, CallError | FailedRankingsError)
    assert len(server.requests) < 20  # of 40, however busy the machine is
    finished = [ranking for ranking in caught.value.rankings if ranking is not None]
    assert len(finished) == len(server.requests) - 1
    with CompletionsCache(tmp_path / "cache.sqlite") as cache:
        assert cache.info().entries == len(finished)


def test_an_unreachable_server_stops_early() -> None:
    ranker = Ranker("m", strategy="direct", backend="openai", base_url="http://127.0.0.1:9/v1", max_retries=1)
    with pytest.raises(BackendError, match="could not be reached") as caught:
        ranker.rank(requests_of(500))
    assert not isinstance(caught.value, FailedRankingsError)


def test_when_all_are_refused_the_run_is_stopped(serve: Serve) -> None:
    server = serve(refusal(400, "unknown field chat_template_kwargs"))
    with pytest.raises(BackendError, match="the first 20 calls were all refused"):
        ranker_on(server, concurrency=1, batch_size=4).rank(requests_of(200))
    assert len(server.requests) <= 24


def test_a_server_that_breaks_down_on_the_way_stops_the_run(serve: Serve) -> None:
    server = serve(refusing(dict.fromkeys(range(5, 1000), refusal(500, "out of memory"))))
    with pytest.raises(BackendError, match=r"10 calls failed one after the other.*out of memory") as caught:
        ranker_on(server, concurrency=1, batch_size=4).rank(requests_of(200))
    assert len(server.requests) <= 20
    assert sum(ranking is not None for ranking in caught.value.rankings) == 5


# --- on the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A corpus of three documents, and a run of 31 queries over it."""
    documents = {f"d{place}": f"passage {place}" for place in range(3)}
    queries = {f"q{number}": f"query number {number}." for number in range(31)}
    folder = write_corpus(tmp_path / "collection", documents, queries)
    lines = (f"{query} Q0 d{place} {place + 1} {3 - place} bm25\n" for query in queries for place in range(3))
    (folder / "run.trec").write_text("".join(lines))
    return folder


def command(server: ScriptedServer, collection: Path, output: Path, *options: object) -> list[str]:
    words: list[object] = ["rerank", "--corpus", collection, "--run", collection / "run.trec", "--reranker", "m"]
    words += ["--strategy", "direct", "--backend", "openai", "--base-url", server.base_url, "--output", output]
    return [str(word) for word in (*words, *options)]


def test_a_run_goes_on_from_what_failed(serve: Serve, collection: Path, tmp_path: Path) -> None:
    server = serve(refusing({3: FILTER, 17: TOO_LONG}))
    output = tmp_path / "out.trec"
    words = command(server, collection, output, "--save-traces", tmp_path / "traces.jsonl", "--batch-size", 4)
    done = r1ranker(*words, code=1)
    for part in ("2 of 31 rankings failed", "query 'q3'", "content management policy", "query 'q17'", "4096"):
        assert part in done.output
    assert not output.exists()
    kept = read_run(Path(f"{output}.partial"))
    assert list(kept) == [f"q{number}" for number in range(31) if number not in (3, 17)]
    assert len(Path(tmp_path / "traces.jsonl.partial").read_text().splitlines()) == 29

    before = len(server.requests)
    server.behaviours = [refusing({17: TOO_LONG})]
    assert "1 of 31 rankings failed" in r1ranker(*words, code=1).output
    assert len(server.requests) == before + 2
    server.behaviours = [completion(BACKWARDS)]
    r1ranker(*words)
    assert len(server.requests) == before + 3
    whole = read_run(output)
    assert list(whole) == [f"q{number}" for number in range(31)]
    assert all([entry.doc_id for entry in entries] == ["d2", "d1", "d0"] for entries in whole.values())
    # What was finished before is in the whole files now.
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_keeps_the_answers_of_the_batch_under_way(
    serve: Serve, collection: Path, tmp_path: Path, own_cache: Path, sent: signal.Signals
) -> None:
    def reply(request: Request) -> Reply:
        # All of one batch: the last two never come.
        return Reply(completion(BACKWARDS).body, delay=300 if number_of(request) >= 29 else 0)

    server = serve(reply)
    words = command(server, collection, tmp_path / "out.trec", "--batch-size", 31)
    environment = {**os.environ, "R1RANKER_CACHE": str(own_cache), "OMP_NUM_THREADS": "1"}
    program = "from r1ranker_ir.cli.app import app; app()"
    # A shell that starts the tests in the background has them, and what they start, ignore SIGINT.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    arguments = [sys.executable, "-c", program, *words]
    with subprocess.Popen(arguments, env=environment, preexec_fn=heeding) as process:
        end = time.monotonic() + 120
        while time.monotonic() < end and stored(own_cache) < 29:
            time.sleep(0.05)
        process.send_signal(sent)
        assert process.wait(timeout=120) != 0
    assert stored(own_cache) == 29
    server.behaviours = [completion(BACKWARDS)]
    before = len(server.requests)
    r1ranker(*words)
    assert sorted(number_of(each) for each in server.requests[before:]) == [29, 30]


def stored(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with CompletionsCache(path) as cache:
            return cache.info().entries
    except R1RankerError:  # it is being made
        return 0


def test_fields_can_be_left_out_on_the_command_line(serve: Serve, collection: Path, tmp_path: Path) -> None:
    def strict(request: Request) -> Reply:
        refused = {"seed", "temperature"} & request.body.keys()
        return refusal(422, f"Extra inputs are not permitted: {refused}") if refused else completion(BACKWARDS)

    server = serve(strict)
    words = command(server, collection, tmp_path / "out.trec", "--queries", 1, "--no-cache")
    r1ranker(*words)
    for given in (["--leave-out", "seed,temperature"], ["--seed", "none", "--temperature", "none"]):
        before = len(server.requests)
        r1ranker(*words, *given)
        assert len(server.requests) == before + 1
    r1ranker(*words, "--seed", "none", "--temperature", "None")
    for option, value in (("--seed", "some"), ("--temperature", "-1"), ("--temperature", "nan"), ("--seed", "")):
        assert "or none" in r1ranker(*words, option, value, code=2).output
    local = ["rerank", "--corpus", "c", "--run", "r", "--reranker", "r1ranker-iterative-tiny", "--output", "o"]
    assert "only a server is asked without a seed" in r1ranker(*local, "--seed", "none", code=2).output
