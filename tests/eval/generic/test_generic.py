"""`r1ranker generic`: what changed beside rankings, by tasks of lm-evaluation-harness, and how plainly it is said.

What asks a model is skipped where lm-evaluation-harness (extra `generic`) is missing; no test reads the hub.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker, said
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError, MissingExtraError
from r1ranker_ir.eval.generic import asking
from r1ranker_ir.eval.generic.answers import Answers, Measured, TaskFacts
from r1ranker_ir.eval.generic.asking import ask
from r1ranker_ir.eval.generic.changes import changes_between
from r1ranker_ir.eval.generic.instructions import followed
from r1ranker_ir.eval.generic.report import as_json, as_markdown, as_text, sentences
from r1ranker_ir.eval.generic.settings import PACKAGED_TASKS, GenericSettings
from r1ranker_ir.eval.generic.tasks import TaskList
from r1ranker_ir.eval.measuring.settings import ComparisonSettings

harness = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed (generic)")

SUM = """
task: mine-sums
dataset_path: json
dataset_kwargs: {data_files: {test: data/sums.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:"], do_sample: false, max_gen_toks: 8}
filter_list:
  - name: last-number
    filter: [{function: regex, group_select: -1, regex_pattern: "([0-9]+)"}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 2.0}
"""
CHOICE = """
task: mine-choice
dataset_path: json
dataset_kwargs: {data_files: {test: data/choice.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
# As IFEval: a prompt has several instructions, each of which counts; and a measure that is no mean.
SEVERAL = """
task: mine-several
dataset_path: json
dataset_kwargs: {data_files: {test: data/sums.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_results: !function scoring.several
generation_kwargs: {until: [], do_sample: false, max_gen_toks: 8}
metric_list:
  - {metric: each, aggregation: !function scoring.share, higher_is_better: true}
  - {metric: longest, aggregation: !function scoring.most, higher_is_better: false}
"""
SCORING = """
def several(sample, answers):
    number = int(sample["answer"])
    return {"each": [True] + [False] * number, "longest": len(answers[0])}

def share(items):
    flat = [value for item in items for value in item]
    return sum(flat) / len(flat)

def most(items):
    return max(items) + 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks over local files, which they name from where they lie."""
    made = tmp_path_factory.mktemp("tasks")
    (made / "data").mkdir()
    sums = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(4)]
    choices = [{"question": f"Name animal {n}.", "options": ["a cat", "a stone", "tea"], "answer": 0} for n in range(5)]
    for name, rows in (("sums", sums), ("choice", choices)):
        (made / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("sums.yaml", SUM), ("choice.yaml", CHOICE), ("several.yaml", SEVERAL), ("scoring.py", SCORING)):
        (made / name).write_text(text)
    return made


@pytest.fixture(scope="module")
def adapter(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter on it that changes what it answers."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    base = make_checkpoint("chatml")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    made = tmp_path_factory.mktemp("adapter")
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(str(made))
    return base, made


def answers(values: Mapping[Measured, list[float]], *, higher: bool = True, template: str | None = "a") -> Answers:
    scores = {measured: {str(n): value for n, value in enumerate(each)} for measured, each in values.items()}
    tasks = {each.task: TaskFacts(1.0, 0, 40, 50, "config", "data") for each in values}
    texts = {each.task: {str(n): "text" for n in range(len(values[each]))} for each in values}
    model = {"model": "m", "chat_template": template}
    return Answers(model, scores, dict.fromkeys(values, higher), texts, {}, tasks, ())


SUMS = Measured("sums", "exact_match")
HALF, ALL, NONE = [0.0, 1.0] * 20, [1.0] * 40, [0.0] * 40


@pytest.mark.parametrize(
    ("before", "after", "higher", "verdict", "words"),
    [
        (HALF, NONE, True, "forgetting", "Forgetting: sums, exact_match goes from 0.5000 to 0.0000, -0.5000 (-0.6"),
        (HALF, ALL, True, "gain", "Gain: sums, exact_match goes from 0.5000 to 1.0000, +0.5000 (+0.3"),
        (HALF, NONE, False, "gain", "Gain: sums"),
        (HALF, ALL, False, "forgetting", "Forgetting: sums"),
        (HALF, HALF, True, "not shown", "Not shown: sums, exact_match: no sample differs."),
        (HALF, [*HALF[2:], 0.0, 0.0], True, "not shown", "a loss of up to 0.075"),
        ([0.0], [1.0], True, "not shown", "too few samples for an interval"),
    ],
)
def test_forgetting_is_said_as_plainly_as_gain(before, after, higher, verdict, words):
    found = changes_between(answers({SUMS: before}, higher=higher), answers({SUMS: after}, higher=higher))
    [change] = found.changes
    assert change.verdict == verdict and found.by(verdict) == (change,)
    assert words in " ".join(sentences(found))
    for written in (as_text(found), as_markdown(found)):
        assert f"forgetting in {int(verdict == 'forgetting')}, a gain in {int(verdict == 'gain')}" in written
    assert json.loads(as_json(found))["changes"][0]["verdict"] == verdict


@settings(max_examples=20)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12), st.booleans())
def test_the_other_way_round_a_gain_is_forgetting(pairs, higher):
    one, other = (answers({SUMS: [float(pair[k]) for pair in pairs]}, higher=higher) for k in (0, 1))
    drawn = ComparisonSettings(resamples=100)
    [there], [back] = (changes_between(*both, drawn).changes for both in ((one, other), (other, one)))
    turned = {"gain": "forgetting", "forgetting": "gain", "not shown": "not shown"}
    assert there.verdict == turned[back.verdict] and there.difference.mean == -back.difference.mean
    assert (there.better, there.worse) == (back.worse, back.better)


def test_p_values_are_corrected_and_notes_say_what_differs():
    slightly = [*HALF[:-10], *[1.0] * 10]
    before = answers({SUMS: HALF, Measured("choice", "acc"): HALF}, template=None)
    found = changes_between(before, answers({SUMS: slightly, Measured("choice", "acc"): HALF}))
    assert found.changes[0].p_value < 0.05 < found.changes[0].corrected or found.changes[0].significant
    assert found.changes[0].corrected == pytest.approx(2 * found.changes[0].p_value)
    text = as_text(found)
    assert found.changes[0].significant or "That interval is not corrected" in text
    for words in ("before has no chat template", "templates differ", "only the first 40 of 50", "over 2 tests"):
        assert words in text
    with pytest.raises(InputError, match="has a measure that is a mean"):
        changes_between(answers({}), answers({}))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tasks": " , "}, "name at least one"),
        ({"task_folder": Path("nowhere")}, "no folder"),
        ({"limit": 0}, "at least"),
    ],
)
def test_settings_that_can_not_be(wrong, words):
    with pytest.raises(InputError, match=words):
        GenericSettings(**wrong)


def test_the_packaged_tasks_are_whole():
    rows = {path.stem: [json.loads(line) for line in path.open()] for path in PACKAGED_TASKS.glob("*.jsonl")}
    assert {name: len(each) for name, each in rows.items()} == {"sums": 120, "choice": 120, "instructions": 100}
    assert all(len(set(row["options"])) == 4 and 0 <= row["answer"] < 4 for row in rows["choice"])
    assert all(row["answer"].isdigit() for row in rows["sums"])
    patterns = {row["prompt"].partition(". ")[2]: row["pattern"] for row in rows["instructions"]}
    kept = {"Use capital letters only.": "RAIN IS WET.", "Answer in exactly one word.": " Wet. "}
    for rule, answer in kept.items():
        assert followed({"pattern": patterns[rule]}, [answer]) == {"followed": True}
        assert followed({"pattern": patterns[rule]}, ["Rain is wet, and cold"]) == {"followed": False}


def test_a_missing_harness_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MissingExtraError, match=r"r1ranker-ir\[generic\]"):
        TaskList(GenericSettings(tasks="small-sums"))


@harness
def test_a_base_and_its_adapter(adapter: tuple[Path, Path], folder: Path, tmp_path: Path) -> None:
    base, changed = adapter
    names = "mine-sums,mine-choice,mine-several"
    out = tmp_path / "generic.json"
    done = r1ranker("generic", base, changed, "--tasks", names, "--task-folder", folder, "--limit", 3, "--output", out)
    assert "mine-several, longest is left out" in said(done) and "only the first 3 of 5 samples" in said(done)
    content = json.loads(out.read_text())
    assert content["command"][:2] == ["r1ranker", "generic"] and content["versions"]["lm_eval"]
    assert content["after"]["adapter"] == "merged" and "adapter" not in content["before"]
    assert content["after"]["checkpoint"]["base"] == content["before"]["checkpoint"]
    assert content["after"]["chat_template"] == content["before"]["chat_template"]
    assert {name: (each["samples"], each["of"]) for name, each in content["tasks"].items()} == {
        "mine-sums": (3, 4),
        "mine-choice": (3, 5),
        "mine-several": (3, 4),
    }
    assert [(each["task"], each["measure"]) for each in content["changes"]] == [
        ("mine-sums", "exact_match, last-number"),
        ("mine-choice", "acc"),
        ("mine-several", "each"),
    ]
    # One of one, of three and of five.
    several = content["changes"][2]
    assert several["before"]["mean"] == pytest.approx(3 / 9) and several["difference"]["mean"] == 0
    samples = {(each["task"], each["sample"]): each for each in content["samples"]}
    assert len(samples) == 9 and any(each["before"]["answer"] != each["after"]["answer"] for each in samples.values())
    for number in "012":
        chosen = samples["mine-choice", number]["before"]
        assert chosen["acc"] == float(chosen["answer"] == "a cat")
    again = tmp_path / "again.json"
    r1ranker(*["generic", base, changed, "--tasks", names, "--task-folder", folder, "--limit", 3, "--output", again])
    assert out.read_bytes() == again.read_bytes()


@harness
def test_a_command_that_was_stopped_goes_on(
    adapter: tuple[Path, Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pair of model and task is asked once, whatever stops the command; what decides the answers is asked anew."""
    base, changed = (Path(shutil.copytree(each, tmp_path / each.name)) for each in adapter)
    from lm_eval import evaluator

    out, evaluate, open_model = tmp_path / "generic.json", evaluator.evaluate, asking.open_model
    asked, opened = list[tuple[str, str]](), list[str]()
    stop_before: list[tuple[str, str]] = []

    def counting(harness: Any, tasks: Any, **others: Any) -> Any:
        [task] = tasks["tasks"]
        model = "after" if opened[-1] == str(changed) else "before"
        if (model, task) in stop_before:
            raise KeyboardInterrupt
        asked.append((model, task))
        return evaluate(harness, tasks, **others)

    def opening(checkpoint: str, *others: Any, **named: Any) -> Any:
        opened.append(checkpoint)
        return open_model(checkpoint, *others, **named)

    monkeypatch.setattr(evaluator, "evaluate", counting)
    monkeypatch.setattr(asking, "open_model", opening)

    def run(*more: object, code: int = 0, tasks: str = "mine-sums,mine-choice") -> str:
        asked.clear()
        opened.clear()
        words = ["generic", base, changed, "--tasks", tasks, "--task-folder", folder, "--output", out]
        return said(r1ranker(*words, *(more or ("--limit", 3)), code=code))

    stop_before.append(("after", "mine-choice"))
    run(code=130)
    assert asked == [("before", "mine-sums"), ("before", "mine-choice"), ("after", "mine-sums")] and not out.exists()
    stop_before.clear()
    assert f"{base}: mine-sums, mine-choice finished before" in run()
    assert (asked, opened) == ([("after", "mine-choice")], [str(changed)])
    resumed = out.read_bytes()
    run()
    assert (asked, opened, out.read_bytes()) == ([], [], resumed)
    # The same as without a stop.
    shutil.rmtree(f"{out}.answers")
    run()
    assert len(asked) == 4 and out.read_bytes() == resumed

    run("--limit", 2)
    assert len(asked) == 4
    run("--limit", 3, "--few-shot", 1, tasks="mine-sums")
    assert asked == [("before", "mine-sums"), ("after", "mine-sums")]
    (base / "chat_template.jinja").write_text("{% for turn in messages %}{{ turn['content'] }}{% endfor %}")
    run()
    assert asked == [("before", "mine-sums"), ("before", "mine-choice")]
    for kept in Path(f"{out}.answers").glob("mine-sums-*"):
        kept.write_text("{")
    assert "remove it" in run(code=1)


@harness
def test_the_embedded_model_thinks_first_and_keeps_to_the_tasks_limit() -> None:
    written: list[str] = []
    for end, limit in (("", 96), ("</think>", 96), ("", 5)):
        settings = GenericSettings(tasks="small-sums", limit=2, think_end=end, max_tokens=limit)
        found = ask("tiny", "tiny", TaskList(settings), settings, device="cpu")
        written.append(found.texts["small-sums"]["0"])
    whole, answer, short = written
    assert "</think>" in whole and "</think>" not in answer
    assert whole.rpartition("</think>")[2].strip() == answer.strip()
    # Its own generation settings say 512 tokens, which would count otherwise.
    assert whole.startswith(short.rstrip()) and len(short) < 40


@harness
def test_a_model_without_a_chat_template_is_asked_in_plain_text(
    make_checkpoint: Callable[..., Path], folder: Path
) -> None:
    settings = GenericSettings(tasks="mine-choice", task_folder=folder, limit=2, batch_size=2)
    found = ask("plain", str(make_checkpoint("plain")), TaskList(settings), settings, device="cpu")
    assert found.model["chat_template"] is None and found.warnings == ()
    assert set(found.scores[Measured("mine-choice", "acc")]) == {"0", "1"}


@harness
@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("smal-sums", "did you mean small-sums"),
        ("gsm8k", "task 'gsm8k' can't be loaded"),
        ("mine-gone", "task 'mine-gone' can't be loaded"),
    ],
)
def test_tasks_that_can_not_be_asked(task: str, words: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").write_text(CHOICE.replace("mine-choice", "mine-gone"))
    done: Any = r1ranker("generic", "tiny", "tiny", "--tasks", task, "--task-folder", tmp_path, code=1)
    assert words in said(done)
    assert task == "smal-sums" or "small-instructions" in said(done)  # the way out
