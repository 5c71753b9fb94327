"""Routing's data: profiles, objectives, observations, utilities, and the ranking requests that are made of them."""

from __future__ import annotations

import gzip
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from commands import r1ranker
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir import LLMProfile
from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.routing.objectives import Objective, objective_of
from r1ranker_ir.adapters.routing.observations import Observation, read_observations
from r1ranker_ir.adapters.routing.profiles import read_profiles
from r1ranker_ir.adapters.routing.protocol import RoutingProtocol
from r1ranker_ir.adapters.routing.requests import observed_llms, outcomes, routing_requests
from r1ranker_ir.data.request_files import JudgedRequest, read_requests
from r1ranker_ir.errors import DataFileError, InputError

SMALL = LLMProfile("small", 0.1, 0.2, "quick", "7B")
BIG = LLMProfile("big", 1.0, 4.0, "proves things", "8x22B")


def saved(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def json_lines(path: Path, *rows: Any) -> Path:
    return saved(path, "".join(json.dumps(row) + "\n" for row in rows))


def observed(path: Path) -> list[Observation]:
    return [replace(observation, where="") for observation in read_observations(path, Problems())]


# --- profiles ------------------------------------------------------------------------------------------------------


def test_a_profile_says_first_what_tells_it_apart() -> None:
    assert BIG.text == "big, 8x22B, $1/$4 per million tokens: proves things"
    assert LLMProfile("free", 0, 0).text == "free, $0/$0 per million tokens"
    assert LLMProfile("unknown", size="7B").text == "unknown, 7B"
    assert SMALL.candidate().id == "small" and SMALL.candidate().text == SMALL.text


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("7B", 7e9), ("8x22B", 176e9), ("0.5b", 5e8), ("350M", 35e7), ("1.5 T", 1.5e12), ("", None), ("large", None)],
)
def test_parameters_of_a_size(size: str, parameters: float | None) -> None:
    assert LLMProfile("a", 0, 0, size=size).parameters == parameters


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": " "}, "name is ' '"),
        ({"name": 3}, "name is 3: a text"),
        ({"description": None}, "description is None: a text"),
        ({"size": 8}, "size is 8: a text"),
        ({"price_in": -1.0}, "price_in is -1.0: dollars"),
        ({"price_in": None}, "price_in is None: dollars"),
        ({"price_in": "0.2"}, "price_in is '0.2': dollars"),
        ({"price_out": math.nan}, "price_out is nan: dollars"),
        ({"price_out": True}, "price_out is True: dollars"),
    ],
)
def test_a_profile_that_makes_no_sense(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        replace(SMALL, **changes)


def test_profiles_read_the_same_of_every_format(tmp_path: Path) -> None:
    rows = [asdict(llm) for llm in (SMALL, BIG)]
    named = {"price_in": "input_price", "price_out": "output_price", "description": "feature", "size": "size"}
    by_name = {row["name"]: {other: row[key] for key, other in named.items()} | {"service": "x"} for row in rows}
    table = "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])
    for name, content in (("list.json", rows), ("by-name.json", by_name), ("table.csv", table)):
        assert read_profiles(saved(tmp_path / name, content)) == (SMALL, BIG), name


ROW = {"name": "a", "price_in": 1, "price_out": 2}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("llms.json", [], "holds no language model"),
        ("llms.json", 3, "a JSON int where a list or an object"),
        ("llms.json", "[", "not valid JSON"),
        ("llms.json", [3], r"llms.json\[0\]: the record is 3: give an object with name, price_in"),
        ("llms.json", [ROW, ROW], "'a' more than once"),
        ("llms.json", [ROW | {"price_in": "1"}], r"llms.json\[0\]: field 'price_in' is '1': give a number"),
        ("llms.json", [ROW | {"price_in": True}], "field 'price_in' is True: give a number"),
        ("llms.json", [ROW | {"price_in": -1}], "field 'price_in' is -1: give at least 0"),
        ("llms.json", [ROW | {"size": 7}], "field 'size' is 7: give a text"),
        ("llms.json", {"a": {"price_in": 1}}, r"llms.json: 'a': field 'price_out' is missing: give it"),
        ("llms.csv", "name,price_in,price_out\na,1,\n", "llms.csv:2: field 'price_out' is missing"),
        ("llms.csv", "name,price_in,price_out\na,1,cheap\n", "llms.csv:2: field 'price_out' is 'cheap': it must be a"),
        ("llms.csv", "name,price_in,price_out\na,1,inf\n", "llms.csv:2: field 'price_out' is 'inf': give a finite"),
        ("llms.csv", "name,price_in\na,1,2\n", "llms.csv:2: unequal columns: 3 cells for 2 columns"),
        ("llms.csv", "name,name\n", "llms.csv:1: column 'name'"),
        ("llms.csv", "", "no header"),
        ("llms.txt", "a", "its ending is unknown"),
    ],
)
def test_profiles_that_can_not_be_used(tmp_path: Path, name: str, content: Any, said: str) -> None:
    with pytest.raises(InputError, match=r"'none\.json' does not exist"):
        read_profiles("none.json")
    with pytest.raises(InputError, match=said):
        read_profiles(saved(tmp_path / name, content))


# --- objectives ----------------------------------------------------------------------------------------------------


def test_objectives() -> None:
    assert objective_of("cost") == Objective(0.2, 0.8, "a low cost above all, then a good answer")
    assert objective_of((1, 4)).aim == objective_of("cost").aim
    assert objective_of("0.7, 0.3") == objective_of((0.7, 0.3))
    assert objective_of((0.7, 0.3)).aim == "a good answer and a low cost, weighed 0.7 to 0.3"
    assert objective_of((0, 2)).aim == "the lowest cost"
    assert str(objective_of("balance")) == "0.5 × effect − 0.5 × cost"
    assert objective_of(Objective(1, 2, "x")).aim == "x"


@pytest.mark.parametrize(
    "given", ["speed", "1,2,3", "a,b", (1,), 3, None, (0, 0), (-1, 1), (1, math.inf), (math.nan, 1)]
)
def test_objectives_that_make_no_sense(given: Any) -> None:
    with pytest.raises(InputError, match="objective"):
        objective_of(given)


# --- observations --------------------------------------------------------------------------------------------------

QUESTIONS = [
    Observation("two\nlines, 1 + 1?", "q1", {"small": 0.5, "big": 1.0}, {"small": 0.1, "big": 2.0}),
    Observation("naïve?", "q2", {"small": 1.0, "big": 0.0}, {"small": 0.3, "big": 1.0}),
]


def test_every_form_reads_the_same(tmp_path: Path) -> None:
    wide, answers, wide_rows = [], [], []
    for row in QUESTIONS:
        effects, costs = row.effects, row.costs or {}
        wide.append({"id": row.query_id, "query": row.query, "effect": effects, "cost": costs})
        wide_rows.append(
            f'"{row.query}",{row.query_id},{effects["small"]},{effects["big"]},{costs["big"]},{costs["small"]},x'
        )
    for name in ("small", "big"):  # the answers to a question do not lie together
        for row in wide:
            of_one = {"llm": name, "effect": row["effect"][name], "cost": row["cost"][name]}
            answers.append({"id": row["id"], "query": row["query"]} | of_one)
    long_rows = [f'{row["id"]},"{row["query"]}",{row["llm"]},{row["effect"]},{row["cost"]}' for row in answers]
    header = "prompt,sample_id,small,big,big|total_cost,small|cost,big|model_response"
    table = "\n".join([header, *wide_rows, "", " , "])
    packed = tmp_path / "wide.csv.gz"
    packed.write_bytes(gzip.compress(table.encode()))
    for file in [
        packed,
        json_lines(tmp_path / "wide.jsonl", *wide),
        json_lines(tmp_path / "long.jsonl", *answers),
        saved(tmp_path / "long.csv", "\ufeff" + "\n".join(["id,question,model,effect,cost", *long_rows])),
        saved(tmp_path / "wide.csv", table),
        saved(tmp_path / "wide.tsv", table.replace(",", "\t").replace("lines\t", "lines,")),
    ]:
        assert observed(file) == QUESTIONS, file.name


def test_questions_without_an_id_are_named_by_their_line(tmp_path: Path) -> None:
    wide = saved(tmp_path / "wide.csv", 'query,a\n"x\ny",1\nz,0\n')
    assert [(question.query_id, question.query) for question in observed(wide)] == [("3", "x\ny"), ("4", "z")]
    long = saved(tmp_path / "long.csv", "query,llm,effect\nx,a,1\ny,a,1\ny,b,1\nx,b,0\n")
    assert [(question.query_id, question.effects) for question in observed(long)] == [
        ("2", {"a": 1.0, "b": 0.0}),
        ("3", {"a": 1.0, "b": 1.0}),
    ]


def test_counts_of_tokens(tmp_path: Path) -> None:
    row = {"query": "q", "effect": {"a": 1, "b": 0}, "input_tokens": 7, "output_tokens": {"a": 1, "b": 2}}
    [question] = observed(json_lines(tmp_path / "o.jsonl", row))
    assert question.input_tokens == {"a": 7, "b": 7} and question.output_tokens == {"a": 1, "b": 2}
    assert question.costs is None


GOOD = {"query": "q", "effect": {"a": 1, "b": 0}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"effect": {"a": 1}}, "no question: query is None"),
        (GOOD | {"query": " "}, "a blank question"),
        (GOOD | {"query": 3}, "no question: query is 3"),
        (GOOD | {"id": True}, "not an id: True"),
        ({"query": "q"}, "no effects: effect is None"),
        (GOOD | {"effect": 0.5}, "no effects: effect is 0.5"),
        (GOOD | {"effect": {}}, "no effect of a language model"),
        (GOOD | {"effect": {"a": 1}}, "no effect of a language model: 'b', which other questions have"),
        (GOOD | {"effect": {"a": 1, "b": None}}, "no effect of a language model: that of 'b' is None"),
        (GOOD | {"effect": {"a": 1, "b": "good"}}, "effect is no number: that of 'b' is 'good'"),
        (GOOD | {"effect": {"a": 1, "b": True}}, "effect is no number: that of 'b' is True"),
        (GOOD | {"effect": {"a": 1, "b": math.nan}}, "effect is no number: that of 'b' is nan"),
        (GOOD | {"cost": {"a": 1, "b": -2}}, "cost below 0: that of 'b' is -2"),
        (GOOD | {"cost": {"a": 1}}, "cost and effect of different language models: 'b'"),
        (GOOD | {"input_tokens": -1}, "input_tokens below 0: that of 'a' is -1"),
        ([1], "not a JSON object: a JSON list"),
    ],
)
def test_a_question_that_can_not_be_used(tmp_path: Path, row: Any, said: str) -> None:
    path = json_lines(tmp_path / "o.jsonl", GOOD, row, GOOD)
    with pytest.raises(DataFileError) as caught:
        read_observations(path, Problems())
    assert f"o.jsonl:2: {said}" in str(caught.value) and "--on-error skip" in str(caught.value)
    problems = Problems("skip")
    assert [question.query_id for question in read_observations(path, problems)] == ["1", "3"]
    assert problems.counts == {said.partition(":")[0]: 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,query,llm,effect\n1,q,a,1\n1,other,b,1\n", "o.csv:3: one id of two questions"),
        ("query,llm,effect\nq,a,1\nq,a,0\n", "o.csv:3: an answer given twice: of 'a'"),
        ("query,llm,effect\nq,,1\n", "o.csv:2: no language model: llm is ''"),
        ("query,llm,effect\nq,a,\n", "o.csv:2: no effect of a language model: that of 'a' is None"),
        ("query,a,b\nq,1\n", "o.csv:2: unequal columns: 2 cells for 3 columns"),
        ("query,a,b\nq,1,\nr,1,1\n", "o.csv:2: no effect of a language model: that of 'b' is ''"),
        ("query,a,eval_name\nq,1,mmlu\n", "o.csv:2: effect is no number: that of 'eval_name' is 'mmlu'"),
        ("query,a,a|cost\nq,1,-1\n", "o.csv:2: cost below 0: that of 'a' is '-1'"),
        ("id,query,a\n7,q,1\n7,r,1\n", "o.csv:3: an id given twice: '7'"),
        ("query,llm,effect,cost\nq,a,1,1\nr,a,1,1\nq,b,1,-3\n", "o.csv:4: cost below 0: that of 'b' is '-3'"),
        ("query,llm,effect\nq,a,1\nr,a,1\nq,b,high\n", "o.csv:4: effect is no number: that of 'b' is 'high'"),
        ("a,b\n1,1\n", "o.csv:1: no column 'query': the columns are a, b"),
        ('query,a\n"q,1\n', "o.csv: damaged"),
        ("query,a\n", "o.csv: no question is left"),
    ],
)
def test_a_table_that_can_not_be_used(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataFileError) as caught:
        read_observations(saved(tmp_path / "o.csv", content), Problems())
    assert said in str(caught.value)


def test_a_question_with_one_unfit_answer_is_left_out_whole(tmp_path: Path) -> None:
    path = saved(tmp_path / "o.csv", "query,llm,effect\nq,a,1\nq,a,0\nr,a,1\n")
    problems = Problems("skip")
    assert [question.query for question in read_observations(path, problems)] == ["r"]
    assert problems.line() == "1 rows left out (1 × an answer given twice)"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("o.txt", b"q", "its ending is unknown"),
        ("o.csv", "query,a\nna\xefve,1\n".encode("latin-1"), "not UTF-8"),
        ("o.csv", None, "does not exist"),
    ],
)
def test_observations_that_can_not_be_read(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        observed(tmp_path / name)


def test_what_is_not_used_or_beyond_the_scale_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        observed(saved(tmp_path / "o.csv", "query,a,a|model_response\nq,1,text\n"))
        observed(saved(tmp_path / "long.csv", "query,llm,effect,costs\nq,a,1,2\n"))
        observed(json_lines(tmp_path / "o.jsonl", {"query": "q", "effect": {"a": 95}, "price": {"a": 1}}))
    for said in ("o.csv: not used: a|model_response", "long.csv: not used: costs", "o.jsonl: not used: price"):
        assert said in caplog.text
    assert "effects go from 95 to 95, while costs go from 0 to 1" in caplog.text


# --- utilities and requests ----------------------------------------------------------------------------------------


def test_costs_of_prices_and_tokens() -> None:
    tokens = {"input_tokens": {"small": 1000, "big": 500}, "output_tokens": {"small": 100, "big": 50}}
    [counted] = outcomes([replace(QUESTIONS[0], costs=None, **tokens)], (SMALL, BIG), objective_of("balance"))
    small, big = (1000 * 0.1 + 100 * 0.2) / 1e6, (500 * 1.0 + 50 * 4.0) / 1e6
    assert counted.costs == pytest.approx((small / big, 1))
    assert counted.utilities == pytest.approx((0.5 * 0.5 - 0.5 * small / big, 0.5 * 1 - 0.5))

    # "naïve?" has 7 bytes.
    [assumed] = outcomes(
        [replace(QUESTIONS[1], costs=None)], (SMALL, BIG), objective_of("cost"), RoutingProtocol(output_tokens=10)
    )
    assert assumed.costs[0] == pytest.approx((7 / 4 * 0.1 + 10 * 0.2) / (7 / 4 * 1.0 + 10 * 4.0))


def test_scales_of_cost() -> None:
    def costs(scale: Any, questions: list[Observation] = QUESTIONS) -> list[tuple[float, ...]]:
        return [each.costs for each in outcomes(questions, (SMALL, BIG), objective_of("cost"), RoutingProtocol(scale))]

    assert costs("question") == [pytest.approx((0.05, 1)), pytest.approx((0.3, 1))]
    assert costs("file") == [pytest.approx((0.05, 1)), pytest.approx((0.15, 0.5))]
    free = [replace(QUESTIONS[0], costs={"small": 0, "big": 0})]
    assert costs("question", free) == costs("file", free) == [(0, 0)]
    mixed = [replace(QUESTIONS[0], where="o:1"), replace(QUESTIONS[1], costs=None, where="o:2")]
    assert len(costs("question", mixed)) == 2
    with pytest.raises(InputError, match="o:1 gives costs and o:2 does not"):
        costs("file", mixed)


def of(judged: JudgedRequest, column: tuple[float, ...]) -> dict[str, float]:
    return {candidate.id: number for candidate, number in zip(judged.request.candidates, column, strict=True)}


def test_a_request() -> None:
    first, second = routing_requests(QUESTIONS, (SMALL, BIG), objective_of("balance"), source="router")
    assert first.request.query == QUESTIONS[0].query and first.request.query_id == "q1" and first.source == "router"
    assert first.request.task == "model" and first.request.aim == "a good answer and a low cost, both alike"
    assert {candidate.text for candidate in first.request.candidates} == {SMALL.text, BIG.text}
    assert of(first, first.values["utility"]) == {"small": 0.225, "big": 0.0}
    assert of(first, first.values["cost"]) == {"small": 0.05, "big": 1.0}
    assert of(first, first.values["effect"]) == dict(QUESTIONS[0].effects)
    assert of(first, first.gains) == {"small": 1.0, "big": 0.0}
    assert set(first.scores) == {"oracle", "cheapest", "largest", "best single (in hindsight)"}
    assert of(first, first.scores["largest"]) == {"small": 7e9, "big": 176e9}
    assert of(first, first.scores["cheapest"]) == {"small": -0.05, "big": -1.0}
    assert of(second, second.scores["best single (in hindsight)"]) == {"small": (0.225 + 0.35) / 2, "big": -0.25}


def test_the_best_single_one_is_found_on_other_questions() -> None:
    fit = [Observation("other", "o", {"small": 0.0, "big": 1.0, "third": 1.0})]
    [judged] = routing_requests(QUESTIONS[:1], (SMALL, BIG), objective_of("performance"), fit=fit)
    assert of(judged, judged.scores["best single"]) == {"small": 0.0, "big": 1.0}
    assert "best single (in hindsight)" not in judged.scores
    for unfit in ([], [Observation("other", "o", {"small": 0.0})]):
        with pytest.raises(InputError, match="fit has no effects"):
            list(routing_requests(QUESTIONS, (SMALL, BIG), objective_of("cost"), fit=unfit))


def test_profiles_and_effects_have_to_meet(caplog: pytest.LogCaptureFixture) -> None:
    assert observed_llms(QUESTIONS, (LLMProfile("idle", 1, 1), BIG, SMALL)) == (BIG, SMALL)
    assert "profiles without effects are left out: idle" in caplog.text
    with pytest.raises(InputError, match="effects of 'big', but no profile"):
        observed_llms(QUESTIONS, (SMALL,))
    with pytest.raises(InputError, match="no questions"):
        observed_llms([], (SMALL,))
    [judged] = routing_requests(QUESTIONS[:1], (replace(SMALL, size=""), BIG), objective_of("cost"))
    assert "largest" not in judged.scores


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[LLMProfile], list[Observation]]:
    numbers = st.floats(0, 1, allow_subnormal=False)
    llms = [LLMProfile(f"m{place}", draw(numbers), draw(numbers)) for place in range(draw(st.integers(1, 5)))]
    effects = st.fixed_dictionaries({llm.name: st.sampled_from([0.0, 0.1, 0.3, 1.0]) for llm in llms})
    rows = [Observation("what?", str(number), draw(effects)) for number in range(draw(st.integers(1, 4)))]
    return llms, rows


@given(questions(), st.floats(0, 1), st.integers(0, 3))
def test_what_holds_for_every_request(
    drawn: tuple[list[LLMProfile], list[Observation]], weight: float, seed: int
) -> None:
    llms, rows = drawn
    objective = objective_of((weight, 1 - weight))
    made = list(routing_requests(rows, llms, objective, RoutingProtocol(seed=seed)))
    assert [judged.request.query_id for judged in made] == [row.query_id for row in rows]
    for judged, row in zip(made, rows, strict=True):
        effects, costs = of(judged, judged.values["effect"]), of(judged, judged.values["cost"])
        utilities, gains = of(judged, judged.values["utility"]), of(judged, judged.gains)
        assert effects == dict(row.effects)
        assert all(0 <= cost <= 1 for cost in costs.values()) and max(costs.values()) in (0, 1)
        for name, utility in utilities.items():
            assert utility == pytest.approx(weight * effects[name] - (1 - weight) * costs[name], abs=2e-6)
        assert set(gains.values()) >= {0.0, 1.0} or set(gains.values()) == {0.0}
        for one in gains:
            for other in gains:
                assert utilities[one] <= utilities[other] or gains[one] >= gains[other]
        assert judged.scores["oracle"] == judged.values["utility"]
    # Neither other questions nor their order change what is drawn for one.
    backwards = list(routing_requests(rows[::-1], llms, objective, RoutingProtocol(seed=seed)))[::-1]
    assert [judged.request for judged in backwards] == [judged.request for judged in made]


def test_the_order_of_candidates_tells_nothing() -> None:
    llms = [LLMProfile(name, 1, 1) for name in "abcd"]
    rows = [Observation("q", str(number), dict.fromkeys("abcd", 0.0)) for number in range(400)]
    firsts = [judged.request.candidates[0].id for judged in routing_requests(rows, llms, objective_of("cost"))]
    assert all(70 < firsts.count(name) < 130 for name in "abcd")


# --- the command line ----------------------------------------------------------------------------------------------


def routing(*arguments: Any, code: int = 0) -> str:
    result = r1ranker("data", "routing", *arguments, code=code)
    assert result.stdout == ""
    return " ".join(result.stderr.split())


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    llms = [{"name": llm.name, "price_in": llm.price_in, "price_out": llm.price_out} for llm in (SMALL, BIG)]
    saved(tmp_path / "llms.json", llms)
    saved(tmp_path / "router.csv", "query,small,big\nx,1,1\ny,0,1\nz,0,\n")
    return tuple(f"--{name}={tmp_path / file}" for name, file in (("source", "router.csv"), ("llms", "llms.json")))


def test_the_command(files: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "route.jsonl"
    said = routing(*files, "--output", output, "--on-error", "skip")
    assert "left out: " in said and "router.csv:4: no effect of a language model" in said
    assert "all language models are worth the same on 1 of 2 questions (50.0%)" in said
    assert "tokens were not counted for 2 questions" in said and "256 out" in said
    assert "utility: 1 × effect − 0 × cost, cost 1 being the dearest of the question" in said
    assert "route.jsonl: 2 questions, 2 language models, 1 rows left out (1 × no effect of a language model)" in said
    made = list(read_requests(output))
    assert [judged.request.query for judged in made] == ["x", "y"] and not made[0].best
    assert {judged.source for judged in made} == {"router-performance"}

    fit = json_lines(tmp_path / "fit.jsonl", {"query": "w", "effect": {"small": 1, "big": 0}, "cost": 1})
    more = ("--on-error", "skip", "--objective", "0.3,0.7", "--fit", fit, "--seed", 5)
    said = routing(*files, "--output", output, *more)
    assert "utility: 0.3 × effect − 0.7 × cost" in said
    assert {judged.source for judged in read_requests(output)} == {"router-0.3,0.7"}
    for judged in read_requests(output):
        assert of(judged, judged.scores["best single"]) == pytest.approx({"small": 0.3 - 0.7, "big": -0.7})


def test_profiles_beside_the_source_and_no_profiles_at_all(tmp_path: Path) -> None:
    source, output = saved(tmp_path / "router.csv", "query,small,big\nx,0,1\n"), tmp_path / "route.jsonl"
    given = ("--source", source, "--output", output)
    assert "profiles: names alone" in routing(*given)
    [judged] = read_requests(output)
    assert of(judged, judged.values["utility"]) == {"small": 0.0, "big": 1.0}
    assert set(judged.values) == {"effect", "utility", "regret"} and "cheapest" not in judged.scores
    assert "router.csv:2: costs count, but are neither given" in routing(*given, "--objective", "cost", code=1)

    saved(source, "query,small,big,small|cost,big|cost\nx,0,1,2,4\n")
    routing(*given, "--objective", "cost")
    [judged] = read_requests(output)
    assert of(judged, judged.values["utility"]) == pytest.approx({"small": -0.4, "big": -0.6})

    profiles = saved(tmp_path / "llms.csv", "name,price_in,price_out\nsmall,1,1\nbig,4,4\n")
    saved(source, "query,small,big\nx,0,1\n")
    assert f"profiles: {profiles}" in routing(*given, "--objective", "cost")
    [judged] = read_requests(output)
    assert of(judged, judged.values["utility"]) == pytest.approx({"small": -0.2, "big": -0.6})


def test_the_command_refuses(files: tuple[str, ...], tmp_path: Path) -> None:
    output = ("--output", tmp_path / "route.jsonl")
    assert "router.csv:4: no effect of a language model: that of 'big' is ''" in routing(*files, *output, code=1)
    assert not output[1].exists()
    assert "objective is 'speed'" in routing(*files, *output, "--objective", "speed", code=2)
    assert "does not exist" in routing(*files, *output, "--on-error=skip", "--fit", tmp_path / "none", code=1)
    assert routing(*files, *output, "--on-error=skip", "--quiet").count("left out") == 1


FIGURES = {
    # objective: (best single on train, its utility on test, oracle's, random's); computed apart from this code, with
    # cost as the price relative to the dearest of the nine, as all token counts are equal.
    "performance": ("llama-3.1-nemotron-51b-instruct", 0.5626, 0.7434, 0.3755),
    "balance": ("gemma-2-9b-it", 0.1694, 0.2690, -0.0468),
    "cost": ("gemma-2-9b-it", 0.0011, 0.0244, -0.3002),
}


@pytest.fixture(scope="module")
def router_data(data_folder: Path) -> Path:
    folder = data_folder / "routing"
    if not folder.is_dir():
        pytest.skip("the routing data are not beside this checkout (../shared/data/routing)")
    return folder


@pytest.mark.parametrize("objective", FIGURES)
def test_figures_of_real_data(router_data: Path, tmp_path: Path, objective: str) -> None:
    given = ("--llms", router_data / "llms.json", "--objective", objective)
    output = tmp_path / "test.jsonl"
    given = (*given, "--source", router_data / "test.jsonl", "--fit", router_data / "train.jsonl")
    said = routing(*given, "--output", output)
    assert "profiles without effects are left out: llama3-70b-instruct, mixtral-8x7b-instruct-v0.1" in said
    best, its_utility, oracle, chance = FIGURES[objective]
    made = list(read_requests(output))
    assert len(made) == 500 and all(len(judged.gains) == 9 for judged in made)

    def first(judged: JudgedRequest, name: str) -> int:
        return judged.scores[name].index(max(judged.scores[name]))

    assert {judged.request.candidates[first(judged, "best single")].id for judged in made} == {best}
    utilities = [judged.values["utility"] for judged in made]
    ours = fmean(each[first(judged, "best single")] for each, judged in zip(utilities, made, strict=True))
    measured = (ours, fmean(map(max, utilities)), fmean(map(fmean, utilities)))
    assert measured == pytest.approx((its_utility, oracle, chance), abs=5e-5)
    assert fmean(not judged.best for judged in made) == (0.266 if objective == "performance" else 0)
