"""Prompt templates: what a file may hold, how it is filled, and what is said when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.answers import identifiers
from r1ranker_ir.prompts.details import Filling
from r1ranker_ir.prompts.template import Template, build_template, load_template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import TASKS, Message, Task

SECTION = {"user": "{query}: {candidates}"}


def content(**changes: Any) -> dict[str, Any]:
    return {"name": "own", "iterative": dict(SECTION), **changes}


def test_the_projects_template_serves_all_strategies_and_tasks() -> None:
    template = load_template()
    worded = ("iterative", "direct", "setwise", "pointwise")
    own = ("likelihood", "groupwise")
    assert (*template.wordings, *own) == tuple(STRATEGIES) == (*worded, *own)
    for strategy in tuple(STRATEGIES)[:3]:
        for task in TASKS:
            turns = template.render(strategy, "how long do fleas live", "[1] a\n[2] b", 2, task)
            assert [turn.role for turn in turns] == ["system", "user"]
            text = "\n".join(turn.content for turn in turns)
            assert "how long do fleas live" in text
            assert "[1] a\n[2] b" in text
            assert template.nouns[task][1] in text and " 2 " in text
            assert "<think>" in text and "<answer>" in text
            assert "{" not in text and "}" not in text


def test_a_file_fills_in_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\ncandidate = "{identifier}: {text}"\nseparator = "\\n\\n"\n'
        '[nouns]\nmodel = ["LLM", "LLMs"]\n'
        '[direct]\nsystem = "{count} {nouns}, {{braces}}"\nuser = "{query}\\n{candidates}\\none {noun} {query}"\n',
        encoding="utf-8",
    )
    template = load_template(path)

    assert template.name == "own"
    assert (template.candidate, template.separator, template.empty) == ("{identifier}: {text}", "\n\n", "")
    assert template.render("direct", "q {noun}", "[1]: {text}", 3, "model") == (
        Message("system", "3 LLMs, {braces}"),
        Message("user", "q {noun}\n[1]: {text}\none LLM q {noun}"),
    )
    with pytest.raises(InputError, match=r"'own' has no \[iterative\] section: it offers direct"):
        template.render("iterative", "q", "", 2, "passage")


@pytest.mark.parametrize(
    ("task", "best", "worst"),
    [("passage", "best", "worst"), ("item", "most likely", "least likely"), ("model", "best choice", "worst")],
)
def test_the_projects_prompts_ask_for_what_their_answers_mean(task: Task, best: str, worst: str) -> None:
    template = load_template()
    asked = {
        name: template.render(name, "q", "[1] a\n[2] b", 2, task, "AIM")[-1].content.rpartition("\n")[2]
        for name in tuple(STRATEGIES)[:3]
    }
    asked = {name: text.removeprefix("Wanted: AIM. ") for name, text in asked.items()}
    assert worst in asked["iterative"] and best not in asked["iterative"]
    assert best in asked["setwise"] and worst not in asked["setwise"]
    assert asked["direct"].index(best) < asked["direct"].index(worst.partition(" ")[0])


@given(texts=st.lists(st.text(), min_size=4, max_size=4))
def test_rendered_text_is_never_read_as_a_placeholder(texts: list[str]) -> None:
    query, candidates, prefix, suffix = texts
    literal = [part.replace("{", "{{").replace("}", "}}") for part in (prefix, suffix)]
    template = build_template(content(iterative={"user": f"{literal[0]}{{query}}|{{candidates}}{literal[1]}"}), "here")
    turns = template.render("iterative", query, candidates, 2, "passage")
    assert turns[0].content == f"{prefix}{query}|{candidates}{suffix}"


def test_the_digest_covers_what_shapes_a_prompt_and_nothing_else() -> None:
    base = build_template(content(), "here")
    assert len(base.digest()) == 16
    assert build_template(content(name="renamed"), "elsewhere").digest() == base.digest()
    changes: list[dict[str, Any]] = [
        {"candidate": "{identifier}{text}"},
        {"separator": " "},
        {"empty": "-"},
        {"nouns": {"item": ["film", "films"]}},
        {"iterative": {**SECTION, "system": "s"}},
        {"iterative": {"user": "{query} {candidates}"}},
        {"direct": SECTION},
        {"setwise": SECTION},
    ]
    digests = {build_template(content(**change), "here").digest() for change in changes}
    assert len(digests | {base.digest()}) == len(changes) + 1


def asking(user: Any, **more: Any) -> dict[str, Any]:
    return content(iterative={"user": user, **more})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (content(user="x"), "field 'user' is unknown: use name"),
        (content(separator=3), "'separator' is 3: give a text"),
        (content(candidate="{identifier}"), "'candidate' is .*placeholder {text} is missing"),
        (content(candidate="{identifier} {text} {query}"), "'candidate' is .*unknown placeholder {query}"),
        (asking("{query}"), r"\[iterative\] user: placeholder {candidates} is missing"),
        (asking("{query} {candidates} {}"), r"\[iterative\] user: unknown placeholder {}"),
        (asking("{query.__class__} {candidates}"), "unknown placeholder {query.__class__}"),
        (asking("{query:>5q} {candidates}"), "without ':' or '!'"),
        (asking("{query!r} {candidates}"), "without ':' or '!'"),
        (asking("{query} {candidates} {"), "write a literal brace as {{ or }}"),
        (asking("{query} {candidates}", system="{"), r"\[iterative\] system: .*literal brace"),
        (asking(3), r"'iterative.user' is 3: give a text"),
        (asking("{query} {candidates}", system=["s"]), r"'iterative.system' is \['s'\]: give a text"),
        (content(iterative={"system": "{query} {candidates}"}), "'iterative.user' is missing"),
        (content(iterative={**SECTION, "assistant": ""}), "'iterative.assistant' is unknown: use user, system"),
        (content(iterative="{query} {candidates}"), "'iterative' is .*give an object with user, system"),
        (content(setwise={"user": "{query}"}), r"\[setwise\] user: placeholder {candidates} is missing"),
        ({"name": "own"}, r"at least one of the sections \[iterative\], \[direct\]"),
        (
            content(nouns={"film": ["film", "films"]}),
            r"'nouns.film.* is 'film': it must be 'passage'",
        ),
        (content(nouns={"item": "film"}), r"'nouns.item' is 'film': give a list"),
        (content(nouns={"item": ["film", 3]}), "'nouns.item"),
        (content(choice=["yes"]), r"'choice' is \['yes'\]: give at least 2"),
        (None, "the record is None: give an object with name"),
        (content(item="x"), "'item' is 'x': give an object with aim"),
        (content(item={"order": "reversed"}), "'item.order' is unknown: did you mean 'query_order'"),
        (content(item={"query_order": "backwards"}), "'item.query_order' is .*it must be 'as given' or 'reversed'"),
        (content(item={"query_separator": 1}), "'item.query_separator' is 1: give a text"),
        (content(item={"direct": {"system": "x"}}), r"'item.direct.user' is missing"),
        (content(item={"direct": {"user": "{query}"}}), r"'item.direct' is .*placeholder {candidates} is missing"),
    ],
)
def test_what_is_wrong_is_named(changed: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*{message}"):
        build_template(changed, "here")


def with_tasks() -> Template:
    return build_template(
        content(
            direct={"user": "{query} {candidates}"},
            item={
                "aim": "the next one",
                "query_separator": "\n",
                "query_order": "reversed",
                "iterative": {"user": "chose {query}; wanted {aim}: {candidates}"},
            },
        ),
        "here",
    )


def test_a_task_may_have_its_own_wording_and_aim() -> None:
    template = with_tasks()

    assert template.render("iterative", "q", "c", 2, "item")[-1].content == "chose q; wanted the next one: c"
    assert template.render("iterative", "q", "c", 2, "item", "mine")[-1].content == "chose q; wanted mine: c"
    assert template.render("direct", "q", "c", 2, "item")[-1].content == "q c"  # none of its own: the general one
    assert template.render("iterative", "q", "c", 2, "passage", "mine")[-1].content == "q: c"
    assert template.shows_aim("iterative", "item") and not template.shows_aim("iterative", "passage")


def test_a_template_with_tasks_is_written_and_read_the_same() -> None:
    for template in (with_tasks(), load_template()):
        again = build_template(json.loads(json.dumps(template.content())), "again")
        assert again == template and again.digest() == template.digest()
    plain = build_template(content(direct={"user": "{query} {candidates}"}), "here")
    assert plain.digest() != with_tasks().digest()
    # What is there for other strategies does not count for one.
    assert with_tasks().only("direct").digest() != with_tasks().only("iterative").digest()
    assert with_tasks().only("iterative").wordings.keys() == {"iterative"}


def _forms(task: Task) -> list[tuple[str, str]]:
    """The turns of every kind of prompt that the project's template has for a task."""
    template = load_template()
    told = []
    for strategy in ("iterative", "mark", "direct", "setwise", "pointwise"):
        texts = ["a"] if strategy == "pointwise" else ["a", "b", "c"]
        turns = template.messages(strategy, Filling("q", texts, task, excluded="[1]" if strategy == "mark" else ""))
        told += [(strategy, turn.content) for turn in turns if turn.role == "user"]
    return told


@pytest.mark.parametrize("task", TASKS)
def test_the_example_of_an_answer_is_no_answer(task: Task) -> None:
    for strategy, text in _forms(task):
        assert text.count("<answer>") == 1, (strategy, text)
        example = "<answer>" + text.partition("<answer>")[2].partition("</answer>")[0] + "</answer>"
        for count in (1, 2, 11, 26):
            for form in ("one", "order"):
                reading = load_template().read(f"<think>a</think>{example}", identifiers(count), form)
                assert (reading.indices, reading.clean) == ((), False), (strategy, example)
