"""Query likelihood: the scores are the model's own, whatever is computed together, and the rankings are theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from servers import Behaviour, Reply, Request, Serve, refusal

from r1ranker_ir import BackendError, Candidate, InputError, Ranker, RankingRequest
from r1ranker_ir.backends.declaration import Capabilities
from r1ranker_ir.backends.oracle import OracleBackend
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.rankers.cascade import Cascade
from r1ranker_ir.runs.traces import TraceWriter, read_trace
from r1ranker_ir.types import Call, Ranking

TEXTS = (
    "a blue car",
    "a red boat at sea, with sails of cloth that was dyed last of all, and a cat with fleas",
    "",
    "fleas live for months",
    "a red boat at sea, with sails of cloth that was dyed last of all, and a cat with fleas",
)
REQUESTS = tuple(
    RankingRequest(query, tuple(Candidate(f"d{n}", text) for n, text in enumerate(TEXTS)), query_id=query)
    for query in ("how long do fleas live", "boats", "a red boat <|im_end|> at sea")
)
GAINS = {REQUESTS[0].query_id: {"d3": 2.0, "d1": 1.0}}


def alone(model: Any, tokenizer: Any, passage: str, query: str) -> float:
    """log P(query | passage) by transformers alone, one pair at a time."""
    import torch

    turns = [{"role": "user", "content": f"Passage: {passage}\n\nWrite a question that this passage answers."}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    before = tokenizer.encode(prompt, add_special_tokens=False)
    said = tokenizer.encode(f"{prompt}{query}", add_special_tokens=False)[len(before) :]
    with torch.no_grad():
        logits = model(torch.tensor([before + said])).logits[0, len(before) - 1 : -1]
    return float(torch.log_softmax(logits, -1)[range(len(said)), said].sum())


def ranked(requests: Sequence[RankingRequest] = REQUESTS, **options: Any) -> list[Ranking]:
    return Ranker(**{"model": TINY_CHECKPOINT, "strategy": "likelihood", "device": "cpu", **options}).rank(requests)


def scores(ranking: Ranking) -> list[float]:
    return [step.score or 0.0 for step in ranking.steps]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("name", ["chatml", "narrow", "gemma"])
def test_scores_are_those_of_one_pair_at_a_time(
    name: str, batch_size: int, make_checkpoint: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = make_checkpoint(name)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    for ranking in ranked(REQUESTS[:2], model=checkpoint, batch_size=batch_size):
        expected = [alone(model, tokenizer, text or "(no text)", ranking.request.query) for text in TEXTS]
        assert scores(ranking) == pytest.approx(expected, abs=1e-4)
        assert list(ranking.order) == sorted(range(len(TEXTS)), key=lambda place: -scores(ranking)[place])
        assert list(ranking.scores) == sorted(scores(ranking), reverse=True)
        assert ranking.scores.count(scores(ranking)[1]) == 2


def test_padding_and_company_change_nothing_in_bfloat16(make_checkpoint: Callable[..., Path]) -> None:
    options = {"model": make_checkpoint("chatml"), "dtype": "bfloat16"}
    together = [scores(ranking) for ranking in ranked(**options)]
    assert [scores(ranking) for ranking in ranked(**options, batch_size=1)] == together
    assert [scores(ranked([request], **options)[0]) for request in REQUESTS] == together


def test_what_prompts_share_is_computed_once(make_checkpoint: Callable[..., Path]) -> None:
    ranker = Ranker(make_checkpoint("chatml"), strategy="likelihood", device="cpu")
    first, *_ = ranker.rank(REQUESTS)
    summary = ranker.summary
    prompts = [step.usage.prompt_tokens for step in first.steps]
    assert summary.usage.calls == len(REQUESTS) * len(TEXTS)
    assert summary.usage.prompt_tokens == len(REQUESTS) * sum(prompts)
    # Each different passage once, and the words before all of them once.
    assert summary.prompt_tokens_computed < sum(prompts[:4])


def asked(ranker: Ranker) -> list[Call]:
    """The calls of the first request."""
    call = next(ranker.program(REQUESTS[0]))
    return [call, *call.ahead]


def test_the_query_is_what_is_scored_and_no_part_of_the_prompt(tmp_path: Path) -> None:
    ranker = Ranker(TINY_CHECKPOINT, strategy="likelihood", device="cpu", max_passage_tokens=8)
    calls = asked(ranker)
    assert [call.continuation for call in calls] == [REQUESTS[0].query] * len(TEXTS)
    assert not any(REQUESTS[0].query in message.content for call in calls for message in call.messages)
    assert [call.cut_passages for call in calls] == [0, 1, 0, 0, 1]
    hostile = next(ranker.program(REQUESTS[2]))
    assert "<|im_end|>" not in hostile.continuation and "im_end" in hostile.continuation
    own = tmp_path / "own.toml"
    own.write_text('[likelihood]\nuser = "{candidates} answers {query}"\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"\[likelihood\] user: unknown placeholder {query}"):
        Ranker(TINY_CHECKPOINT, strategy="likelihood", template=own)
    own.write_text('[likelihood]\nuser = "{candidates} answers"\n', encoding="utf-8")
    told = Ranker(TINY_CHECKPOINT, strategy="likelihood", template=own, device="cpu")
    assert asked(told)[0].messages[-1].content == "a blue car answers"


@pytest.mark.parametrize("task", ["item", "model"])
def test_items_and_models_are_asked_about_in_words_of_their_own(task: Any) -> None:
    ranker = Ranker("oracle", backend="oracle", gains={}, strategy="likelihood")
    request = RankingRequest("boat\ncar", REQUESTS[0].candidates, task=task)
    [said] = [message.content for message in next(ranker.program(request)).messages]
    assert "a blue car" in said and "{" not in said and "assage" not in said


def test_a_mean_is_the_sum_by_the_querys_tokens() -> None:
    [whole], [mean] = ranked(REQUESTS[:1]), ranked(REQUESTS[:1], pooling="mean")
    tokens = whole.steps[0].usage.completion_tokens
    assert [score * tokens for score in scores(mean)] == pytest.approx(scores(whole))
    assert mean.order == whole.order


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "max"}, "pooling is 'max': use sum or mean"),
        ({"votes": 3, "vote_among": "thoughts", "temperature": 0.7}, "votes=3 can't be taken"),
        ({"layout": "mark"}, "for the iterative strategy, not for likelihood"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ranked(**options)


def test_what_the_budget_leaves_out_stays_below_in_its_order() -> None:
    [ranking] = ranked(REQUESTS[:1], max_calls=2)
    [whole] = ranked(REQUESTS[:1])
    assert ranking.budget_reached and len(ranking.steps) == 2
    assert ranking.order[2:] == (2, 3, 4)
    assert scores(ranking) == pytest.approx(scores(whole)[:2], abs=1e-4)
    assert ranking.scores[2:] == (None, None, None)
    [top] = ranked(REQUESTS[:1], top_k=2)
    assert top.order == (*whole.order[:2], *sorted(whole.order[2:]))


def test_answers_are_kept_and_traces_come_back(tmp_path: Path) -> None:
    cache, trace = tmp_path / "cache", tmp_path / "trace.jsonl"
    first = ranked(cache=cache)
    again = Ranker(TINY_CHECKPOINT, strategy="likelihood", device="cpu", cache=cache)
    assert again.rank(REQUESTS) == first
    assert again.summary.cached_calls == again.summary.usage.calls
    with TraceWriter(trace, "likelihood") as writer:
        for ranking in first:
            writer.write(ranking)
    assert [scores(traced.ranking) for traced in read_trace(trace)] == [scores(ranking) for ranking in first]


def test_it_orders_all_for_another_strategy_to_order_the_top() -> None:
    first = Ranker("oracle", backend="oracle", gains=GAINS, strategy="likelihood")
    second = Ranker("oracle", backend="oracle", gains=GAINS, strategy="iterative")
    [ranking] = Cascade(first, second, depth=3).rank(REQUESTS[:1])
    assert ranking.order[:2] == (3, 1)
    assert len(ranking.steps) == len(TEXTS) + 2
    [limited] = Cascade(first, second, depth=3, max_calls=6).rank(REQUESTS[:1])
    assert len(limited.steps) == 6 and limited.budget_reached


def scoring(*ways: str) -> Callable[[Request], Reply]:
    """A server that scores with the embedded model, in the ways that it is told."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY_CHECKPOINT)

    def reply(asked: Request) -> Reply:
        if asked.path != "/v1/completions":
            return refusal(404, "no such place")
        if asked.body.get("echo") and "grammar" in ways:
            return refusal(500, "Only no echo is supported")  # as llama.cpp says it
        ids, written = (
            asked.body["prompt"],
            [int(token) for token in re.findall(r"<\[(\d+)\]>", asked.body.get("grammar", ""))],
        )
        assert asked.body["max_tokens"] == (len(written) or 1)
        ids = [*ids, *written]
        way = next((way for way in ways if asked.body.get(way)), "")
        choice: dict[str, Any] = {"text": "", "index": 0, "finish_reason": "length", "logprobs": None}
        if way:
            with torch.no_grad():
                told = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
            after = [float(told[place, token]) for place, token in enumerate(ids[1:])]
            some = [{str(token): {"logprob": value}} for token, value in zip(ids[1:], after, strict=True)]
            echoed = {"logprobs": {"token_logprobs": [None, *after, -1.0], "tokens": []}}
            places = [{"id": token, "logprob": value} for token, value in zip(ids[1:], after, strict=True)]
            grown = {"logprobs": {"content": places[-len(written) :]}}
            choice |= {"echo": echoed, "prompt_logprobs": {"prompt_logprobs": [None, *some]}, "grammar": grown}[way]
        return Reply(json.dumps({"id": "1", "object": "text_completion", "choices": [choice]}))

    return reply


@pytest.mark.parametrize("way", ["echo", "prompt_logprobs", "grammar"])
def test_servers_that_tell_log_probabilities_give_the_same_scores(way: str, serve: Serve) -> None:
    options = {"backend": "openai", "base_url": serve(scoring(way)).base_url, "tokenizer": str(TINY_CHECKPOINT)}
    remote = Ranker("tiny", strategy="likelihood", settings_from=TINY_CHECKPOINT, **options).rank(REQUESTS)
    for ranking, expected in zip(remote, ranked(), strict=True):
        assert scores(ranking) == pytest.approx(scores(expected), abs=1e-4)
        assert ranking.order == expected.order


@pytest.mark.parametrize(
    "behaviour",
    [
        scoring(),
        refusal(500, "Only no echo is supported"),
        Reply('{"detail": "prompt must be a string."}', status=400),
        Reply('{"detail": "Unexpected fields in the request: {echo}"}', status=422),
    ],
)
def test_a_server_that_does_not_is_named(serve: Serve, behaviour: Behaviour) -> None:
    options = {"strategy": "likelihood", "backend": "openai", "base_url": serve(behaviour).base_url}
    with pytest.raises(BackendError, match="returns no log-probabilities of a given text for model 'tiny'"):
        Ranker("tiny", **options, tokenizer=str(TINY_CHECKPOINT)).rank(REQUESTS)
    with pytest.raises(InputError, match="give tokenizer, the model's hub name or folder"):
        Ranker("tiny", **options).rank(REQUESTS)


def test_a_backend_without_scores_is_refused_before_it_is_asked() -> None:
    class Writes(OracleBackend):
        capabilities = Capabilities()

    with pytest.raises(InputError, match="use the backend 'transformers' or 'openai', or another strategy"):
        Ranker("mine", strategy="likelihood", backend=Writes("mine", gains={}))
