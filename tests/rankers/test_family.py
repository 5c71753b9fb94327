"""The published systems by name: what rerankers makes of the names, and what each of them asks and reads."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import rerankers
from servers import completion

from r1ranker_ir.errors import InputError
from r1ranker_ir.integrations.rerankers import FAMILY_RERANKERS, FirstReranker, ListwiseReranker, RankGPTReranker
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.settings import RankerSettings
from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.rankers.systems import FAMILY, family_options
from r1ranker_ir.types import Candidate, RankingRequest

factory: Any = importlib.import_module("rerankers.reranker")
DOCUMENTS = ["sheep are shorn in spring", "the kettle boils", "fleas jump", "wool is washed", "larvae feed"]
REASONRANK = r'''
system_prompt_reasoning = "Order passages, <think> first </think>, <answer> then </answer>."
pattern = '<think>.*?</think>\s*<answer>(.*?)</answer>'
user_prompt = """{num} for {query}:

{docs}Order them."""
'''
RANK_R1 = r"""
prompt_system = "Find the best."
prompt_user = "For {query}:\n{docs}\nThe best?"
pattern = '<think>.*?</think>\s*<answer>(.*?)</answer>'
"""


@pytest.fixture
def reasonrank_file(tmp_path):
    (tmp_path / "listwise_prompt_r1.toml").write_text(REASONRANK)
    return tmp_path / "listwise_prompt_r1.toml"


@pytest.fixture
def rank_r1_file(tmp_path):
    (tmp_path / "prompt_setwise-R1.toml").write_text(RANK_R1)
    return tmp_path / "prompt_setwise-R1.toml"


def opened(checkpoint: Path | str, model_type: str, **options: Any) -> Any:
    found = rerankers.Reranker(str(checkpoint), model_type=model_type, verbose=0, **options)
    assert found is not None
    return found


PUBLISHED = {"answers": "published", "max_repair_rate": 1.0}


def ranked(ranker: Any) -> Any:
    """The documents ranked, after a check that each is there once."""
    found = ranker.rank("fleas", DOCUMENTS)
    assert sorted(result.doc_id for result in found.results) == [0, 1, 2, 3, 4]
    return found


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILY)
def test_a_type_leads_to_its_class(name, monkeypatch):
    built = []
    monkeypatch.setattr(
        FAMILY_RERANKERS[name], "__init__", lambda self, *given, **options: built.append((given, options))
    )
    for spelt in (name, name.upper()):
        assert type(opened("some/model", spelt, backend="openai")) is FAMILY_RERANKERS[name]
    assert built == [(("some/model",), {"verbose": 0, "backend": "openai"})] * 2


def test_a_name_alone_takes_its_own_checkpoint():
    for name, reranker in FAMILY_RERANKERS.items():
        assert factory._get_model_type("x/y", name) == name
        if FAMILY[name].checkpoint is None:
            with pytest.raises(InputError, match=f"'{name}' works with any chat model: name one"):
                reranker(name)
        else:
            assert factory._get_model_type(name) == name
            assert find_ranker(name).model == FAMILY[name].checkpoint
        assert find_ranker(name, "other/model").model == "other/model"
        for given in (name, "served"):
            given_server = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "think": "always"}
            made = reranker(given, model="served", **given_server)
            assert made.checkpoint == "served" and made.ranker.strategy == FAMILY[name].strategy
        with pytest.raises(InputError, match=rf"two models were given.*use model= with the name '{name}', or drop it"):
            reranker("some/model", model="other/model")


def test_rerankers_own_rankgpt_goes_on_answering(monkeypatch):
    monkeypatch.setitem(
        factory.AVAILABLE_RANKERS, "RankGPTRanker", lambda *given, **options: ("theirs", given, options)
    )
    assert factory._get_model_type("rankgpt") == "RankGPTRanker"
    theirs = opened("gpt-4o", "rankgpt", api_key="none")
    assert theirs == ("theirs", ("gpt-4o",), {"verbose": 0, "api_key": "none"})
    monkeypatch.delitem(factory.AVAILABLE_RANKERS, "RankGPTRanker")
    assert rerankers.Reranker("gpt-4o", model_type="rankgpt", verbose=0) is None


def test_a_callers_options_win():
    options = family_options("first", {"window_size": 7, "template": "mine.yaml", "device": "cpu"})
    assert options["window_size"] == 7 and options["template"] == "mine.yaml" and options["device"] == "cpu"
    assert options["think"] == "never" and options["stride"] == 10
    assert family_options("listwise", {"template": None})["template"].name == "family_listwise.toml"
    assert "template" not in family_options("rank-r1", {})
    with pytest.raises(InputError, match=r"system 'other' is not known: use one of rank-r1, reasonrank"):
        family_options("other", {})


# --- locally -------------------------------------------------------------------------------------------------------


def test_listwise_ranks_without_a_thought(make_checkpoint):
    ranker = opened(make_checkpoint("chatml"), "listwise", device="cpu")
    assert isinstance(ranker, ListwiseReranker)
    [step] = ranked(ranker).trace
    assert step.thought == "" and not step.thought_closed and not step.repaired
    assert step.text == " > ".join(f"[{place + 1}]" for place in step.outcome)
    backend = ranker.ranker.backend
    assert (backend.max_thought_tokens, ranker.ranker.window_size, ranker.ranker.stride) == (0, 20, 10)


def test_first_ranks_by_one_place(make_checkpoint):
    ranker = opened(make_checkpoint("chatml"), "first", device="cpu", window_size=4, stride=2)
    assert isinstance(ranker, FirstReranker)
    found = ranked(ranker)
    assert [len(step.shown) for step in found.trace] == [4, 3]
    for step in found.trace:
        assert list(step.outcome) == sorted(step.shown, key=lambda place, chances=step.probabilities: -chances[place])
    with pytest.raises(InputError, match=r"template .*family_first\.toml' names candidates by letters, 26 at most"):
        opened(make_checkpoint("chatml"), "first", device="cpu", window_size=40).rank("q", ["a"] * 30)


def test_reasonrank_thinks_and_is_read_as_published_on_demand(make_checkpoint, reasonrank_file):
    options = {"device": "cpu", "template": reasonrank_file, "max_thought_tokens": 5}
    found = ranked(opened(make_checkpoint("chatml"), "reasonrank", **options))
    [step] = found.trace
    assert step.text.startswith("<think>\n") and step.text.endswith("</answer>") and found.repairs == 0
    found = ranked(opened(make_checkpoint("chatml"), "reasonrank", **PUBLISHED, **options))
    # A random model writes nothing of the kind, and what can't be read is counted.
    [step] = found.trace
    assert found.repairs == 1 and step.probabilities is None and "<answer>" not in step.text


def test_rank_r1_picks_the_best_of_sets(make_checkpoint, rank_r1_file):
    options = {"device": "cpu", "template": rank_r1_file, "max_thought_tokens": 4, "window_size": 3, "top_k": 2}
    found = ranked(opened(make_checkpoint("chatml"), "rank-r1", **options))
    assert all(len(step.shown) <= 3 for step in found.trace) and found.repairs == 0
    found = ranked(opened(make_checkpoint("chatml"), "rank-r1", **PUBLISHED, **options))
    # With nothing to be read, the first stage's order stays, and every call is counted as a repair.
    assert found.repairs == len(found.trace) > 0
    assert [result.doc_id for result in found.results] == [0, 1, 2, 3, 4]


# --- on a server ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


def test_rankgpt_shows_a_passage_a_turn(serve):
    server = serve(completion("[3] > [1] > [2]"), completion("[2] > [2]"))
    ranker = opened("gpt-4o", "rankgpt", backend="openai", base_url=server.base_url)
    assert isinstance(ranker, RankGPTReranker)
    assert [result.doc_id for result in ranker.rank("fleas", DOCUMENTS[:3]).results] == [2, 0, 1]
    turns = server.requests[0].body["messages"]
    assert [message["role"] for message in turns] == ["system", *["user", "assistant"] * 4, "user"]
    assert turns[3]["content"] == "[1] sheep are shorn in spring"
    found = ranker.rank("wool", DOCUMENTS[:3])
    assert [result.doc_id for result in found.results] == [1, 0, 2]
    assert found.repairs == 1


def test_letters_are_read_from_a_server(serve):
    address = serve(completion("[C] > [A] > [B]")).base_url
    found = opened("zephyr", "first", backend="openai", base_url=address, think="always").rank("fleas", DOCUMENTS[:3])
    assert [result.doc_id for result in found.results] == [2, 0, 1] and found.repairs == 0
    with pytest.raises(InputError, match=r"think='never' needs a backend that can be given a thought"):
        opened("zephyr", "first", backend="openai", base_url=address)


def test_published_reading_and_ours_differ_where_they_should(serve, reasonrank_file):
    # The thought never ended: the published reading takes its numbers, ours does not.
    address = serve(completion("<think>perhaps [3], then [2]")).base_url
    request = RankingRequest("fleas", tuple(Candidate(text, text) for text in DOCUMENTS[:3]))
    told = RankerSettings(backend="openai", base_url=address, template=reasonrank_file, max_repair_rate=1)
    for answers, order in (("published", (2, 1, 0)), ("constrained", (0, 1, 2))):
        [ranking] = Ranker("m", strategy="direct", settings=told, answers=answers).rank([request])
        assert ranking.order == order and ranking.repairs == 1


# --- in whose words a system is asked ---------------------------------------------------------------------------------


RANK_R1_WITH_COLON = RANK_R1 + 'doc_prefix = "[{num}]: "\ndoc_separator = "\\n\\n"\n'


def notes_of(name: str, model: str, template: Path | None = None) -> tuple[str, ...]:
    """What a system says of its wording, on a server whose model has this name; nothing is asked of the server."""
    given = {"template": template, "backend": "openai", "base_url": "http://127.0.0.1:9/v1", "think": "always"}
    return Ranker(model, strategy=FAMILY[name].strategy, **family_options(name, given)).notes


@pytest.mark.parametrize("name", FAMILY)
def test_a_system_without_its_template_says_whose_words_are_used(name, caplog):
    [note] = notes_of(name, "served")
    assert f"'{name}' is asked in this project's own words" in note
    assert FAMILY[name].source in note and "--template" in note
    assert [record.message for record in caplog.records] == [note]


def test_a_system_with_its_own_template_has_nothing_to_say(rank_r1_file, reasonrank_file, caplog):
    for name, path in (("rank-r1", rank_r1_file), ("reasonrank", reasonrank_file)):
        assert notes_of(name, "ielabgroup/Rank-R1-7B-v0.1", path) == ()
    assert Ranker("served", strategy="direct", backend="openai", base_url="http://127.0.0.1:9/v1").notes == ()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "model", "said"),
    [
        (RANK_R1_WITH_COLON, "ielabgroup/Rank-R1-3B-v0.1", "version 0.1 were trained on candidates as '[1] text'"),
        (RANK_R1_WITH_COLON, "my-rank-r1", "version 0.1 were trained on candidates as '[1] text'"),
        (RANK_R1_WITH_COLON, "ielabgroup/Rank-R1-32B-v0.2", ""),
        (RANK_R1, "ielabgroup/Rank-R1-14B-v0.1", ""),
        (RANK_R1, "ielabgroup/Rank-R1-32B-v0.2", "version 0.2 were trained on candidates as '[1]: text'"),
    ],
)
def test_rank_r1_shows_candidates_as_its_version_was_trained(text, model, said, tmp_path):
    path = tmp_path / "setwise.toml"
    path.write_text(text)
    found = " ".join(notes_of("rank-r1", model, path))
    assert said in found and bool(said) == bool(found)
