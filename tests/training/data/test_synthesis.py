"""Synthesized training data: what a teacher's answers become, what is dropped and why, and that no kill costs work."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from servers import Reply, Request, ScriptedServer, Serve, completion

from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.rankers.source import ranker_source
from r1ranker_ir.thoughts.choosing import words_of
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.ranking_measures import ndcg
from r1ranker_ir.training.data.records import judged
from r1ranker_ir.training.data.sample_files import read_samples
from r1ranker_ir.training.data.synthesis import lists, queries
from r1ranker_ir.training.data.synthesis.command import synthesize
from r1ranker_ir.training.data.synthesis.consistency import (
    AGAINST_LABELS,
    DISAGREE,
    TOO_FEW_ORDERS,
    consistency_of,
    ndcg_of,
)
from r1ranker_ir.training.data.synthesis.lists import found_request, labelled_list
from r1ranker_ir.training.data.synthesis.near_duplicates import NearTexts
from r1ranker_ir.training.data.synthesis.queries import COPIED, LENGTH, NOT_WRITTEN, Query, read_query
from r1ranker_ir.training.data.synthesis.settings import Synthesis
from r1ranker_ir.training.data.synthesis.teachers import Encoder, Roles, Try
from r1ranker_ir.types import Candidate, RankingRequest

TOPICS = {
    "kettle": "copper spout whistle boils steam",
    "violin": "maple bow strings resin bridge",
    "glacier": "ice valley moraine meltwater crevasse",
    "compass": "needle north magnet brass housing",
    "beaver": "dam lodge teeth timber stream",
    "lantern": "wick oil glass flame handle",
}
PASSAGES = {
    f"{topic}-{number}": text.format(topic, *words.split())
    for topic, words in TOPICS.items()
    for number, text in enumerate(
        (
            "Winter harms a {0}: frost in the {1} and the {2} is why it should be kept dry, and its {3} and {4} wiped.",
            "A {0} stands in the town museum, with a {4} on loan; visitors like its {5} far more than the {3} of old.",
            "Sailors sing of a {0} and a {5}, of harbours, storms and distant {3}, whenever the night watch is long.",
        )
    )
}
ASKED = {
    name: "why should a {} of {} and {} be kept dry".format(name, *words.split()) for name, words in TOPICS.items()
}
OWN = {f"q-{topic}": query for topic, query in ASKED.items()}
FEW: dict[str, Any] = {"depth": 6, "candidates": 3, "samples": 2, "max_negative": 4, "at_once": 2}


def overlap(query: str, text: str) -> int:
    return len({word for word in words_of(query) if len(word) > 3} & set(words_of(text)))


def teacher(request: Request) -> Reply:
    """A model that counts words; of the museum's passages it writes no usable query."""
    asked = request.question
    if passage := re.search(r"Passage: (.*)", asked):
        name = next(topic for topic in TOPICS if topic in passage[1])
        said = f"Question: \u201c{ASKED[name]}?\u201d" if "frost" in passage[1] else passage[1]
        return completion("songs" if "Sailors" in passage[1] else f"<think>It says so.</think>\n{said}\nor so")
    query = re.search(r"Request: (.*)", asked)[1]  # type: ignore[index]
    if "to be graded" in asked:
        text = asked.partition("to be graded:")[2].partition("How well")[0]
        return completion(f"<think>Counted.</think><answer>[{2 * min(5, overlap(query, text))}]</answer>")
    shown = request.shown
    order = sorted(shown, key=lambda name: (-overlap(query, shown[name]), shown[name]))
    return completion(f"<think>Most words first.</think><answer>{' > '.join(order)}</answer>")


def told(server: ScriptedServer, **more: Any) -> dict[str, Any]:
    return {"backend": "openai", "base_url": server.base_url, **more}


def by_server(server: ScriptedServer, **more: Any) -> Roles:
    return Roles(ranker_source("m", "direct", told(server, **more)))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Passages with queries that nobody has judged."""
    return str(write_corpus(tmp_path / "corpus", PASSAGES, OWN, {}))


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """Passages without queries."""
    folder = write_corpus(tmp_path / "bare", PASSAGES, OWN)
    (folder / "queries.jsonl").unlink()
    return str(folder)


# --- parts ---------------------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from("a bb ccc dddd eeeee ffffff ggggggg hhhhhhhh".split()), max_size=9).map(" ".join)


@given(st.lists(WORDS, max_size=8), WORDS, st.sampled_from([0.5, 0.8, 1.0]))
def test_near_texts_are_those_that_share_most_words(texts: list[str], text: str, least: float) -> None:
    def near(one: str, other: str) -> bool:
        first, second = set(one.split()) or {one}, set(other.split()) or {other}
        return len(first & second) >= least * len(first | second)

    assert NearTexts(texts, least).holds(text) == any(near(text, other) for other in texts)


@pytest.mark.parametrize(
    ("output", "query", "fault"),
    [
        ("Why does dough rise?", "Why does dough rise?", ""),
        ("<think>\nbread\n</think>\nQuery 1: *why does  dough rise*\n\nmore", "why does dough rise", ""),
        ("<think>so</think><answer>how is wool spun</answer>", "how is wool spun", ""),
        ("<think>never ended", "", NOT_WRITTEN),
        (" \n [] ", "", NOT_WRITTEN),
        ("dough rises", "dough rises", LENGTH),
        ("word " * 33, ("word " * 33).strip(), LENGTH),
        ("Yeast makes dough rise", "Yeast makes dough rise", COPIED),
    ],
)
def test_a_query_is_read_from_free_text(output: str, query: str, fault: str) -> None:
    assert read_query(output, "In warm rooms, yeast makes dough rise.") == (query, fault)


def listed(grades: list[float], passage: str = "", **more: Any) -> Any:
    request = RankingRequest("q", tuple(Candidate(f"d{n}", f"text {n}") for n in range(len(grades))), query_id="q")
    made = labelled_list(Query("q", "q", passage), request, grades, "s", Synthesis(**more), left_out := Counter())
    if isinstance(made, str):
        return made
    return [each.id for each in made.record.request.candidates], list(made.record.gains), made.grades, dict(left_out)


@pytest.mark.parametrize(
    ("grades", "options", "expected"),
    [
        ([1, 8.4, 4, 0], {}, (["d0", "d1", "d3"], [0, 8, 0], (1, 8.4, 0), {lists.UNSURE: 1})),
        ([1, 9, 2, 7, 0, 8], {"candidates": 4}, (["d0", "d1", "d2", "d5"], [0, 9, 0, 8], (1, 9, 2, 8), {})),
        ([1, 9, 2, 7], {"candidates": 2, "passage": "d3"}, (["d0", "d3"], [0, 7], (1, 7), {})),
        ([1, 9, 2, 5], {"passage": "d3"}, lists.OWN_NOT_POSITIVE),
        ([1, 2], {}, lists.NO_POSITIVE),
        ([9, 7, 5], {}, lists.NO_NEGATIVE),
    ],
)
def test_a_list_has_positives_and_the_hardest_negatives(grades: Any, options: dict[str, Any], expected: Any) -> None:
    assert listed(grades, **options) == expected


def test_candidates_are_found_without_near_duplicates() -> None:
    texts = {"a": "one two three four five", "b": "five four three two one!", "c": "six seven", "d": " "}
    entries = [RunEntry(doc_id, 1.0) for doc_id in "abcd"]
    for passage, kept in (("", ["a", "c"]), ("b", ["b", "c"])):
        found = found_request(Query("q", "query", passage), entries, texts, left_out := Counter())
        assert isinstance(found, RankingRequest) and [each.id for each in found.candidates] == kept
        assert left_out == {lists.BLANK: 1, lists.NEAR: 1}
    assert found_request(Query("q", "query", "z"), entries, texts, Counter()) == lists.NOT_FOUND
    assert found_request(Query("q", "query"), entries[:2], texts, Counter()) == lists.TOO_FEW


@given(st.lists(st.integers(0, 10), min_size=2, max_size=12).flatmap(
    lambda gains: st.tuples(st.just(gains), st.permutations(range(len(gains))))
))  # fmt: skip
def test_ndcg_is_that_of_the_rewards(case: tuple[list[int], list[int]]) -> None:
    gains, order = case
    [[found]] = ndcg_of([gains], [[tuple(order)]])
    assert found == pytest.approx(ndcg([gains[place] for place in order], gains, 10))


def test_lists_are_kept_whose_orders_agree() -> None:
    record = judged("q", [Candidate(str(n), "t") for n in range(4)], [8, 0, 0, 6])
    good, other, bad = (0, 3, 1, 2), (0, 3, 2, 1), (1, 2, 3, 0)

    def reason(*orders: tuple[int, ...], usable: bool = True, **more: Any) -> str:
        [found] = consistency_of([record], [[Try(each, (), usable) for each in orders]], Synthesis(**more))
        return found.reason

    assert reason(good, other) == reason(good) == ""
    assert reason(bad, bad) == AGAINST_LABELS and reason(good, bad) == DISAGREE
    assert reason(good, bad, min_agreement=-1.0, min_ndcg=0.5) == ""
    assert reason() == reason(good, usable=False) == TOO_FEW_ORDERS
    [mixed] = consistency_of([record], [[Try(good, ()), Try(other, (), usable=False)]], Synthesis())
    assert mixed.reason == TOO_FEW_ORDERS and mixed.ndcg == (1.0,)


# --- whole ---------------------------------------------------------------------------------------------------------


def test_from_passages_to_files(bare: str, tmp_path: Path, serve: Serve) -> None:
    server, output = serve(teacher), tmp_path / "out"
    found = r1ranker(
        "data", "synthesize", "--corpus", bare, "--teacher", "m", "--strategy", "direct", "--output", output,
        "--backend", "openai", "--base-url", server.base_url, "--depth", 6, "--candidates", 3, "--samples", 2,
        "--max-negative", 4,
    )  # fmt: skip
    report = json.loads((output / "report.json").read_text())
    assert report["written"] and report["lists"] == report["rl_samples"] == report["sft_samples"] == len(TOPICS)
    assert report["dropped"]["queries"] == {COPIED: len(TOPICS), LENGTH: len(TOPICS)}
    assert f"{len(TOPICS)} lists" in found.stderr and COPIED in found.stderr
    # Costs are what the server was asked and has counted.
    costs = report["costs"]
    assert {step: cost["calls"] for step, cost in costs.items()} == {"queries": 18, "labels": 36, "orders": 12}
    assert sum(cost["calls"] for cost in costs.values()) == len(server.requests)
    assert all(cost["prompt_tokens"] == 40 * cost["calls"] for cost in costs.values())
    assert all(cost["completion_tokens"] == 12 * cost["calls"] for cost in costs.values())
    rl, sft = read_samples(output / "rl.parquet"), read_completions(output / "sft.parquet")
    for row in rl:
        topic = row["id"].removeprefix("for-").removesuffix("-0")
        assert row["context"] == f"{ASKED[topic]}?"
        assert dict(zip(row["candidate_ids"], row["gains"], strict=True))[f"{topic}-0"] == max(row["gains"]) >= 8
    for row in sft:
        answer = [int(each) - 1 for each in re.findall(r"\[(\d+)\]", row["completion"])]
        assert "Most words first." in row["completion"] and row["gains"][answer[0]] == max(row["gains"])
    assert (output / "sft.parquet").stat().st_mode & 0o077 == 0
    # The same command again asks nothing.
    asked = len(server.requests)
    again = synthesize(bare, by_server(server), output, Synthesis(depth=6, candidates=3, samples=2, max_negative=4))
    assert again.finished_before == 3 and len(server.requests) == asked


def compared(folder: Path) -> tuple[bytes, bytes, Any]:
    """What must not depend on how often a run was stopped."""
    report = json.loads((folder / "report.json").read_text())
    for cost in report["costs"].values():
        del cost["seconds"], cost["cached"]
    del report["finished_before"]
    return (folder / "rl.parquet").read_bytes(), (folder / "sft.parquet").read_bytes(), report


@pytest.mark.parametrize("deadly", [5, 21, 40], ids=["writing", "grading", "later"])
def test_a_killed_run_goes_on_where_it_was(deadly: int, bare: str, tmp_path: Path, serve: Serve) -> None:
    whole = serve(teacher)
    synthesize(bare, by_server(whole), tmp_path / "whole", Synthesis(**FEW))
    output, running = tmp_path / "out", list[subprocess.Popen[bytes]]()

    def killing(request: Request) -> Reply:
        if len(server.requests) == deadly:
            os.kill(running[0].pid, signal.SIGKILL)
            time.sleep(0.1)
        return teacher(request)

    server = serve(killing)
    command = [sys.executable, "-m", "r1ranker_ir", "data", "synthesize", "--corpus", bare, "--teacher", "m"]
    command += ["--strategy", "direct", "--output", str(output), "--backend", "openai", "--base-url", server.base_url]
    command += ["--no-cache", *(f"--{name.replace('_', '-')}={value}" for name, value in FEW.items())]
    running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    assert running[0].wait(120) == -signal.SIGKILL and not (output / "report.json").exists()
    finished = (output / "synthesis.jsonl.partial").read_bytes().count(b"\n") - 1
    before = len(server.requests)
    report = synthesize(bare, by_server(server), output, Synthesis(**FEW))
    assert report.finished_before == finished > 0
    assert compared(output) == compared(tmp_path / "whole")
    # What was repeated is less than a step, whose calls are at most 2 queries' labels and orders.
    assert len(server.requests) - before < len(whole.requests) <= len(server.requests) < len(whole.requests) + 16
    assert sorted(path.name for path in output.iterdir()) == [
        "report.json",
        "rl.parquet",
        "sft.parquet",
        "synthesis.jsonl",
    ]


def oracle(noise: float, strategy: str = "direct") -> Roles:
    gains = {
        f"q-{topic}": {f"{topic}-0": 2.0, ("violin-0" if topic != "violin" else "kettle-0"): 1.4} for topic in TOPICS
    }
    return Roles(ranker_source("oracle", strategy, {"backend": "oracle", "gains": gains, "noise": noise}))


@pytest.mark.parametrize("strategy", ["direct", "iterative", "setwise"])
def test_an_oracle_is_kept_and_a_noisy_one_is_not(strategy: str, corpus: str, tmp_path: Path) -> None:
    report = synthesize(corpus, oracle(0.0, strategy), tmp_path / "sure", Synthesis(**FEW))
    assert report.lists == len(TOPICS) and report.ndcg == 1.0 and not report.sft_samples
    assert report.dropped["answers"]["no thought"] and not (tmp_path / "sure" / "sft.parquet").exists()
    assert {row["strategy"] for row in read_samples(tmp_path / "sure" / "rl.parquet")} == {strategy}
    many = Synthesis(**(FEW | {"samples": 6}))
    with pytest.raises(InputError, match=r"no list is kept, see .*report\.json"):
        synthesize(corpus, oracle(50.0, strategy), tmp_path / "noisy", replace(many, min_ndcg=1.0))
    assert sum(json.loads((tmp_path / "noisy" / "report.json").read_text())["dropped"]["lists"].values()) == 6


def test_a_model_that_echoes_its_prompt_is_never_kept(corpus: str, tmp_path: Path, serve: Serve) -> None:
    def echoing(request: Request) -> Reply:
        answer = " > ".join(request.shown)
        return (
            completion(f"<think>x</think><answer>{answer}</answer>")
            if "ordered" in request.question
            else teacher(request)
        )

    with pytest.raises(InputError, match="6 lists dropped"):
        synthesize(corpus, by_server(serve(echoing)), tmp_path / "o", Synthesis(**(FEW | {"samples": 5}), min_ndcg=0.9))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A sentence encoder whose embeddings are bags of words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = dict.fromkeys(word for text in (*PASSAGES.values(), *ASKED.values()) for word in words_of(text))
    vocabulary = {word: place for place, word in enumerate(("[PAD]", "[UNK]", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 0}
    model = BertModel(BertConfig(vocab_size=len(vocabulary), initializer_range=1.0, **sizes))
    for each in (model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
        torch.nn.init.zeros_(each.weight)
    model.save_pretrained(folder)
    return Encoder(str(folder))


def test_an_encoder_or_a_model_that_scores_may_teach(
    encoder: Encoder, corpus: str, bare: str, tmp_path: Path, serve: Serve
) -> None:
    few = Synthesis(**FEW, min_ndcg=0.0)
    likely = ranker_source(str(TINY_CHECKPOINT), "likelihood", {"device": "cpu", "cache": None})
    for name, roles in (("encoder", Roles(encoder)), ("scores", Roles(likely)), ("both", Roles(likely, encoder))):
        report = synthesize(corpus, roles, tmp_path / name, few)
        [sample, *_] = read_completions(tmp_path / name / "sft.parquet")
        thought = sample["completion"].split("</think>")[0]
        assert len(re.findall(r'^\[\d+\] ".+" \d$', thought, re.MULTILINE)) == len(sample["candidates"])
        calls = {step: cost.calls for step, cost in report.costs.items()}
        assert report.agreement is None and (calls["labels"] > 0, calls["orders"] > 0) == (
            name == "scores",
            name == "both",
        )
    for row in read_samples(tmp_path / "encoder" / "rl.parquet"):
        best = max(range(len(row["gains"])), key=row["gains"].__getitem__)
        assert row["candidate_ids"][best] == f"{row['id'].removeprefix('q-')}-0"
    with pytest.raises(InputError, match="name a model as --writer"):
        synthesize(bare, Roles(encoder), tmp_path / "none", few)
    wrote = serve(teacher)
    written = synthesize(bare, Roles(encoder, writer=by_server(wrote).teacher), tmp_path / "w", few)  # type: ignore[arg-type]
    assert written.written and len(wrote.requests) == 18 == written.costs["queries"].calls


def test_test_data_and_other_splits_stay_out(corpus: str, tmp_path: Path) -> None:
    (Path(corpus) / "qrels.trec").unlink()
    for split, topic in (("train", "kettle"), ("dev", "violin")):
        place = Path(corpus) / "qrels" / f"{split}.tsv"
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"query-id\tcorpus-id\tscore\nq-{topic}\t{topic}-0\t1\n")
    test_queries = {"t1": OWN["q-glacier"].upper(), "t2": f"{OWN['q-beaver']} now", "t3": "brass needles"}
    documents = {"x": PASSAGES["lantern-0"], "y": "other words"}
    judgments = {("t1", "y"): 1, ("t2", "y"): 1, ("t3", "x"): 1}
    other = write_corpus(tmp_path / "test", documents, test_queries, judgments)
    report = synthesize(corpus, oracle(0.0), tmp_path / "o", Synthesis(**FEW, test_corpora=(str(other),)))
    dropped = report.dropped["queries"]
    assert dropped == {queries.OTHER_SPLIT: 1, queries.NEAR_TEST: 1, f"a test query of {other}": 1}
    assert report.dropped["candidates"]["a test query's positive"] == 1
    rows = {row["id"]: row["candidate_ids"] for row in read_samples(tmp_path / "o" / "rl.parquet")}
    assert rows.keys() == {"q-kettle", "q-compass", "q-lantern"} and "lantern-0" not in rows["q-lantern"]
    assert report.judged["kept"]["lists"] == report.judged["kept"]["positives judged relevant"] == 1


WRONG: list[tuple[str, Callable[[str, str, Path], Any], str]] = [
    ("grades", lambda c, b, o: Synthesis(min_grade=3, max_negative=3), "max_negative is 3 and min_grade 3"),
    ("depth", lambda c, b, o: Synthesis(depth=5), "candidates is 10 and depth 5"),
    ("stage", lambda c, b, o: Synthesis(first_stage="magic"), "first stage 'magic' is unknown"),
    (
        "run",
        lambda c, b, o: synthesize(b, oracle(0.0), o, Synthesis(first_stage="run:x")),
        "has no entries for queries",
    ),
    ("strategy", lambda c, b, o: synthesize(c, oracle(0.0, "groupwise"), o), "strategy 'groupwise' neither"),
    ("inside", lambda c, b, o: synthesize(c, oracle(0.0), c), "lies in folder"),
]


@pytest.mark.parametrize(("act", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_makes_no_sense_is_said(act: Any, said: str, corpus: str, bare: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        act(corpus, bare, tmp_path / "o")


def test_work_of_other_settings_is_not_mixed_in(corpus: str, tmp_path: Path) -> None:
    synthesize(corpus, oracle(0.0), tmp_path / "o", Synthesis(**FEW))
    kept = compared_rl = (tmp_path / "o" / "rl.parquet").read_bytes()
    for settings, roles, said in (
        (Synthesis(**(FEW | {"samples": 4})), oracle(0.0), r"another samples \(2, now 4\)"),
        (Synthesis(**FEW), oracle(0.5), "another teacher"),
    ):
        with pytest.raises(InputError, match=said):
            synthesize(corpus, roles, tmp_path / "o", settings)
    assert (tmp_path / "o" / "rl.parquet").read_bytes() == kept == compared_rl
