"""Options are declared once: a field of a dataclass is a parameter of verbs, of Python, and of what travels to Ray."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from r1ranker_ir import InputError, Ranker, RecommendationAdapter
from r1ranker_ir.backends.endpoint import find_endpoint
from r1ranker_ir.backends.oracle import OracleBackend
from r1ranker_ir.cli.app import app
from r1ranker_ir.cli.parameters import GroupedCommand, StatedOf, command_words, with_fields
from r1ranker_ir.cli.ranker_options import RankerChoice
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.option_fields import argument, limit_option, number_or_none, offers_of, option, stated
from r1ranker_ir.rankers.settings import RankerSettings
from r1ranker_ir.rankers.source import find_ranker, ranker_source
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.options import RankingOptions


@dataclass(frozen=True)
class Oven:
    heat: int = limit_option(180, "Degrees.", least=50, most=300)
    fan: bool = option(False, "Blow.")
    timer: int | None = option(None, "Minutes.", unset="no end", parse=number_or_none(int, "the time"))
    shelf: Literal["top", "middle"] = option("middle", "Where it stands.")
    secret: int = 7


seen: list[Any] = []
kitchen = typer.Typer(rich_markup_mode=None)


@kitchen.command(cls=GroupedCommand)
@with_fields
def bake(*, dish: str = argument(..., "What is baked."), oven: Oven) -> None:
    seen.append((dish, oven))


@kitchen.command(cls=GroupedCommand)
@with_fields
def plan(*, given: Annotated[Mapping[str, Any], StatedOf(Oven, only=("heat", "timer"))]) -> None:
    seen.append(dict(given))


@kitchen.command(cls=GroupedCommand)
@with_fields
def tell(
    *,
    ctx: typer.Context,
    given: Annotated[Mapping[str, Any], StatedOf(RankerSettings)],
    more: list[str] | None = option(None, "More."),
) -> None:
    seen.append(command_words(ctx, left_out=("device",)))


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(kitchen, words)
    assert result.exit_code == code, result.output
    return seen.pop() if code == 0 and "--help" not in words else " ".join(result.output.split())


def test_a_field_is_a_parameter():
    assert run("bake", "pie") == ("pie", Oven())
    assert run("bake", "pie", "--heat", "200", "--fan", "--timer", "none", "--shelf", "top") == (
        "pie",
        Oven(200, True, None, "top"),
    )
    assert run("plan", "--heat", "180", "--timer", "9") == {"heat": 180, "timer": 9}
    assert run("plan", "--timer", "none") == {"timer": None} and run("plan") == {}
    assert "the time is 'soon': give a whole number, or none" in run("plan", "--timer", "soon", code=2)
    for wrong in (["--heat", "3"], ["--shelf", "floor"], ["--secret", "1"], ["--no-fan"]):
        run("bake", "pie", *wrong, code=2)


def test_a_command_line_is_told_as_it_was_given():
    words = ["--no-repair-text", "--seed", "none", "--trust-remote-code", "--more", "a=1", "--more", "b=2"]
    body = ["--extra-body", '{"top_p": 0.9}']
    told = run("tell", *words, *body, "--device", "cpu", "--base-url", "http://user:secret@127.0.0.1:9/v1/")
    assert sorted(told[2:]) == sorted([*words, *body, "--base-url", find_endpoint("http://127.0.0.1:9/v1/").base_url])


def test_help_is_grouped():
    said = run("bake", "--help")
    assert said.index("Arguments:") < said.index("What is baked.") < said.index("Limits:")
    assert said.index("Limits:") < said.index("--heat") < said.index("Options:") < said.index("--fan")
    assert "[default: (no end)]" in said and "[default: 180" in said
    helped = CliRunner().invoke(app, ["rerank", "--help"]).output
    places = [helped.index(f"\n{group}:") for group in ("What", "Model", "Ranking", "Limits", "Output", "Engine")]
    assert places == sorted(places)


@pytest.mark.parametrize("verb", ["rerank", "suite"])
def test_every_option_of_a_ranker_is_on_the_command_line(verb):
    helped = CliRunner().invoke(app, [verb, "--help"]).output
    offered = (*offers_of(RankingOptions), *offers_of(RankerSettings))
    assert all(f"--{name.replace('_', '-')}" in helped for name in offered)


def test_options_travel_whole():
    given = {"top_k": 3, "shuffle_seed": None, "window_size": 5, "dtype": "float32", "seed": None, "tokenizer": "t"}
    source = ranker_source("m", "setwise", {"backend": "openai", **given})
    again = pickle.loads(pickle.dumps(source))
    assert again == source and again.stated() == {"backend": "openai", **given}
    assert again.options == RankingOptions(top_k=3, shuffle_seed=None)
    assert again.settings.of_backend() == {"dtype": "float32", "seed": None, "tokenizer": "t"}
    assert source.settings.having(seed=1, tokenizer=None).get("seed") == 1


def test_python_takes_fields_and_whole_dataclasses():
    backend = OracleBackend(gains={})
    told = RankerSettings(window_size=6, max_repair_rate=0.5)
    ranker = Ranker("m", strategy="direct", options=RankingOptions(top_k=4), settings=told, stride=2, backend=backend)
    assert (ranker.window_size, ranker.stride, ranker.options.top_k) == (6, 2, 4)
    assert ranker.engine.max_repair_rate == 0.5 and stated(ranker.settings)["stride"] == 2
    with pytest.raises(InputError, match="has no option 'topk': did you mean 'top_k'"):
        Ranker("m", strategy="direct", backend=backend, topk=4)


@pytest.mark.parametrize("name", [*FAMILY, "r1ranker-direct-tiny"])
def test_python_and_the_command_line_agree_on_names(name, monkeypatch):
    monkeypatch.setattr("r1ranker_ir.rankers.source.RankerSource.open", lambda self, **_: self)
    model = str(TINY_CHECKPOINT)
    from_python: Any = RecommendationAdapter(name, model=model, top_k=2)
    from_cli = RankerChoice(model=model, no_cache=True).source(name, {"top_k": 2})
    assert from_python.ranker == from_cli == find_ranker(name, model, None, {"top_k": 2})
    assert from_cli.options.top_k == 2


def test_what_is_stated_wins_over_a_system():
    assert find_ranker("first").options.think == "never"
    choice = RankerChoice(no_cache=True)
    assert choice.source("first", {"think": "always", "repair_text": False}).options.think == "always"
    assert not choice.source("first", {"repair_text": False}).settings.repair_text


@dataclass(frozen=True)
class Deep(RankingOptions):
    depth_of_tree: int = 2
    flavour: str = "plain"


def test_options_of_an_installed_strategy_or_backend_are_reachable(monkeypatch):
    class Strategies(dict[str, Any]):
        find = dict.__getitem__

    for module in ("rankers.source", "cli.ranker_options"):
        known = Strategies(direct=replace(STRATEGIES["direct"], options=Deep))
        monkeypatch.setattr(f"r1ranker_ir.{module}.STRATEGIES", known)

    def source(*words: str) -> Any:
        return RankerChoice(strategy="direct", own_options=list(words), no_cache=True).source("m", {})

    found = source("depth-of-tree=5", "flavour=7", "context_length=99")
    assert found.options == Deep(depth_of_tree=5, flavour="7") and found.settings.more == {"context_length": 99}
    for word, said in (
        ("depth_of_tree=x", "depth_of_tree is 'x': give a whole number"),
        ("window_size=3", "has an option of its own: use --window-size"),
        ("nothing", "is not NAME=VALUE"),
    ):
        with pytest.raises(typer.BadParameter, match=said):
            source(word)
