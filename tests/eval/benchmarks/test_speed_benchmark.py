"""`r1ranker benchmark`: what is counted, that all variants rank alike, what is written, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.random_weights import CONFIGURATIONS, open_configuration, random_model
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.options import RankingOptions

torch = pytest.importorskip("torch")

from r1ranker_ir.backends.local import TransformersBackend  # noqa: E402
from r1ranker_ir.backends.texts import ChatTokenizer  # noqa: E402
from r1ranker_ir.eval.benchmarks.forcing import no_early_end  # noqa: E402
from r1ranker_ir.eval.benchmarks.lists import made_passage, made_thought, make_lists  # noqa: E402
from r1ranker_ir.eval.benchmarks.meter import metered  # noqa: E402
from r1ranker_ir.eval.benchmarks.model import BenchmarkModel, open_model  # noqa: E402
from r1ranker_ir.eval.benchmarks.rows import SpeedResult, SpeedRow, SpeedSettings  # noqa: E402
from r1ranker_ir.eval.benchmarks.speed import measure_speed  # noqa: E402
from r1ranker_ir.eval.benchmarks.variants import DEFAULT_VARIANTS, Variant, parse_variant, parse_variants  # noqa: E402

DEMO = Path(TINY_CHECKPOINT).parent / "demo_collection"
SMALL = {
    **{"model_type": "qwen2", "vocab_size": 3200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048},
    "tie_word_embeddings": True,
}
CALLS = {
    **dict.fromkeys(("naive", "one+no-reuse", "one", "one+mark", "one+think=first", "one+mark+think=first"), 19),
    **dict.fromkeys(("halving:5", "halving:5+mark"), 6),  # 20 10 5 4 3 2
    **dict.fromkeys(("think=never", "direct", "direct+think=never"), 1),
}
THOUGHT = 2
SETTINGS = SpeedSettings(candidates=20, passage_tokens=10, thought_tokens=THOUGHT)


@pytest.fixture(scope="module")
def counts() -> TransformersBackend:
    """What counts the embedded model's tokens."""
    return TransformersBackend(str(TINY_CHECKPOINT), device="cpu")


@pytest.fixture(scope="module")
def texts(model: BenchmarkModel) -> ChatTokenizer:
    return ChatTokenizer(model.tokenizer)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the configuration of a very small model."""
    path = tmp_path_factory.mktemp("configurations") / "small.json"
    path.write_text(json.dumps(SMALL))
    return path


@pytest.fixture(scope="module")
def model(small: Path) -> BenchmarkModel:
    return open_model(None, str(small), device="cpu", dtype="auto", seed=0)


@pytest.fixture(scope="module")
def result(model: BenchmarkModel) -> SpeedResult:
    """All usual variants over one list of 20."""
    return measure_speed(model, parse_variants(DEFAULT_VARIANTS), SETTINGS)


@pytest.fixture(scope="module")
def rows(result: SpeedResult) -> dict[str, SpeedRow]:
    return {row.variant: row for row in result.rows}


@pytest.fixture(scope="module")
def shrinking(counts: TransformersBackend, texts: ChatTokenizer, prompt: Prompt) -> list[list[int]]:
    """The prompts of a published elimination whose last candidate goes at every step."""
    [request] = make_lists(counts, SETTINGS)
    return [texts.prompt_ids(prompt.ask("iterative", request, range(left)).messages) for left in range(20, 1, -1)]


def run(*arguments: object, code: int = 0) -> Any:
    return r1ranker("benchmark", *arguments, code=code)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    return next((place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), 0)


# --- what is counted


def test_calls_and_sent_tokens_are_those_of_the_prompts(
    result: SpeedResult,
    rows: dict[str, SpeedRow],
    shrinking: list[list[int]],
    counts: TransformersBackend,
    texts: ChatTokenizer,
    prompt: Prompt,
) -> None:
    assert {name: row.calls for name, row in rows.items()} == CALLS
    assert result.floor.prompt_tokens == len(shrinking[0])
    assert {rows[name].prompt_tokens for name in ("naive", "one+no-reuse", "one")} == {sum(map(len, shrinking))}
    assert rows["halving:5"].prompt_tokens == sum(len(shrinking[20 - left]) for left in (20, 10, 5, 4, 3, 2))
    [request] = make_lists(counts, SETTINGS)
    marked = [prompt.ask("mark", request, range(20), range(19, 19 - gone, -1)) for gone in range(19)]
    assert rows["one+mark"].prompt_tokens == sum(len(texts.prompt_ids(call.messages)) for call in marked)
    assert rows["direct"].prompt_tokens == len(texts.prompt_ids(prompt.ask("direct", request, range(20)).messages))


def test_computed_tokens_are_what_no_earlier_prompt_began_with(
    result: SpeedResult, rows: dict[str, SpeedRow], shrinking: list[list[int]]
) -> None:
    for name in ("naive", "one+no-reuse", "think=never", "direct"):
        assert rows[name].prompt_tokens_computed == rows[name].prompt_tokens
    new = sum(len(after) - min(shared(before, after), len(after) - 1) for before, after in pairwise(shrinking))
    assert rows["one"].prompt_tokens_computed <= len(shrinking[0]) + new
    for row in rows.values():
        assert row.prompt_tokens_computed <= row.prompt_tokens
    # Half of the list is read again at the first halving at most; with mark next to nothing ever is.
    assert result.computed_ratio(rows["one"]) < result.computed_ratio(rows["one+no-reuse"]) / 2
    assert result.computed_ratio(rows["one+mark"]) < result.computed_ratio(rows["one"])
    assert result.computed_ratio(result.floor) == 1


def test_every_thought_has_its_full_length(
    rows: dict[str, SpeedRow], counts: TransformersBackend, texts: ChatTokenizer
) -> None:
    closing = THOUGHT + len(texts.continuation("\n</think>\n<answer>"))
    written = [closing + len(texts.identifier_ids(f"[{left}]", first=True)) for left in range(20, 1, -1)]
    assert rows["one"].completion_tokens == rows["one+no-reuse"].completion_tokens == sum(written)
    whole = [counts.count_tokens(f"\n</think>\n<answer>[{left}]</answer>") for left in range(20, 1, -1)]
    assert rows["naive"].completion_tokens == sum(THOUGHT + n for n in whole)
    assert rows["one+think=first"].completion_tokens < rows["one"].completion_tokens - 17 * THOUGHT
    assert rows["think=never"].completion_tokens <= counts.count_tokens("[20]")


def test_memory_is_kept_only_with_reuse_and_all_keep_to_the_order(
    result: SpeedResult, rows: dict[str, SpeedRow]
) -> None:
    assert rows["one+no-reuse"].cache_memory_peak == rows["naive"].cache_memory_peak == 0
    assert rows["one"].cache_memory_peak > 0
    assert result.forced == (tuple(range(20)),)
    assert all(row.orders == [tuple(range(20))] for row in result.rows)


def test_a_random_order_over_several_lists(model: BenchmarkModel) -> None:
    variants = parse_variants("naive one one+mark halving fixed:3+show-best-first think=never direct")
    asked = SpeedSettings(6, 10, 1, queries=3, order="random", batch_size=2, seed=4)
    found = measure_speed(model, variants, asked)
    assert len(set(found.forced)) == 3
    assert [row.orders for row in found.rows] == [list(found.forced)] * len(variants)
    assert [row.calls for row in found.rows] == [15, 15, 15, 9, 6, 3, 3]  # halving: 6 3 2; fixed:3: 6 3
    assert measure_speed(model, variants[-1:], asked).forced == found.forced


def test_the_naive_loop_may_be_scaled(model: BenchmarkModel) -> None:
    asked = SpeedSettings(3, 10, 1, queries=4, naive_queries=1)
    found = measure_speed(model, parse_variants("naive one+no-reuse"), asked)
    naive, lockstep = found.rows
    assert (naive.queries, naive.calls, found.scale(naive)) == (1, 2, 4.0)
    assert found.times_faster(lockstep) == pytest.approx(4 * naive.seconds / lockstep.seconds)
    assert found.times_floor(naive) == pytest.approx(4 * naive.seconds / found.floor.seconds)


# --- what is ranked


@given(tokens=st.integers(9, 150), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_passages_and_thoughts_have_exactly_so_many_tokens(counts: TransformersBackend, tokens: int, seed: int) -> None:
    passage = made_passage(counts, 1234, tokens, random.Random(seed))
    assert counts.count_tokens(passage) == tokens and passage.startswith("number 1234:")
    assert counts.count_tokens(made_thought(counts, tokens, random.Random(seed))) == tokens


def test_what_would_end_a_thought_is_not_written(model: BenchmarkModel) -> None:
    ids = torch.tensor([[5, 6, 7]])
    vocabulary = model.tokenizer.get_vocab()
    ending = [number for token, number in vocabulary.items() if token.endswith(">")]
    assert model.tokenizer.eos_token_id in ending and len(ending) > 3
    with torch.inference_mode():
        with no_early_end(model.model, model.tokenizer):
            logits = model.model(input_ids=ids).logits
        after = model.model(input_ids=ids).logits
    assert torch.isneginf(logits[..., [*ending, 3199]]).all()  # the tokenizer knows no 3199
    assert torch.isfinite(logits).any(-1).all() and torch.isfinite(after).all()


@pytest.mark.parametrize(
    ("name", "strategy", "options", "reuse"),
    [
        ("one", "iterative", RankingOptions(schedule="one"), True),
        ("shrink", "iterative", RankingOptions(), True),
        ("halving:5+mark", "iterative", RankingOptions(schedule="halving:5", layout="mark"), True),
        ("think=first+fixed:2+no-reuse", "iterative", RankingOptions(schedule="fixed:2", think="first"), False),
        ("confident:0.9+top-k=3", "iterative", RankingOptions(schedule="confident:0.9", top_k=3), True),
        ("direct+think=never", "direct", RankingOptions(think="never"), True),
        ("naive", None, RankingOptions(), False),
    ],
)
def test_names_of_variants(name: str, strategy: Any, options: RankingOptions, reuse: bool) -> None:
    assert parse_variant(name) == Variant(name, strategy, options, reuse)


# --- where the time goes


def test_passes_are_counted(model: BenchmarkModel) -> None:
    ids = torch.arange(16).reshape(2, 8)
    with torch.inference_mode(), metered(model.model) as found:
        model.model(input_ids=ids, logits_to_keep=1)
    assert (found.reading.passes, found.reading.tokens, found.writing.passes) == (1, 16, 0)
    with torch.inference_mode(), metered(model.model) as found:
        model.model.generate(ids[:1], max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert (found.reading.passes, found.reading.tokens) == (1, 8)
    assert (found.writing.passes, found.writing.tokens) == (2, 2)


# --- configurations


@pytest.mark.parametrize(("name", "least", "most"), [("qwen2-25m", 23e6, 27e6), ("qwen2.5-3b", 3085938688, 3085938688)])
def test_packaged_configurations(name: str, least: float, most: float) -> None:
    assert name in CONFIGURATIONS
    config, tokenizer = open_configuration(name)
    made = random_model(config, device="meta", dtype="bfloat16", seed=0)
    assert type(made).__name__ == "Qwen2ForCausalLM"
    assert least <= sum(each.numel() for each in made.parameters()) <= most
    assert config.eos_token_id == tokenizer.eos_token_id and config.rope_parameters["rope_theta"] == 1e6


def test_a_seed_makes_the_same_weights_and_leaves_other_random_numbers_alone(small: Path) -> None:
    config, _ = open_configuration(str(small))
    torch.manual_seed(3)
    weights = [
        next(random_model(config, device="cpu", dtype="float32", seed=seed).parameters()).sum().item()
        for seed in (1, 1, 2)
    ]
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert weights[0] == weights[1] != weights[2] and drawn == torch.rand(1)


def test_a_checkpoint_with_a_system_turn_of_its_own(make_checkpoint: Callable[..., Path]) -> None:
    opened = open_model(
        str(make_checkpoint("gemma", max_position_embeddings=4096)), None, device="cpu", dtype="auto", seed=0
    )
    assert opened.checkpoint is not None
    found = measure_speed(opened, parse_variants("naive one one+mark"), SpeedSettings(3, 30, 2))
    assert [row.orders for row in found.rows] == [list(found.forced)] * 3


# --- the command


def test_several_dtypes_stand_beside_each_other(small: Path, tmp_path: Path) -> None:
    done = run(
        *("--config-only", small, "--candidates", 3, "--passage-tokens", 8, "--thought-tokens", 3, "--device", "cpu"),
        *("--variants", "one", "--dtype", "float32, bfloat16", "--output", tmp_path),
    )
    assert "float32, cpu" in done.stdout and "bfloat16, cpu" in done.stdout
    content = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {(each.pop("dtype"), each["variant"]): each for each in content["dtypes"]}
    assert list(rows) == [(d, name) for d in ("float32", "bfloat16") for name in ("one forward pass", "one")]
    for dtype in ("float32", "bfloat16"):
        alone = json.loads((tmp_path / dtype / "benchmark.json").read_text())
        assert alone["model"]["dtype"] == dtype
        for row in (alone["one_forward_pass"], *alone["variants"]):
            assert rows[dtype, row["variant"]].items() <= row.items()
    first, second = (rows[dtype, "one"]["read_tokens_per_second"] for dtype in ("float32", "bfloat16"))
    lines = [line for line in done.stdout.splitlines() if line.split()[:2] == ["bfloat16", "one"]]
    assert any(f"{second / first:.2f}" in line for line in lines)


def test_table_json_and_picture(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    done = run(
        *("--config-only", small, "--candidates", 4, "--passage-tokens", 12, "--thought-tokens", 3, "--queries", 2),
        *("--naive-queries", 1, "--repeat", 2, "--variants", "naive,one halving", "--cache-memory", "1MiB"),
        *("--seed", 7, "--device", "cpu", "--output", folder),
    )
    assert "naive (scaled from 1 of 2 lists)" in done.stdout and "one forward pass" in done.stdout
    # The folder's path decides where the title is wrapped.
    assert "2 lists of 4 passages of 12 tokens, thoughts of 3, first-stage order" in " ".join(done.stdout.split())
    assert (folder / "benchmark.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    content = json.loads((folder / "benchmark.json").read_text())
    assert content["command"][:4] == ["r1ranker", "benchmark", "--config-only", str(small)]
    assert "--output" not in content["command"] and "7" in content["command"]
    assert content["model"]["random_weights"] and content["model"]["configuration"]["hidden_size"] == 32
    assert {"torch", "transformers", "python"} <= set(content["versions"])
    assert content["numerics"]["torch_threads"] == torch.get_num_threads()
    assert content["settings"]["passage_tokens"] == 12 and content["settings"]["cache_memory"] == 2**20
    floor, variants = content["one_forward_pass"], {each["variant"]: each for each in content["variants"]}
    assert list(variants) == ["naive", "one", "halving"]
    assert [each["calls"] * each["scale"] for each in variants.values()] == [6, 6, 4]
    for each in variants.values():
        assert each["forced_order_kept"] and each["seconds"] in each["all_seconds"] and len(each["all_seconds"]) == 2
        ratio = each["prompt_tokens_computed"] * each["scale"] / floor["prompt_tokens"]
        assert each["computed_per_full_prompt"] == pytest.approx(ratio)
        phases = each["metered"]
        assert phases["reading"]["passes"] > 0 and phases["writing"]["passes"] > 0
        assert 0 < phases["reading"]["seconds"] + phases["writing"]["seconds"] <= each["seconds"]
    assert variants["naive"]["times_faster_than_naive"] == pytest.approx(1)


def test_quality_against_cost(bm25_run: Path, tmp_path: Path) -> None:
    done = run(
        *("tiny", "--corpus", DEMO, "--run", bm25_run, "--depth", 4, "--queries", 2, "--thought-tokens", 4),
        *("--measure", "nDCG@3 RR", "--variants", "halving one think=never direct", "--device", "cpu"),
        *("--output", tmp_path),
    )
    assert "minus one (95% interval)" in done.stdout and "2 judged queries" in done.stdout
    assert (tmp_path / "benchmark.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert content["baseline"] == "one" and not content["model"]["random_weights"]
    variants = {each["variant"]: each for each in content["variants"]}
    calls = {"halving": 2 * 2, "one": 2 * 3, "think=never": 2, "direct": 2}
    assert {name: each["calls"] for name, each in variants.items()} == calls
    baseline = variants["one"]["measures"]
    for name, each in variants.items():
        assert each["prompt_tokens_computed"] <= each["prompt_tokens"]
        for measure in ("nDCG@3", "RR"):
            found = each["measures"][measure]
            if name != "one":
                low, high = found["difference_interval"]
                assert found["difference"] == pytest.approx(found["mean"] - baseline[measure]["mean"])
                assert low <= found["difference"] <= high and len(found["per_query_difference"]) == 2


# --- what is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read"),
        ("{", "can't be read"),
        ("[1]", "names no model_type"),
        ('{"hidden_size": 32}', "names no model_type"),
        ('{"model_type": "no such"}', "can't be used"),
        (json.dumps(SMALL | {"vocab_size": 500}), "vocab_size of 500.*has 3124 tokens"),
        (json.dumps(SMALL | {"num_attention_heads": "four"}), "can't be used|can be made"),
        (json.dumps({"model_type": "vit", "vocab_size": 4000}), "can be made"),
    ],
)
def test_bad_configurations(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        open_model(None, str(path), device="cpu", dtype="auto", seed=0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--variants", "one halvin"], 1, "halvin"),
        (["--variants", "mark+shrink"], 1, "says twice"),
        (["--variants", "direct+mark"], 1, "iterative strategy"),
        (["--variants", ""], 1, "no variant given"),
        (["--candidates", "200"], 1, "200 candidates of 100 tokens"),
        (["--thought-tokens", "1500"], 1, "more than half of the context"),
        *((["--dtype", given], 2, "--dtype") for given in ("int8", "float32,int8", ",")),
        (["--passage-tokens", "2"], 1, "--passage-tokens is 2"),
        (["--naive-queries", "2"], 1, "naive_queries is 2"),
        (["--cache-memory", "much", "--candidates", "3"], 2, "the size is 'much'"),
        (["--device", "nonsense"], 1, "nonsense"),
        (["--template", "no-such.toml"], 1, "no-such.toml"),
        (["--measure", "nDCG@5"], 2, "needs --corpus"),
        (["--corpus", "demo"], 2, "no better than chance"),
        (["tiny"], 2, "give one of them"),
    ],
)
def test_mistakes_are_explained(small: Path, arguments: list[str], code: int, message: str) -> None:
    assert message in " ".join(run("--config-only", small, *arguments, code=code).output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "first stage's run"),
        (["--run", "RUN", "--candidates", "5"], 2, "lists of its own"),
        (["--run", "RUN", "--variants", "one"], 1, "nothing to compare"),
        (["--run", "RUN", "--variants", "one naive"], 1, "always forced"),
        (["--run", "RUN", "--variants", "one one+mark"], 1, "section [mark]"),
        (["--run", "RUN", "--measure", "nDCG@five"], 1, "nDCG@five"),
        (["--run", "no-such.trec"], 1, "no-such.trec"),
    ],
)
def test_mistakes_about_quality(bm25_run: Path, arguments: list[str], code: int, message: str) -> None:
    given = [str(bm25_run) if argument == "RUN" else argument for argument in arguments]
    shown = run("tiny", "--corpus", DEMO, *given, code=code).output.replace("│", " ")
    assert message in " ".join(shown.split())


def test_files_that_do_not_suit(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.toml"
    path.write_text("")
    assert "choose another --output" in run("--config-only", small, "--output", path, code=1).output
    path.write_text('name = "plain"\ncandidate = "{identifier} {text}"\n[iterative]\nuser = "{query}\\n{candidates}"\n')
    assert "has no section [mark]" in run("--config-only", small, "--template", path, code=1).output
