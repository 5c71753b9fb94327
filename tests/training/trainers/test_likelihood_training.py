"""Distillation into query likelihoods: the loss by hand, a teacher's gains, and trainings that stop and go on."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.cli.app import app
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import CheckpointError, InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, read_settings
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import read_samples, row_of, write_samples
from r1ranker_ir.training.data.samples import Sampling, samples_of
from r1ranker_ir.training.data.teacher import Teacher, Teaching, soft_gains
from r1ranker_ir.training.jobs.arguments import parse_arguments
from r1ranker_ir.training.jobs.command import train
from r1ranker_ir.training.trainers.likelihood import ListCollator, list_loss, query_likelihoods, shares_with_base

Make = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

TEXTS = ("a blue car on the road", "a red boat at sea", "some old bread")


def record_of(number: int = 0, gains: tuple[float, ...] = (0.0, 3.0, 1.0), query: str = "red boats") -> JudgedRequest:
    candidates = tuple(Candidate(f"d{place}", f"{text} {number}") for place, text in enumerate(TEXTS))
    return judged(query, candidates, gains, id=f"q{number}", source="words")


def test_the_loss_is_the_divergence_from_the_gains_shares() -> None:
    scores, shares = torch.tensor([1.0, 2.0, 0.0, -1.0, 3.0]), torch.tensor([0.25, 0.75, 0.5, 0.5, 0.0])
    expected = 0.0
    for place in (slice(0, 2), slice(2, 5)):
        told = [math.exp(score) for score in scores[place].tolist()]
        pairs = zip(told, shares[place].tolist(), strict=True)
        expected += sum(share * math.log(share * sum(told) / each) for each, share in pairs if share) / 2
    assert float(list_loss(scores, shares, [2, 3])) == pytest.approx(expected, rel=1e-5)


def test_shares_and_scores_are_multiplied() -> None:
    shares = shares_with_base(torch.tensor([0.25, 0.75, 0.0, 1.0]), torch.tensor([1.0, 0.0, 5.0, -5.0]), [2, 2])
    first, second = 0.25 * math.e, 0.75
    assert shares.tolist() == pytest.approx([first / (first + second), second / (first + second), 0.0, 1.0])


@pytest.mark.parametrize("name", ["gemma", "plain"])
def test_a_batch_holds_what_the_strategy_scores(name: str, make_checkpoint: Make) -> None:
    folder = make_checkpoint(name)
    renderer = PromptRenderer(AutoTokenizer.from_pretrained(folder), read_settings(folder).template or load_template())
    records = [record_of(1), record_of(2, query="how old is the bread of the whole town")]
    batch = ListCollator(renderer, 0, 32)([row_of(Sample("direct", record)) for record in records])
    assert batch["input_ids"].shape[1] % 32 == 0
    assert batch["shares"].tolist() == [0.0, 0.75, 0.25] * 2
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        told = query_likelihoods(model, batch["input_ids"], batch["labels"])
    rankings = Ranker(folder, strategy="likelihood", device="cpu").rank([record.request for record in records])
    expected = [step.score for ranking in rankings for step in ranking.steps]
    assert told.tolist() == pytest.approx(expected, abs=1e-3)


def test_a_teachers_gains_are_the_softmax_of_its_cosines() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHECKPOINT)
    encoder = AutoModel.from_pretrained(TINY_CHECKPOINT).eval()
    record = record_of()
    texts = [candidate.text for candidate in record.request.candidates]
    with torch.no_grad():
        query, *passages = (
            encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            for text in (record.request.query, *texts)
        )
    cosines = [float(torch.cosine_similarity(query, passage, dim=0)) for passage in passages]
    teaching = Teaching(str(TINY_CHECKPOINT), temperature=0.5, share=0.6)
    teacher = Teacher(teaching)
    assert teacher.similarities(record.request.query, texts) == pytest.approx(cosines, abs=1e-4)
    softmax = torch.tensor(cosines).div(0.5).softmax(0)
    told = softmax * 0.6 + torch.tensor([0.0, 0.75, 0.25]) * 0.4
    assert teacher.taught(Sample("direct", record)).record.gains == pytest.approx(told.tolist(), abs=1e-4)
    assert soft_gains(cosines, (0.0,) * 3, teaching) == pytest.approx(softmax.tolist(), abs=1e-4)


@pytest.mark.parametrize("margin", [None, -2.0, 0.0, 2.0])
def test_candidates_that_may_be_relevant_are_left_out(margin: float | None) -> None:
    record = record_of(gains=(0.0, 3.0, 0.0))
    teacher = Teacher(Teaching(str(TINY_CHECKPOINT), margin=margin))
    texts = [candidate.text for candidate in record.request.candidates]
    near = teacher.similarities(record.request.query, texts)
    kept = [place for place in range(3) if place == 1 or margin is None or near[place] <= near[1] - margin]
    candidates = record.request.candidates
    assert teacher.without_doubtful(record).request.candidates == tuple(candidates[place] for place in kept)
    assert margin != 2.0 or kept == [1]


def test_a_teacher_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        Teaching("encoder", temperature=0)
    with pytest.raises(InputError, match="from 0 to 1"):
        Teaching("encoder", share=1.5)
    with pytest.raises(CheckpointError, match=r"\./nowhere"):
        Teacher(Teaching("./nowhere"))


def test_all_candidates_of_a_record_are_cut_alike() -> None:
    told = {"strategy": "direct", "candidates": 3, "positives": 1, "seed": 4}
    cut, uncut = (
        samples_of(record_of(), Sampling(**told, **more), Counter())[0].record.request.candidates
        for more in ({"passage_words": (2, 3)}, {})
    )
    assert [candidate.id for candidate in cut] == [candidate.id for candidate in uncut]
    assert len({len(candidate.text.split()) for candidate in cut}) == 1


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    path, rng = tmp_path / "lists.parquet", random.Random(0)
    write_samples(path, [Sample("direct", record_of(n, tuple(rng.random() for _ in TEXTS))) for n in range(8)])
    return path


def recipe(tmp_path: Path, lists: Path, **changes: Any) -> str:
    content: dict[str, Any] = {"model": "tiny", "train_files": [str(lists)], "output_dir": str(tmp_path / "out")}
    content |= {"use_cpu": True, "report_to": "none", "max_steps": 2, "save_steps": 1, "logging_steps": 1, "seed": 3}
    content |= {"per_device_train_batch_size": 2, "learning_rate": 1e-3, "curves": False, "strategies": ["likelihood"]}
    path = tmp_path / "likelihood.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return str(path)


LORA = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "up_proj"], "lora_layers": [1]}
NONSENSE = {"score_scale": 0.0, "pad_to_multiple_of": 0, "base_weight": -1.0}


@pytest.mark.parametrize("changes", [{}, LORA | {"dtype": "bfloat16", "bf16": True}], ids=["whole", "adapter"])
def test_a_training_that_stopped_goes_on_exactly(tmp_path: Path, lists: Path, changes: dict[str, Any]) -> None:
    path, out = recipe(tmp_path, lists, held_out_files=[str(lists)], **changes), tmp_path / "out"
    summary = train(parse_arguments("likelihood", ["--config", path]))
    assert summary.record.method == "likelihood" and summary.record.strategies == ["likelihood"]
    name = "adapter_model.safetensors" if changes else "model.safetensors"
    trained = load_file(out / name)
    if changes:
        assert all(".layers.1." in key for key in trained)
    request = RankingRequest("red boats", record_of().request.candidates)
    [ranking] = Ranker(out, strategy="likelihood", device="cpu").rank([request])
    assert sorted(ranking.order) == [0, 1, 2]
    shutil.rmtree(out / "checkpoint-2")
    for path_of_model in (*out.glob("*.safetensors"), *out.glob("*config.json")):
        path_of_model.unlink()
    train(parse_arguments("likelihood", ["--config", path, "--resume_from_checkpoint", "true"]))
    again = load_file(out / name)
    assert trained.keys() == again.keys()
    assert all(torch.equal(trained[key], again[key]) for key in trained)


def test_what_the_base_knows_already_need_not_be_learned(tmp_path: Path, lists: Path) -> None:
    equal = tmp_path / "equal.parquet"
    write_samples(equal, [Sample("direct", record_of(n, (1.0, 1.0, 1.0))) for n in range(4)])
    changes = LORA | {"max_steps": 1, "save_steps": 5, "learning_rate": 0.0, "base_weight": 1.0, "score_scale": 0.01}
    losses = []
    for path in (equal, lists):
        train(parse_arguments("likelihood", ["--config", recipe(tmp_path, path, **changes), "--overwrite"]))
        losses.append(json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"][0]["loss"])
    assert losses[0] == pytest.approx(0.0, abs=1e-5) and losses[1] > 1e-3


def test_the_packaged_recipe_lowers_the_loss(tmp_path: Path, lists: Path) -> None:
    given = {"model": "tiny", "train_files": lists, "held_out_files": lists, "output_dir": tmp_path / "out"}
    given |= {"max_steps": 12, "lora_r": 4, "warmup_steps": 1, "learning_rate": 5e-3, "report_to": "none"}
    given |= {"logging_steps": 1}
    options = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    options += ["--lora_layers", "0", "1", "--curves", "false"]
    summary = train(parse_arguments("likelihood", ["--config", "small-likelihood", *options]))
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 12 and sum(losses[-4:]) < sum(losses[:4])
    assert summary.record.arguments["lora_layers"] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({name: value}, f"{name} is {value}") for name, value in NONSENSE.items()),
        (LORA | {"lora_target_modules": None}, "lora_layers goes with lora_target_modules"),
        ({}, "request 'q7': no candidate has a gain"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "none.parquet"
    write_samples(path, [Sample("direct", record_of(7, (0.0, 0.0, 0.0)))])
    with pytest.raises(InputError, match=said):
        train(parse_arguments("likelihood", ["--config", recipe(tmp_path, path, **changes)]))


def test_the_command_writes_soft_gains(tmp_path: Path) -> None:
    requests, output = tmp_path / "requests.jsonl", tmp_path / "lists.parquet"
    requests.write_text(
        '{"query": "red boats", "candidates": [{"text": "a red boat at sea", "gain": 1}, {"text": "some old bread"}]}\n'
    )
    given = ["--requests", requests, "--strategy", "direct", "--teacher", TINY_CHECKPOINT, "--passage-words", 2]
    result = CliRunner().invoke(app, ["data", *map(str, given), "--output", str(output)])
    assert result.exit_code == 0, result.output
    [row] = read_samples(output)
    assert sorted(row["candidates"]) == ["a red", "some old"]
    assert sum(row["gains"]) == pytest.approx(1.0) and min(row["gains"]) > 0
    result = CliRunner().invoke(app, ["data", *map(str, given), "--output", str(output), "--teacher-margin", "2"])
    assert result.exit_code == 1 and "no candidate of lower gain" in result.output
