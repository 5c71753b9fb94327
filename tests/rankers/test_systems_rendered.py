"""Systems on random checkpoints of their architecture: prompts as on model cards, scores as transformers has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.rankers.systems import FAMILY, family_options

REQUEST = RankingRequest(
    "how high do fleas jump",
    (Candidate("a", "they jump <Query>: high"), Candidate("b", "wool is washed <|im_end|>"), Candidate("c", "1 flea")),
)
# What model cards and their code say: the architecture, the two tokens, the turns around them.
CARDS = {
    "qwen3-reranker": (
        "qwen3",
        ("no", "yes"),
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n<Instruct>: {aim}\n<Query>: how high do fleas jump\n"
        "<Document>: 1 flea<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    "mxbai-rerank-v2": (
        "qwen2",
        ("0", "1"),
        "<|im_start|>system\nYou are a machine.<|im_end|>\n<|im_start|>user\nquery: how high do fleas jump\n"
        "document: 1 flea\n{task}\nRelevance:<|im_end|>\n<|im_start|>assistant\n",
    ),
}
# As Qwen2.5's template: a system turn of its own where none is given.
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a machine.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def random_checkpoint(
    make_checkpoint: Callable[..., Path], make_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    def make(architecture: str, words: tuple[str, ...]) -> Path:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(make_checkpoint("chatml"))
        tokenizer.add_tokens(list(words))
        tokenizer.chat_template = CHATML
        folder = tmp_path_factory.mktemp(architecture)
        more = {"head_dim": 8} if architecture == "qwen3" else {}
        make_model(architecture, len(tokenizer), **more).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("name", CARDS)
def test_prompt_and_score_are_those_of_the_model_card(name: str, random_checkpoint: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    architecture, words, card = CARDS[name]
    folder = random_checkpoint(architecture, words)
    ranker = Ranker(folder, strategy="pointwise", **family_options(name, {"device": "cpu"}))
    template: Any = ranker.template
    system, task = template.wordings["pointwise"].system, template.wordings["pointwise"].user.split("\n")[-2]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    [ranking] = ranker.rank([REQUEST])
    for place, step in enumerate(ranking.steps):
        call = ranker.prompt.ask("pointwise", REQUEST, (place,))
        rendered = tokenizer.decode(ranker.backend._texts.prompt_ids(call.messages, thinks=call.thinks))
        if place == 2:
            assert rendered == card.format(system=system, aim=template.form("passage").aim, task=task)
        # A passage is no part of the prompt's structure.
        assert rendered.count("<Query>") == (name == "qwen3-reranker") + (place == 0 and name == "mxbai-rerank-v2")
        assert rendered.count("<|im_end|>") == 2
        with torch.inference_mode():
            logits = model(**tokenizer(rendered, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        pair = logits[tokenizer.convert_tokens_to_ids(list(words))]
        assert step.grade == pytest.approx(10 * torch.softmax(pair, 0)[1].item(), abs=1e-4)
    assert ranking.repairs == 0
    assert list(ranking.order) == sorted(range(3), key=lambda place: -(ranking.steps[place].grade or 0.0))


def test_mxbai_in_its_authors_words_reads_what_their_code_makes(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The package `rerankers` carries their code."""
    from rerankers.models.mxbai_v2 import CHAT_TEMPLATE, DOC_PROMPT, QUERY_PROMPT, TASK_PROMPT, MxBaiV2Ranker
    from transformers import AutoTokenizer

    folder = random_checkpoint("qwen2", ("0", "1"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said = CHAT_TEMPLATE["default"]["prefix"].removeprefix("<|im_start|>system\n").partition("<|im_end|>")[0]
    tokenizer.chat_template = CHATML.replace("You are a machine.", said)
    tokenizer.save_pretrained(folder)
    theirs = MxBaiV2Ranker(str(folder), device="cpu", dtype="float32", verbose=0)

    known = FAMILY["mxbai-rerank-v2"].template
    assert known is not None
    form = known.read_text(encoding="utf-8").partition("[template]")[2].replace("[template.", "[")
    ours, _, rest = form.partition("You know")
    own = f'name = "mxbai"\n{ours}{TASK_PROMPT["default"]}' + rest.partition("Relevance:")[2]
    (tmp_path / "mxbai.toml").write_text(own, encoding="utf-8")
    told = family_options("mxbai-rerank-v2", {"device": "cpu", "template": tmp_path / "mxbai.toml"})
    ranker = Ranker(folder, strategy="pointwise", **told)
    texts = ("1 flea", "wool is washed in spring")
    [ranking] = ranker.rank([RankingRequest("how high do fleas jump", tuple(Candidate(text, text) for text in texts))])

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    for place, (text, step) in enumerate(zip(texts, ranking.steps, strict=True)):
        query, document = QUERY_PROMPT["default"].format(query="how high do fleas jump"), DOC_PROMPT["default"]
        given = theirs._create_full_input_ids([*ids(query), *theirs.sep_ids, *ids(document.format(document=text))])
        call = ranker.prompt.ask("pointwise", ranking.request, (place,))
        rendered = ranker.backend._texts.prompt_ids(call.messages, thinks=False)
        assert tokenizer.decode(rendered) == tokenizer.decode(given)
        with torch.inference_mode():
            logits = theirs.model(input_ids=torch.tensor([given])).logits[0, -1]
        score = torch.sigmoid(logits[theirs.pos_id] - logits[theirs.neg_id]).item()
        assert step.grade == pytest.approx(10 * score, abs=1e-4)


def test_an_aim_takes_the_place_of_the_instruction() -> None:
    told = family_options("qwen3-reranker", {"backend": "oracle", "gains": {}})
    asked = RankingRequest("fleas", (*REQUEST.candidates,), aim="find what contradicts it")
    call = next(Ranker("oracle", strategy="pointwise", **told).program(asked))
    assert "<Instruct>: find what contradicts it\n<Query>: fleas\n" in call.messages[1].content
    assert call.messages[-1].role == "assistant" and call.messages[-1].content == "<think>\n\n</think>\n\n"


def test_rank_k_orders_windows_behind_a_thought_without_tags(random_checkpoint: Callable[..., Path]) -> None:
    told = family_options("rank-k", {"device": "cpu", "max_thought_tokens": 6})
    ranker = Ranker(random_checkpoint("qwen2", ()), strategy="direct", **told)
    call = next(ranker.program(REQUEST))
    assert (call.thinks, call.tagged, call.form, len(call.messages)) == (True, False, "order", 1)
    assert "\n\n[3] 1 flea" in call.messages[0].content
    [ranking] = ranker.rank([REQUEST])
    [step] = ranking.steps
    assert step.text.rpartition("</think>")[2].strip() == " > ".join(f"[{place + 1}]" for place in ranking.order)
    assert ranking.repairs == 0


def test_grouprank_grades_a_group_freely_on_a_random_checkpoint(random_checkpoint: Callable[..., Path]) -> None:
    told = family_options("grouprank", {"device": "cpu", "max_thought_tokens": 6, "max_repair_rate": 1.0})
    [ranking] = Ranker(random_checkpoint("qwen2", ()), strategy=FAMILY["grouprank"].strategy, **told).rank([REQUEST])
    # What a random model writes holds no grade: both rounds are repaired, and the order stays.
    assert ranking.order == (0, 1, 2) and ranking.repairs == len(ranking.steps) == 2


def test_erank_scores_the_grade_by_its_probability(random_checkpoint: Callable[..., Path]) -> None:
    folder = random_checkpoint("qwen3", tuple("0123456789"))
    ranker = Ranker(folder, strategy="pointwise", **family_options("erank", {"device": "cpu", "max_thought_tokens": 6}))
    call = next(ranker.program(REQUEST))
    said = call.messages[-1].content
    # As in the paper's figure 5: what counts as relevant, query, document, grades and form, in one user's turn.
    order = ("A passage that helps to answer", REQUEST.query, "they jump", "0, 1, 2, 3, 4, 5, 6", "<think>", "<answer>")
    assert sorted(order, key=said.index) == list(order) and [turn.role for turn in call.messages] == ["user"]
    assert call.identifiers == tuple(map(str, range(11))) and call.thinks and call.tagged
    [ranking] = ranker.rank([REQUEST])
    for place, step in enumerate(ranking.steps):
        [answer] = ranker.backend.answer([ranker.prompt.ask("pointwise", REQUEST, (place,))])
        # 1 is the beginning of 10, and both have a probability of their own.
        assert answer.probabilities is not None and tuple(answer.probabilities) == call.identifiers
        assert sum(answer.probabilities.values()) == pytest.approx(1) and min(answer.probabilities.values()) > 0
        grade, chance = max(answer.probabilities.items(), key=lambda item: item[1])
        assert step.text.endswith(f"<answer>{grade}</answer>")
        assert step.grade == pytest.approx(int(grade) * chance, abs=1e-4)
    assert ranking.repairs == 0
