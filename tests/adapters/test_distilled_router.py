"""Distilled routers: trained on questions whose words decide, used by name, and measured in a suite."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import r1ranker
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir import LLMProfile, Ranker, RoutingAdapter
from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.routing.observations import read_observations
from r1ranker_ir.data.request_files import read_requests
from r1ranker_ir.errors import CheckpointError, InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, read_settings
from r1ranker_ir.models.router import load_router
from r1ranker_ir.rankers.unsure import UnsureCascade, margin_of
from r1ranker_ir.training.trainers.distillation import Distillation
from r1ranker_ir.training.trainers.router import Observed, distil, repeated_in, soft_labels

LLMS = (
    LLMProfile("chat", 0.1, 0.1, "short chats", "7B"),
    LLMProfile("proof", 0.9, 0.9, "proves theorems", "70B"),
    LLMProfile("code", 0.3, 0.4, "writes programs", "13B"),
)
BEGINNINGS = {"chat": "Tell a friend about", "proof": "Prove the theorem of", "code": "Write a program for"}
THINGS = "numbers groups waves rings trees graphs lists words letters colours rivers mountains".split()


def made_questions(count: int, seed: int) -> list[dict[str, Any]]:
    """Whom the question is for has effect 1, the others 0 or, by chance, 1; what it is about tells nothing."""
    drawing, rows = random.Random(seed), []
    for number in range(count):
        best = drawing.choice(LLMS).name
        things = " and ".join(drawing.sample(THINGS, 2))
        effects = {llm.name: float(llm.name == best or drawing.random() < 0.1) for llm in LLMS}
        rows.append({"query": f"{BEGINNINGS[best]} {things} {number + 1000 * seed}", "effect": effects, "tag": best})
    return rows


def run(*arguments: str | Path, code: int = 0) -> str:
    return str(r1ranker(*arguments, code=code, width=80).output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Requests for training and test, of which one question is in both, and the router."""
    folder = tmp_path_factory.mktemp("routing")
    training, test = made_questions(120, 1), made_questions(40, 2)
    test[0] = {**test[0], "query": training[0]["query"]}
    fields = ("name", "price_in", "price_out", "description", "size")
    (folder / "llms.json").write_text(json.dumps([{name: getattr(llm, name) for name in fields} for llm in LLMS]))
    for name, rows in (("train", training), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        made = ("--source", folder / f"{name}.jsonl", "--output", folder / f"route-{name}.jsonl")
        run("data", "routing", *made, "--fit", folder / "train.jsonl")
    told = run(
        *("train", "router", folder / "route-train.jsonl", "--held-out", folder / "route-test.jsonl"),
        *("--output", folder / "router"),
    )
    (folder / "said.txt").write_text(told)
    return folder


@pytest.fixture(scope="module")
def route(folder: Path) -> RoutingAdapter:
    return RoutingAdapter(folder / "router", llms=LLMS)


def test_words_decide(route: RoutingAdapter) -> None:
    for name, beginning in BEGINNINGS.items():
        question = f"{beginning} islands"
        assert route.choose(question).name == name
        assert {route.choose(question), *route.fallbacks(question)} == set(LLMS)
    ranking = route.rank("Prove the theorem of rings")
    [step] = ranking.steps
    assert sum(step.probabilities.values()) == pytest.approx(1) and margin_of(ranking) > 0.1
    assert route.summary.usage.prompt_tokens == route.summary.usage.completion_tokens == 0
    questions = [f"{beginning} {thing}" for beginning in BEGINNINGS.values() for thing in THINGS]
    together = [ranking.order for ranking in route.rank_all(questions)]
    assert together == [route.rank(question).order for question in questions]


def test_what_the_command_says_and_the_folder_records(folder: Path) -> None:
    said = (folder / "said.txt").read_text()
    assert "1 questions that are held out as well are left out" in said
    assert "1 questions were observed in both files" in said
    assert "119 questions, 3 language models" in said
    assert {path.name for path in (folder / "router").iterdir()} == {
        *("router.json", "router.npz", "r1ranker.json", "README.md")
    }
    settings = read_settings(folder / "router")
    training = settings.training
    assert settings.strategies == ("direct",) and training["method"] == "router" and training["seed"] == 0
    assert [each["name"] for each in training["data"] + training["held_out"]] == [
        "route-train.jsonl",
        "route-test.jsonl",
    ]
    assert training["after"]["utility"] > training["before"]["utility"] + 0.3
    assert {"temperature", "strength", "tag_share"} <= set(training["arguments"])
    assert "scikit-learn" in training["libraries"]


def test_the_same_data_give_the_same_router(folder: Path, tmp_path: Path) -> None:
    again = ("train", "router", folder / "route-train.jsonl", "--held-out", folder / "route-test.jsonl")
    run(*again, "--output", tmp_path / "again")
    for name in ("router.json", "router.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "router" / name).read_bytes()
    assert "add --overwrite" in run(*again, "--output", tmp_path / "again", code=1)
    assert "holds other files" in run(*again, "--output", folder, code=1)


def test_an_encoder_beside_the_words_or_alone(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "route-train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "some.jsonl").write_text("".join(lines[:40]))
    for terms in ("100", "0"):
        named = ("--encoder", TINY_CHECKPOINT, "--most-terms", terms, "--folds", "2")
        run("train", "router", tmp_path / "some.jsonl", *named, "--output", tmp_path / terms)
        router = load_router(tmp_path / terms)
        assert len(router.vocabulary) <= int(terms) < len(router.weights) + 1
        assert RoutingAdapter(tmp_path / terms, llms=LLMS).choose("Write a program for islands").name == "code"


def test_a_cascade_asks_the_ranker_where_the_router_is_unsure(folder: Path) -> None:
    questions = ["Prove the theorem of rings", "islands", "Write a program for trees"]
    gains = {"": {"chat": 0.0, "code": 1.0, "proof": 2.0}}
    ranker = Ranker("oracle", strategy="iterative", backend="oracle", gains=gains)
    sure, never, always = (
        RoutingAdapter(folder / "router", llms=LLMS, unsure=ranker, margin=margin) for margin in (0.1, 0.0, 1.0)
    )
    alone = RoutingAdapter(folder / "router", llms=LLMS).rank_all(questions)
    asked = ranker.rank([sure.request(question) for question in questions])
    orders = [each.order for each in alone]
    assert [each.order for each in never.rank_all(questions)] == orders
    assert [each.order for each in always.rank_all(questions)] == [each.order for each in asked]
    rankings = sure.rank_all(questions)
    assert [len(each.steps) for each in rankings] == [1, 1 + len(LLMS) - 1, 1]
    assert [each.order for each in rankings] == [orders[0], asked[1].order, orders[2]]
    assert asyncio.run(sure.order_async("islands")) == sure.order("islands")
    assert sure.summary.queries == 5  # each once, whoever was asked
    with pytest.raises(InputError, match="margin is 2"):
        RoutingAdapter(folder / "router", llms=LLMS, unsure=ranker, margin=2)
    with pytest.raises(InputError, match="tells no probabilities"):
        margin_of(replace(asked[0], steps=()))
    assert isinstance(sure.ranker, UnsureCascade)


def test_a_suite_shows_router_and_cascade_beside_the_ranker(folder: Path, tmp_path: Path) -> None:
    command = (
        *("suite", folder / "route-test.jsonl", "--reranker", "r1ranker-direct-tiny", "--no-cache"),
        *("--router", folder / "router", "--output", tmp_path),
    )
    first = ("--queries", "4")
    said = run(*command, *first, "--margin", "1")
    assert "milliseconds a request: router" in said
    choices = json.loads((tmp_path / "measures.json").read_text())[0]["first_choice"]
    router, both = choices["baselines/router.trec"], choices["baselines/router-then-ranker.trec"]
    assert router["utility"] > choices["baselines/best-single.trec"]["utility"]
    oracle = choices["baselines/oracle.trec"]
    assert router["regret"] == pytest.approx(oracle["utility"] - router["utility"]) and oracle["regret"] == 0
    assert both == choices["reranked.trec"]
    report = (tmp_path / "README.md").read_text()
    assert "The router was unsure of 4 of 4 requests (100.0%)." in report
    assert "| router; r1ranker-direct-tiny below margin 1 (here) |" in report
    assert "less that of the best single, with 95% intervals: router +0." in report
    # The router's folder is a ranker as well.
    run("suite", folder / "route-test.jsonl", "--reranker", folder / "router", *first, "--output", tmp_path / "alone")
    alone = json.loads((tmp_path / "alone/measures.json").read_text())[0]["first_choice"]
    assert alone["reranked.trec"] == router
    assert "is not the folder of a router" in run(*command[:-3], tmp_path, "--output", tmp_path / "no", code=1)


def test_tags_travel_from_observations_to_requests(folder: Path, tmp_path: Path) -> None:
    tags = [row["tag"] for row in map(json.loads, (folder / "train.jsonl").read_text().splitlines())]
    assert [judged.tag for judged in read_requests(folder / "route-train.jsonl")] == tags
    table = tmp_path / "long.csv"
    table.write_text("query,llm,effect,tag\nq,chat,1,history\nq,code,0,history\n")
    assert [each.tag for each in read_observations(table, Problems())] == ["history"]


UTILITIES = st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=8)


@given(UTILITIES, st.data(), st.floats(0.05, 5), st.floats(0, 1))
def test_labels_are_distributions(rows: list[list[float]], data: Any, temperature: float, share: float) -> None:
    utilities = np.array(rows)
    tags = data.draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=len(rows), max_size=len(rows)))
    labels = soft_labels(utilities, tags, temperature, share)
    assert labels.sum(axis=1) == pytest.approx(1) and (labels >= 0).all()
    own = soft_labels(utilities, [""] * len(rows), temperature, share)
    assert own.sum(axis=0) == pytest.approx(labels.sum(axis=0))
    untagged = [place for place, tag in enumerate(tags) if not tag]
    assert (labels[untagged] == own[untagged]).all()
    assert (np.take_along_axis(own, utilities.argmax(axis=1)[:, None], 1)[:, 0] >= own.max(axis=1) - 1e-12).all()
    whole = soft_labels(utilities, ["a"] * len(rows), temperature, 1.0)
    assert whole == pytest.approx(np.tile(own.mean(axis=0), (len(rows), 1)))


def test_questions_observed_twice() -> None:
    def observed(*rows: tuple[str, float, float]) -> Observed:
        return Observed(
            tuple(row[0] for row in rows), ("",) * len(rows), ("a", "b"), np.array([row[1:] for row in rows])
        )

    first = observed(("p", 0, 1), ("q", 1, 1), ("r", 1, 0))
    again = replace(observed(("q", 0, 0.5), ("p", 0, 1), ("s", 1, 1)), llms=("b", "a"))
    found = repeated_in(first, again, "b")
    assert (found.questions, found.single, found.foreseen, found.oracle) == (2, 0.0, 0.125, 0.75)
    assert repeated_in(first, observed(("t", 0, 1)), "a") is None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("router.json", "{", "not valid JSON"),
        ("router.json", '{"llms": [], "vocabulary": []}', "llms"),
        ("router.json", '{"llms": ["a"], "vocabulary": ["x"]}', "does not fit the 1 terms and 1 models"),
        ("router.npz", "no archive", "can't be read"),
    ],
)
def test_folders_that_are_broken(folder: Path, tmp_path: Path, file: str, content: str, said: str) -> None:
    for path in (folder / "router").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=said):
        RoutingAdapter(tmp_path, llms=LLMS)


def test_pickles_are_not_opened(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "router").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    np.savez(tmp_path / "router.npz", idf=np.array([{}]), weights=np.zeros((1, 3)), intercepts=np.zeros(3))
    with pytest.raises(CheckpointError, match="allow_pickle=False"):
        load_router(tmp_path)


def test_what_a_router_does_not_know(folder: Path, route: RoutingAdapter) -> None:
    stranger = RoutingAdapter(folder / "router", llms=[*LLMS, LLMProfile("new", 1, 1)])
    with pytest.raises(InputError, match=r"knows no language model 'new'.*chat, code, proof"):
        stranger.choose("Write a program")
    with pytest.raises(CheckpointError, match="does not follow the strategy 'pointwise'"):
        RoutingAdapter(folder / "router", llms=LLMS, strategy="pointwise")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperatures": ()}, "temperatures is"),
        ({"strengths": (0.0,)}, "strengths is"),
        ({"tag_share": 2}, "tag_share is 2"),
        ({"folds": 1}, "folds is 1"),
        ({"most_terms": 0}, "most_terms is 0"),
    ],
)
def test_distillations_that_make_no_sense(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Distillation(**changes)


def test_questions_that_can_not_be_learned_from(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "route-train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:12]]
    rows[3]["candidates"].pop()
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        for candidate in row["candidates"]:
            candidate.pop("values")
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "few.jsonl").write_text("\n".join(lines[:3]) + "\n")
    for name, said in (("other", "other language models"), ("plain", "no utilities"), ("few", "at least two a fold")):
        told = run("train", "router", tmp_path / f"{name}.jsonl", "--output", tmp_path / "out", code=1)
        assert said in " ".join(told.split())
    with pytest.raises(InputError, match="the only language model"):
        distil(Observed(("a b",) * 20, ("",) * 20, ("x",), np.zeros((20, 1))), Distillation())
