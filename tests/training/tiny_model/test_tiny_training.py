"""The embedded model's generated data, tokenizer and training script."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, read_settings
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.training.demo.lexicon import STOP_WORDS, Lexicon, build_lexicon, read_documentation, strip_plural
from r1ranker_ir.training.demo.lists import (
    IDENTIFIERS,
    MOST_SIGNS,
    CandidateList,
    Mode,
    excluded_position,
    falling_order,
    first_place,
    match_weight,
    walked_words,
    word_weight,
)
from r1ranker_ir.training.tiny_model import train as training
from r1ranker_ir.training.tiny_model.examples import ExampleEncoder
from r1ranker_ir.training.tiny_model.lists import Shape, generate_list
from r1ranker_ir.training.tiny_model.tokenizer import MARKS, train_tokenizer
from r1ranker_ir.training.tiny_model.train import CURRICULUM, Options, train
from r1ranker_ir.types import Candidate, RankingRequest

MODES: tuple[Mode, ...] = ("exclude", "order")


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return build_lexicon(read_documentation())


@pytest.fixture(scope="module")
def encoder(lexicon: Lexicon) -> ExampleEncoder:
    return ExampleEncoder(train_tokenizer(lexicon.prose[:40_000], 600), lexicon.common)


def test_plurals_lose_their_s_and_other_words_keep_it() -> None:
    kept = ["class", "bus", "this", "analysis", "is", "gas", "s", "cats1"]
    assert [strip_plural(word) for word in kept] == kept
    assert [strip_plural(word) for word in ("fleas", "cycles", "passages")] == ["flea", "cycle", "passage"]


@given(st.text(max_size=80))
def test_encoding_survives_any_text_and_marks_stay_single_tokens(encoder: ExampleEncoder, text: str) -> None:
    ids = encoder.tokenizer.encode(text, add_special_tokens=False)
    marks = {encoder.tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    plain = [token for token in ids if token not in marks]
    words = re.findall("[a-z0-9]+", encoder.tokenizer.decode(plain))
    assert all(encoder.tokenizer.convert_ids_to_tokens(token) is not None for token in ids)
    # Decoding and encoding again changes nothing: every word is made of known pieces.
    assert encoder.tokenizer.encode(" ".join(words), add_special_tokens=False) == plain


def test_marks_are_one_token_each(encoder: ExampleEncoder) -> None:
    assert [len(encoder.tokenizer.encode(mark, add_special_tokens=False)) for mark in MARKS] == [1] * len(MARKS)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from(MODES))
def test_lists_keep_to_their_shape_and_seed_and_their_signs_are_labelled(
    lexicon: Lexicon, encoder: ExampleEncoder, seed: int, mode: Mode
) -> None:
    shape = Shape((2, 6), (4, 12), (1, 4))
    generated, again, other = (generate_list(random.Random(each), shape, lexicon) for each in (seed, seed, seed + 1))
    assert generated == again != other
    assert 2 <= len(generated.passages) <= 6
    assert all(len(passage) == 0 or 4 <= len(passage) <= 12 for passage in generated.passages)
    walked = walked_words(generated.query)
    assert generated.query and len(walked) <= 4 and not STOP_WORDS & set(walked)
    example = encoder.encode(generated, mode)
    assert len({len(example.ids), len(example.weights), len(example.passage), len(example.match)}) == 1
    assert len(example.signs) == sum(
        word_weight(word, lexicon.common) if word in passage else 1 for passage in generated.passages for word in walked
    )
    assert {encoder.tokenizer.convert_ids_to_tokens(example.ids[place]) for place in example.signs} <= {"+", "-"}


def test_common_words_are_the_frequent_ones() -> None:
    text = "tuple tuple tuple the the the the " + " ".join(f"rare{number}x" for number in range(1100))
    common = build_lexicon(text).common
    assert len(common) == 1000
    assert "tuple" in common
    assert "the" not in common


def test_walk_weight_and_place_of_a_list_worked_by_hand() -> None:
    assert walked_words("how long is the life cycle of a flea life".split()) == ["life", "cycle", "flea"]
    passage = "it take one two three four the cycle of a flea".split()
    for common, weight in (({"cycle", "life"}, 1 + 2), (set[str](), 2 + 2)):
        assert match_weight(["life", "cycle", "flea"], passage, common) == weight
    assert match_weight("abcdefgh", "abcdefgh", set()) == MOST_SIGNS == 9
    assert first_place(["life", "cycle", "flea"], passage) == 4
    assert [first_place(["x"], ["y"] * before + ["x"]) for before in (0, 1, 2, 3, 4, 28, 29)] == [1, 1, 2, 2, 3, 7, 8]
    assert (first_place(["life"], passage), first_place(["life"], ["x"] * 60 + ["life"])) == (9, 8)
    assert excluded_position([2, 1, 1, 1], [1, 4, 2, 4]) == 3
    assert falling_order([1, 3, 0, 3]) == [1, 3, 0, 2]


FLEAS = CandidateList(("the", "flea", "cycle"), (("a", "flea"), ("no", "thing"), ("cycle", "flea")))


def written(encoder: ExampleEncoder, common: set[str], candidates: CandidateList, mode: Mode) -> str:
    example = ExampleEncoder(encoder.tokenizer, common).encode(candidates, mode)
    learned = [token for token, weight in zip(example.ids, example.weights, strict=True) if weight]
    return re.sub(r"\s+", " ", str(encoder.tokenizer.decode(learned)))


def test_thoughts_and_answers_decode_to_the_protocol(encoder: ExampleEncoder) -> None:
    text = written(encoder, {"cycle"}, FLEAS, "exclude")
    assert "[1] flea + + cycle - =2 @1; =2 @1 [1] [2]" in text
    assert "[2] flea - cycle - =0 @9; =0 @9 [2] [3]" in text
    assert "[3] flea + + cycle + =3 @1; =0 @9 [2]" in text
    assert re.search(r"</think> ?<answer> ?\[2\] ?</answer>", text)
    text = written(encoder, {"cycle"}, FLEAS, "order")
    for line in ("[1] flea + + cycle - =2 @1", "[2] flea - cycle - =0 @9", "[3] flea + + cycle + =3 @1"):
        assert line in text
    # Every number of signs that the query's words can make, the greatest first.
    assert "=3 [3] =2 [1] =1 =0 [2]" in text
    assert re.search(r"<answer> ?\[3\] ?> ?\[1\] ?> ?\[2\] ?</answer>", text)
    # How common a word is decides between candidates.
    one_each = CandidateList(("flea", "cycle"), (("flea",), ("cycle",)))
    for common, worst in (("flea", "1"), ("cycle", "2")):
        assert re.search(rf"<answer> ?\[{worst}\] ?</answer>", written(encoder, {common}, one_each, "exclude"))


def test_a_short_training_writes_a_checkpoint_that_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The later stages differ in nothing but the lengths of their lists, and measuring long ones takes long.
    curriculum = CURRICULUM[:2]
    monkeypatch.setattr(training, "CURRICULUM", curriculum)
    folder = tmp_path / "tiny"
    options = Options(batch_tokens=512)
    train(folder, options, scale=0.0015)
    train(folder, options, scale=0.003, resume=True)
    log = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    steps = sum(int(stage.steps * 0.003) for stage in curriculum)
    assert steps > 2  # those before it was resumed
    assert log[-1]["step"] == json.loads((folder / "training.json").read_text())["step"] == steps
    assert all(0 <= log[-1][f"{mode}_signs"] <= 1 for mode in ("exclude", "order"))
    request = RankingRequest("flea", tuple(Candidate(str(n), f"word{n} flea") for n in range(4)))
    for strategy in ("iterative", "direct"):
        ranking = Ranker(folder, strategy=strategy, max_thought_tokens=20).rank([request])[0]
        assert sorted(ranking.order) == [0, 1, 2, 3]


def test_embedded_checkpoint_reads_the_prompt_it_was_trained_on() -> None:
    """The rendered and tokenized prompt of a request equals, token by token, what the training data look like."""
    ranker = Ranker(TINY_CHECKPOINT, strategy="iterative")
    tokenizer = ranker.backend._texts._tokenizer  # type: ignore[attr-defined]
    passages = (("flea", "live", "20", "day"), ("dog", "bark"))
    query = ("flea", "life")
    encoder = ExampleEncoder(tokenizer, set())
    request = RankingRequest(" ".join(query), tuple(Candidate(str(n), " ".join(p)) for n, p in enumerate(passages)))
    for mode, section in (("exclude", "iterative"), ("order", "direct")):
        trained = encoder.encode(CandidateList(query, passages), mode).ids  # type: ignore[arg-type]
        prompt = ranker.backend._texts.prompt_ids(ranker.prompt.ask(section, request, (0, 1)).messages)  # type: ignore[attr-defined]
        assert prompt == trained[: len(prompt)]
        assert tokenizer.convert_ids_to_tokens(prompt[-2:]) == ["<think>", "\n"]


def test_embedded_checkpoint_is_small_and_says_what_it_is() -> None:
    size = sum(path.stat().st_size for path in TINY_CHECKPOINT.rglob("*") if path.is_file())
    assert size <= 8 * 2**20
    settings = read_settings(TINY_CHECKPOINT)
    assert settings.strategies == ("iterative", "direct")
    assert settings.window_size <= len(IDENTIFIERS)
    assert "words, not meaning" in (TINY_CHECKPOINT / "README.md").read_text(encoding="utf-8")
