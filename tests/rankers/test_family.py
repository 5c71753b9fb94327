"""The published systems by name: what rerankers makes of the names, and what each of them asks and reads."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import rerankers

from r1ranker_ir.errors import InputError
from r1ranker_ir.integrations.rerankers import FAMILY_RERANKERS, FirstReranker, ListwiseReranker, RankGPTReranker
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.rankers.systems import FAMILY, family_options
from r1ranker_ir.strategies import STRATEGIES
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


def opened(checkpoint: Path | str, model_type: str, **options: Any) -> Any:
    found = rerankers.Reranker(str(checkpoint), model_type=model_type, verbose=0, **options)
    assert found is not None
    return found


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILY)
def test_a_type_leads_to_its_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(
        FAMILY_RERANKERS[name], "__init__", lambda self, *given, **options: built.append((given, options))
    )
    for spelt in (name, name.upper()):
        assert type(opened("some/model", spelt, backend="openai")) is FAMILY_RERANKERS[name]
    assert built == [(("some/model",), {"verbose": 0, "backend": "openai"})] * 2


def test_a_name_alone_takes_its_own_checkpoint() -> None:
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
            made = reranker(given, model="served", backend="openai", base_url="http://127.0.0.1:9/v1")
            assert made.checkpoint == "served" and made.ranker.strategy == FAMILY[name].strategy
        with pytest.raises(InputError, match=rf"two models were given.*use model= with the name '{name}', or drop it"):
            reranker("some/model", model="other/model")


def test_rerankers_own_rankgpt_goes_on_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        factory.AVAILABLE_RANKERS, "RankGPTRanker", lambda *given, **options: ("theirs", given, options)
    )
    assert factory._get_model_type("rankgpt") == "RankGPTRanker"
    theirs = opened("gpt-4o", "rankgpt", api_key="none")
    assert theirs == ("theirs", ("gpt-4o",), {"verbose": 0, "api_key": "none"})
    monkeypatch.delitem(factory.AVAILABLE_RANKERS, "RankGPTRanker")
    assert rerankers.Reranker("gpt-4o", model_type="rankgpt", verbose=0) is None


def test_a_callers_options_win() -> None:
    options = family_options("first", {"window_size": 7, "template": "mine.yaml", "device": "cpu"})
    assert options["window_size"] == 7 and options["template"] == "mine.yaml" and options["device"] == "cpu"
    assert options["think"] == "never" and options["stride"] == 10
    assert family_options("listwise", {"template": None})["template"].name == "family_listwise.toml"
    assert "template" not in family_options("rank-r1", {})
    with pytest.raises(InputError, match=r"system 'other' is not known: use one of rank-r1, reasonrank"):
        family_options("other", {})


# --- locally -------------------------------------------------------------------------------------------------------


def test_listwise_ranks_without_a_thought(make_checkpoint: Callable[..., Path]) -> None:
    ranker = opened(make_checkpoint("chatml"), "listwise", device="cpu")
    assert isinstance(ranker, ListwiseReranker)
    found = ranker.rank("fleas", DOCUMENTS)
    assert sorted(result.doc_id for result in found.results) == [0, 1, 2, 3, 4]
    [step] = found.trace
    assert step.thought == "" and not step.thought_closed and found.repairs == 0
    assert step.text == " > ".join(f"[{place + 1}]" for place in step.outcome)
    backend = ranker.ranker.backend
    assert (backend.max_thought_tokens, ranker.ranker.window_size, ranker.ranker.stride) == (0, 20, 10)


def test_first_ranks_by_one_place(make_checkpoint: Callable[..., Path]) -> None:
    ranker = opened(make_checkpoint("chatml"), "first", device="cpu", window_size=4, stride=2)
    assert isinstance(ranker, FirstReranker)
    found = ranker.rank("fleas", DOCUMENTS)
    assert [len(step.shown) for step in found.trace] == [4, 3]
    for step in found.trace:
        assert step.probabilities is not None
        assert list(step.outcome) == sorted(step.shown, key=lambda place: -step.probabilities[place])
    with pytest.raises(InputError, match=r"template .*family_first\.toml' names candidates by letters, 26 at most"):
        opened(make_checkpoint("chatml"), "first", device="cpu", window_size=40).rank("q", ["a"] * 30)


def test_reasonrank_thinks_and_is_read_as_published_on_demand(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    template = tmp_path / "listwise_prompt_r1.toml"
    template.write_text(REASONRANK)
    options = {"device": "cpu", "template": template, "max_thought_tokens": 5}
    ranker = opened(make_checkpoint("chatml"), "reasonrank", **options)
    found = ranker.rank("fleas", DOCUMENTS)
    [step] = found.trace
    assert step.text.startswith("<think>\n") and step.text.endswith("</answer>")
    assert found.repairs == 0
    published = opened(make_checkpoint("chatml"), "reasonrank", answers="published", max_repair_rate=1.0, **options)
    found = published.rank("fleas", DOCUMENTS)
    # A random model writes nothing of the kind, and what can't be read is counted.
    assert found.repairs == 1
    assert sorted(result.doc_id for result in found.results) == [0, 1, 2, 3, 4]
    [step] = found.trace
    assert step.probabilities is None and "<answer>" not in step.text


@pytest.mark.skipif("setwise" not in STRATEGIES, reason="the setwise strategy is not here yet")
def test_rank_r1_picks_the_best_of_sets(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    template = tmp_path / "prompt_setwise-R1.toml"
    template.write_text(RANK_R1)
    options = {"device": "cpu", "template": template, "max_thought_tokens": 4, "window_size": 3, "top_k": 2}
    found = opened(make_checkpoint("chatml"), "rank-r1", **options).rank("fleas", DOCUMENTS)
    assert sorted(result.doc_id for result in found.results) == [0, 1, 2, 3, 4]
    assert all(len(step.shown) <= 3 for step in found.trace)
    assert found.repairs == 0
    published = opened(make_checkpoint("chatml"), "rank-r1", answers="published", max_repair_rate=1.0, **options)
    found = published.rank("fleas", DOCUMENTS)
    # With nothing to be read, the first stage's order stays, and every call is counted as a repair.
    assert found.repairs == len(found.trace) > 0
    assert [result.doc_id for result in found.results] == [0, 1, 2, 3, 4]


def test_answers_are_one_of_two(make_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"answers is 'free': use constrained or published"):
        Ranker(make_checkpoint("chatml"), strategy="direct", answers="free")  # type: ignore[arg-type]


def test_a_template_for_another_strategy_is_refused(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    template = tmp_path / "prompt_setwise-R1.toml"
    template.write_text(RANK_R1)
    with pytest.raises(InputError, match=r"has no section \[direct\]: add one, or use the strategy setwise"):
        Ranker(make_checkpoint("chatml"), strategy="direct", template=template)


# --- on a server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Any], list[str]]]:
    """A chat server: its address, what it was sent, and what it answers next."""
    asked: list[Any] = []
    replies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": replies.pop(0)}
            reply = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/v1", asked, replies
        serving.shutdown()
        thread.join()


def test_rankgpt_shows_a_passage_a_turn(server: tuple[str, list[Any], list[str]]) -> None:
    address, asked, replies = server
    ranker = opened("gpt-4o", "rankgpt", backend="openai", base_url=address)
    assert isinstance(ranker, RankGPTReranker)
    replies += ["[3] > [1] > [2]", "[2] > [2]"]
    assert [result.doc_id for result in ranker.rank("fleas", DOCUMENTS[:3]).results] == [2, 0, 1]
    roles = [message["role"] for message in asked[0]["messages"]]
    assert roles == ["system", *["user", "assistant"] * 4, "user"]
    assert asked[0]["messages"][3]["content"] == "[1] sheep are shorn in spring"
    found = ranker.rank("wool", DOCUMENTS[:3])
    assert [result.doc_id for result in found.results] == [1, 0, 2]
    assert found.repairs == 1


def test_letters_are_read_from_a_server(server: tuple[str, list[Any], list[str]]) -> None:
    address, _, replies = server
    ranker = opened("zephyr", "first", backend="openai", base_url=address, think="always")
    replies += ["[C] > [A] > [B]"]
    found = ranker.rank("fleas", DOCUMENTS[:3])
    assert [result.doc_id for result in found.results] == [2, 0, 1]
    assert found.repairs == 0
    with pytest.raises(InputError, match=r"think='never' needs a backend that can be given a thought"):
        opened("zephyr", "first", backend="openai", base_url=address)


def test_published_reading_and_ours_differ_where_they_should(
    server: tuple[str, list[Any], list[str]], tmp_path: Path
) -> None:
    address, _, replies = server
    template = tmp_path / "listwise_prompt_r1.toml"
    template.write_text(REASONRANK)
    request = RankingRequest("fleas", tuple(Candidate(text, text) for text in DOCUMENTS[:3]))
    # The thought never ended: the published reading takes its numbers, ours does not.
    replies += ["<think>perhaps [3], then [2]"] * 2
    orders = []
    for answers in ("published", "constrained"):
        ranker = Ranker(
            "m",
            strategy="direct",
            backend="openai",
            base_url=address,
            template=template,
            answers=answers,
            max_repair_rate=1,
        )
        [ranking] = ranker.rank([request])
        orders.append(ranking.order)
        assert ranking.repairs == 1
    assert orders == [(2, 1, 0), (0, 1, 2)]


# --- in whose words a system is asked ---------------------------------------------------------------------------------


RANK_R1_WITH_COLON = RANK_R1 + 'doc_prefix = "[{num}]: "\ndoc_separator = "\\n\\n"\n'


def notes_of(name: str, model: str, template: Path | None = None) -> tuple[str, ...]:
    """What a system says of its wording, on a server whose model has this name; nothing is asked of the server."""
    given = {"template": template, "backend": "openai", "base_url": "http://127.0.0.1:9/v1", "think": "always"}
    return Ranker(model, strategy=FAMILY[name].strategy, **family_options(name, given)).notes


@pytest.mark.parametrize("name", FAMILY)
def test_a_system_without_its_template_says_whose_words_are_used(name: str, caplog: pytest.LogCaptureFixture) -> None:
    [note] = notes_of(name, "served")

    assert f"'{name}' is asked in this project's own words" in note
    assert FAMILY[name].source in note and "--template" in note
    assert [record.message for record in caplog.records] == [note]


def test_a_system_with_its_own_template_has_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, text in (("rank-r1", RANK_R1), ("reasonrank", REASONRANK)):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
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
def test_rank_r1_shows_candidates_as_its_version_was_trained(text: str, model: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "setwise.toml"
    path.write_text(text)
    found = " ".join(notes_of("rank-r1", model, path))
    assert said in found and bool(said) == bool(found)
