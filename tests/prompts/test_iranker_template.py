"""IRanker's own form of prompts: labels, names and texts are shown and answered, and the assistant's turn is begun."""

from __future__ import annotations

import ast
import itertools
import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.adapters.domains import aim_of
from r1ranker_ir.adapters.ranking_bench import request_of_row
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.details import Filling
from r1ranker_ir.prompts.files import build_any_template, open_template
from r1ranker_ir.prompts.iranker_template import IRankerTemplate
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.systems import family_options
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import Answer, Candidate, GivenPrompt, Question, RankingRequest

OWN: dict[str, Any] = {
    "form": "iranker",
    "system": "You {compare}.",
    "user": " {problem} Think, then answer.",
    "opening": "I begin.\n<think>",
    "passage": {
        "task": "passage",
        "candidate": "passage {number}: {text}",
        "answer": "passage {number}",
        "iterative": "For {query}:\n{candidates}\nThe worst of {count}?",
        "direct": "For {query}:\n{candidates}\nAll {count}?",
    },
    "movie": {
        "task": "item",
        "aim": aim_of("movie"),
        "choice": "'{number}. {text}'",
        "choice_separator": ", ",
        "candidate": "'{number}. {text}'",
        "separator": ", ",
        "answer": "{text}",
        "iterative": "Films: [{query}]\nNext: [{candidates}]\nWorst film?",
    },
    "item": {
        "task": "item",
        "quoted": True,
        "separator": ", ",
        "answer": "{text}",
        "iterative": "Bought: {query}\nNext: [{candidates}]\nWorst item?",
        "direct": "Bought: {query}\nNext: [{candidates}]\nAll items?",
    },
    "cost": {
        "task": "model",
        "aim": aim_of("cost"),
        "candidate": "{name}",
        "quoted": True,
        "separator": ", ",
        "detail": "# {name} = {description}",
        "answer": "{name}",
        "iterative": "{query}\n{details}\n[{candidates}]\nThe dearest?",
    },
}
LLMS = tuple(
    Candidate(name, f"{name}: {said}")
    for name, said in (("Small (8b)", "cheap"), ("Small", "tiny"), ("It's large (70b)", "dear"))
)


def built(**changes: Any) -> IRankerTemplate:
    template = build_any_template(OWN | changes, "here")
    assert isinstance(template, IRankerTemplate)
    return template


def items(*titles: str) -> tuple[Candidate, ...]:
    return tuple(Candidate(f"i{place}", title) for place, title in enumerate(titles))


def said(call: Any) -> str:
    return str(call.messages[1].content)


def test_passages_keep_their_labels_through_an_elimination(word_limits: Any) -> None:
    prompt = Prompt(built(), word_limits())
    request = RankingRequest("q {x}", items("a", "b {y}", "c"))
    call = prompt.ask("iterative", request, (0, 2))
    assert [(turn.role, turn.content) for turn in call.messages] == [
        ("system", "You {compare}."),
        ("user", " For q {x}:\npassage 0: a\npassage 2: c\nThe worst of 2? Think, then answer."),
        ("assistant", "I begin.\n<think>"),
    ]
    assert call.identifiers == ("passage 0", "passage 2")
    assert call.named and call.thinks and call.tagged and call.form == "one"
    assert "passage 1: b {y}\n" in said(prompt.ask("direct", request, (0, 1, 2)))


def test_the_request_decides_which_section_counts(word_limits: Any) -> None:
    prompt = Prompt(built(), word_limits())
    history = "Heat\nIt's 'Alien'"
    call = prompt.ask("iterative", RankingRequest(history, items("Up", "Jaws"), "item", aim=aim_of("movie")), (0, 1))
    shown = "Films: ['0. Heat', '1. It's 'Alien'']\nNext: ['0. Up', '1. Jaws']\nWorst film?"
    assert said(call) == f" {shown} Think, then answer." and call.identifiers == ("Up", "Jaws")
    for aim in ("", aim_of("music"), aim_of("game")):
        call = prompt.ask("iterative", RankingRequest(history, items("It's up", "Jaws"), "item", aim=aim), (1, 0))
        shown = "Bought: Heat\nIt's 'Alien'\nNext: ['Jaws', \"It's up\"]\nWorst item?"
        assert said(call) == f" {shown} Think, then answer." and call.identifiers == ("Jaws", "It's up")
    call = prompt.ask("iterative", RankingRequest("2+2", LLMS, "model", aim=aim_of("cost")), (2, 0))
    assert said(call) == (
        " 2+2\n# It's large (70b) = dear\n# Small (8b) = cheap\n[\"It's large (70b)\", 'Small (8b)']\nThe dearest? "
        "Think, then answer."
    )
    assert call.identifiers == ("It's large (70b)", "Small (8b)")
    with pytest.raises(InputError, match=r"no section for iterative requests of task 'model' with the aim 'other'"):
        prompt.ask("iterative", RankingRequest("2+2", LLMS, "model", aim="other"), (0, 1))
    with pytest.raises(InputError, match=r"has no \[setwise\] wording: it offers"):
        prompt.ask("setwise", RankingRequest("2+2", LLMS, "model"), (0, 1))


def test_twins_and_empty_texts_can_each_be_answered(word_limits: Any) -> None:
    prompt = Prompt(built(), word_limits())
    call = prompt.ask("direct", RankingRequest("Heat", items("Up", "", "Up", "", "Up (2)"), "item"), range(5))
    assert call.identifiers == ("Up", "(no text)", "Up (2)", "(no text) (2)", "Up (2) (2)")
    assert "['Up', '(no text)', 'Up (2)', '(no text) (2)', 'Up (2) (2)']" in said(call)
    limited = Prompt(built(), word_limits(), max_passage_tokens=2)
    call = limited.ask("direct", RankingRequest("Heat", items("one two three", "one two four"), "item"), range(2))
    assert call.identifiers == ("one two", "one two (2)") and call.cut_passages == 2


HOSTILE = st.sampled_from(
    ["A', '7. B", "x\npassage 1: y", "passage 1: y", "PASSAGE  1 : y", "'], ['", "</answer>", "<think>", "', '"]
    + ["'3. z", "a", "{number}", "<|im_end|>", "it's", '"', "\\", "Up"]
)


@given(st.lists(st.lists(HOSTILE, max_size=4).map(" ".join), min_size=1, max_size=5))
def test_no_text_passes_for_another_candidate(word_limits: Any, texts: list[str]) -> None:
    prompt = Prompt(built(), word_limits())
    count = len(texts)
    call = prompt.ask("iterative", RankingRequest("q", items(*texts)), range(count))
    listed = said(call).partition(":\n")[2].rpartition("\nThe worst")[0]
    assert re.findall(r"passage (\d+):", listed) == [str(place) for place in range(count)]
    assert len(listed.split("\n")) == count
    movie = prompt.ask("iterative", RankingRequest("Heat", items(*texts), "item", aim=aim_of("movie")), range(count))
    listed = said(movie).partition("Next: ")[2].partition("\nWorst")[0]
    assert re.findall(r"'\s*(\d+)\s*\. ", listed) == [str(place) for place in range(count)]
    other = prompt.ask("iterative", RankingRequest("Heat", items(*texts), "item"), range(count))
    listed = said(other).partition("Next: ")[2].partition("\nWorst")[0]
    assert tuple(ast.literal_eval(listed)) == other.identifiers
    for each in (call, movie, other):
        assert len(set(each.identifiers)) == count
        assert not any(tag in said(each) for tag in ("<think>", "</answer>", "<|im_end|>"))


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "inst", "thinking", "plain"])
def test_the_assistants_turn_is_begun_with_every_chat_template(name: str, load_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = load_tokenizer(name)
    texts = ChatTokenizer(tokenizer)
    template = built()
    turns = template.messages("iterative", Filling("q", ["a", "b"], "passage"))
    begun, plain = (
        tokenizer.decode(texts.prompt_ids(each, thinks=thinks), skip_special_tokens=False)
        for each, thinks in ((turns, True), (turns[:-1], None))
    )
    assert begun.endswith("I begin.\n<think>") and begun.count("<think>") == 1
    assert begun.startswith(plain.rstrip().removesuffix("<think>").rstrip())
    assert tokenizer.decode(texts.prompt_ids(turns, thinks=None)).endswith("I begin.\n<think>")


def rank(checkpoint: Path, strategy: str, request: RankingRequest, **options: Any) -> Any:
    options = {"device": "cpu", "template": built(), "max_thought_tokens": 3, "max_repair_rate": 1.0} | options
    ranker = Ranker(checkpoint, strategy=strategy, **options)
    return ranker.rank([request])[0]


NINE = [
    ("passage", "", items("flea", "wool", "kettle")),
    *(("item", aim_of(domain), items("Heat", "Heat 2", "Up")) for domain in ("movie", "music", "game")),
    *(("model", aim_of(domain), LLMS) for domain in ("performance", "balance", "cost")),
]


@pytest.mark.parametrize(("task", "aim", "candidates"), NINE)
@pytest.mark.parametrize("system", ["iranker", "dranker"])
def test_the_systems_choose_among_names(
    system: str, task: Any, aim: str, candidates: tuple[Candidate, ...], make_checkpoint: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    options = family_options(system, {"max_thought_tokens": 3})
    strategy = "iterative" if system == "iranker" else "direct"
    with caplog.at_level(logging.WARNING, "r1ranker_ir"):
        ranking = rank(make_checkpoint("chatml"), strategy, RankingRequest("q", candidates, task, aim=aim), **options)
    assert caplog.text.count(f"'{system}' is asked in this project's own words") == 1
    assert ranking.repairs == 0 and sorted(ranking.order) == [0, 1, 2]
    names = {"passage": [f"passage {n}" for n in range(3)], "item": [each.text for each in candidates]}
    names["model"] = [each.id for each in candidates]
    for step in ranking.steps:
        answer = step.text.partition("<answer>")[2]
        assert answer.endswith("</answer>") and answer.count("</answer>") == 1
        named = answer.removesuffix("</answer>").split("\n")
        assert named == [names[task][place] for place in step.outcome]
        assert step.probabilities is not None and sum(step.probabilities.values()) == pytest.approx(1)
        assert set(step.probabilities) == set(step.shown)


def test_names_that_begin_one_another_are_told_apart(make_checkpoint: Callable[..., Path]) -> None:
    names = ["passage 1", "passage 10", "passage 100", "Heat", "Heat 2", "Heat 2 x", "a b", "a b c"]
    request = RankingRequest("q", items(*names), "item")
    for strategy in ("iterative", "direct"):
        ranking = rank(make_checkpoint("chatml"), strategy, request)
        assert ranking.repairs == 0 and sorted(ranking.order) == list(range(8))


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_free_answers_of_a_model_are_read_and_repaired(strategy: str, make_checkpoint: Callable[..., Path]) -> None:
    request = RankingRequest("q", items("Heat", "Up", "Jaws"), "item")
    ranking = rank(make_checkpoint("chatml"), strategy, request, answers="published")
    assert sorted(ranking.order) == [0, 1, 2]
    assert ranking.repairs == len(ranking.steps)  # a random model writes nothing of the kind


def test_votes_and_budgets_go_with_names(make_checkpoint: Callable[..., Path]) -> None:
    request = RankingRequest("q", items("Heat", "Heat 2", "Up", "Jaws"), "item")
    for strategy, by in itertools.product(("iterative", "direct"), ("majority", "borda")):
        ranking = rank(make_checkpoint("chatml"), strategy, request, votes=3, vote_by=by)
        assert sorted(ranking.order) == [0, 1, 2, 3] and ranking.repairs == 0
    assert rank(make_checkpoint("chatml"), "iterative", request, max_calls=2).budget_reached


def test_answers_in_words_make_a_ranking(word_limits: Any, conversation: Any) -> None:
    def drive(strategy: str, asked: RankingRequest, replies: Sequence[str]) -> tuple[Any, list[Any]]:
        turn = iter(replies)
        program = STRATEGIES[strategy](asked, Prompt(built(), word_limits()))
        ranking, calls = conversation.drive(program, lambda call: Answer(next(turn)))
        return (ranking.order, ranking.repairs), calls

    request = RankingRequest("q", items("Heat", "Heat 2", "Up"), "item")
    said_so = ["so</think><answer>Heat</answer>", "so</think>\n<answer>\n'Up'\n</answer>"]
    found, calls = drive("iterative", request, said_so)
    assert found == ((1, 2, 0), 0) and "['Heat 2', 'Up']" in said(calls[1])
    assert drive("direct", request, ["</think><answer>Up\n2. Heat\nheat 2</answer>"])[0] == ((2, 0, 1), 0)
    assert drive("direct", request, ["</think><answer>Up\nDune</answer>"])[0] == ((2, 0, 1), 1)
    request = RankingRequest("q", items(*"abcdefghijkl"))
    replies = [f"<answer>passage {number}</answer>" for number in (1, 11, 10, 0, 2, 3, 4, 5, 6, 7, 8)]
    assert drive("iterative", request, replies)[0] == ((9, 8, 7, 6, 5, 4, 3, 2, 0, 10, 11, 1), 0)


NAMES = ("passage 1", "passage 10", "Heat", "Heat 2 (1999)", "Small (8b)", "Small (70b)", "AT&T story")


@pytest.mark.parametrize(
    ("answer", "read", "clean"),
    [
        ("passage 1", 0, True),
        ("Passage 10.", 1, True),
        ("passage 1\n", 0, True),
        ('"Heat"', 2, True),
        ("  heat ", 2, True),
        ("3. Heat", 2, True),
        ("AT&amp;T story", 6, True),
        ("ＡＴ＆Ｔ　story", 6, True),
        ("I exclude passage 10 here", 1, False),
        ("Heat\nbecause it is old", 2, False),
        ("Heat 2", 3, False),
        ("small (70b), surely", 5, False),
        ("Smal (8b)", 4, False),
        ("Small", None, False),
        ("passage 100", None, False),
        ("passage 1 and passage 10", None, False),
        ("Small (9b)", None, False),
        ("", None, False),
        ("none of them", None, False),
    ],
)  # fmt: skip
def test_a_name_is_read_exactly_in_plain_form_or_where_it_is_the_only_one(answer: str, read: Any, clean: bool) -> None:
    reading = built().read(f"why</think><answer>{answer}</answer>", NAMES, "one")
    assert (reading.indices, reading.clean) == (() if read is None else (read,), clean)


@pytest.mark.parametrize(
    ("answer", "read", "clean"),
    [
        ("Heat 2\nUp > Down\nHeat", (1, 2, 0), True),
        ("1. Heat\n2. Heat 2\n3. Up > Down", (0, 1, 2), True),
        ("Heat > Heat 2", (0, 1), False),
        ("Heat\nHeat\nHeat 2", (0, 1), False),
    ],
)
def test_an_order_of_names_is_read_line_by_line(answer: str, read: tuple[int, ...], clean: bool) -> None:
    reading = built().read(f"</think><answer>{answer}</answer>", ("Heat", "Heat 2", "Up > Down"), "order")
    assert (reading.indices, reading.clean) == (read, clean)
    assert not built().read(f"<think>{answer}", ("Heat", "Heat 2", "Up > Down"), "order").indices


@pytest.mark.parametrize(
    ("output", "read", "clean"),
    [
        ("x</think><answer>Heat</answer>", (2,), True),
        ("<answer>passage 10</answer> <answer> passage 1 </answer>", (0,), True),
        ("<answer>Heat\nmore</answer>", (2,), True),
        ("<answer>passage 100</answer>", (0,), False),  # held by what is said: the first one, as published
        ("<answer>Small (70c)</answer>", (5,), False),
        ("x" * 100 + "Heat", (2,), False),
        ("<answer>zzz</answer>", (), False),
        ("", (), False),
    ],
)
def test_the_published_reading_takes_the_first_that_is_alike(output: str, read: tuple[int, ...], clean: bool) -> None:
    reading = built().read(output, NAMES, "one", published=True)
    assert (reading.indices, reading.clean) == (read, clean)


@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6, unique=True))
def test_any_output_is_read_without_an_error(output: str, names: list[str]) -> None:
    for text, form, published in itertools.product(
        (output, f"<answer>{output}</answer>"), ("one", "order"), (True, False)
    ):
        reading = built().read(text, names, form, published=published)  # type: ignore[arg-type]
        assert len(set(reading.indices)) == len(reading.indices) <= (1 if form == "one" else len(names))
        assert all(0 <= index < len(names) for index in reading.indices)


@given(st.lists(st.text(min_size=1, max_size=20).map(lambda text: " ".join(text.split())), min_size=1, unique=True))
def test_names_as_they_stand_are_always_read(names: list[str]) -> None:
    names = [name for name in names if name and "<" not in name]
    for index, name in enumerate(names):
        reading = built().read(f"</think><answer>{name}</answer>", names, "one")
        assert reading.indices == (index,) and reading.clean


AROUND = "{problem_before}{candidates}{problem_behind}"
ROWS: dict[str, Any] = {
    "form": "iranker",
    "user": "{problem} Answer.",
    "passage": {
        **{"task": "passage", "candidate": "{name}: {text}", "answer": "{name}"},
        **{"iterative": AROUND, "direct": AROUND},
    },
    "item": {"task": "item", "candidate": "'{number}. {text}'", "separator": ", ", "iterative": AROUND},
    "model": {
        **{"task": "model", "candidate": "{name}", "quoted": True, "separator": ", ", "answer": "{name}"},
        **{"iterative": AROUND, "direct": "It was said:\n{problem}\nOf {count}: [{candidates}]?"},
    },
}
PASSAGES = {
    "problem": "## Here is a query: how old and candidate passages:\npassage 3: fleas {x}\npassage 0: ticks\n\nWho?\n ",
    "candidates": ["fleas {x}", "ticks"],
    "gt": "passage 3",
    "task_name": "Passage-5",
}
FILMS = {
    "problem": "Seen, in order:\n['0. Heat', '1. It's']\n\nNow there are 20 films:\n['4. Heat', '7. It's']\n\nWorst?",
    "candidates": ["Heat", "It's"],
    "gt": "Heat",
    "task_name": "Rec-Movie",
}
ROUTES = {
    "problem": "# Names:\n    # A (8b): small.\n    # B's: large.\n    ## Here is a query: 2+2? and LLM condidates: "
    "['A (8b)', \"B's\"]. Which?\n    ",
    "candidates": ["A (8b)", "B's"],
    "gt": "B's",
    "task_name": "Router-Cost",
}


def of_row(row: dict[str, Any]) -> RankingRequest:
    made = request_of_row(row)
    return made.request  # type: ignore[union-attr]


@pytest.mark.parametrize("row", [PASSAGES, FILMS, ROUTES])
def test_a_rows_prompt_is_parted_at_its_candidates(row: dict[str, Any]) -> None:
    given_prompt = of_row(row).given
    assert given_prompt is not None
    assert given_prompt.before + given_prompt.candidates + given_prompt.behind == row["problem"]
    assert all(text in given_prompt.candidates for text in row["candidates"])


def test_a_row_is_asked_about_in_its_own_words(word_limits: Any) -> None:
    prompt = Prompt(build_any_template(ROWS, "here"), word_limits())
    request = of_row(PASSAGES)
    whole, one = prompt.ask("iterative", request, (0, 1)), prompt.ask("iterative", request, (1,))
    assert whole.messages[0].content == f"{PASSAGES['problem']} Answer."
    assert one.messages[0].content == f"{PASSAGES['problem']} Answer.".replace("passage 3: fleas {x}\n", "")
    assert whole.identifiers == ("passage 3", "passage 0")
    assert prompt.ask("direct", request, (0, 1)).messages == whole.messages
    call = prompt.ask("iterative", of_row(ROUTES), (1, 0))
    assert call.messages[0].content == f"{ROUTES['problem']} Answer.".replace("'A (8b)', \"B's\"", "\"B's\", 'A (8b)'")
    assert "Of 2: ['A (8b)', \"B's\"]?" in prompt.ask("direct", of_row(ROUTES), (0, 1)).messages[0].content
    films = prompt.ask("iterative", of_row(FILMS), (0, 1)).messages[0].content
    assert films == f"{FILMS['problem']} Answer.".replace("'4. Heat', '7. It's'", "'0. Heat', '1. It's'")
    with pytest.raises(InputError, match=r"section \[passage\] shows \{problem\}.*this one came without"):
        prompt.ask("iterative", RankingRequest("q", items("a", "b")), (0, 1))


def test_what_came_with_a_request_is_neutralised(word_limits: Any) -> None:
    given_prompt = GivenPrompt(" a\n<|im_end|>\n\n", "c", "\n<think> b\n ")
    request = RankingRequest("q", items("a", "b"), given=given_prompt)
    call = Prompt(build_any_template(ROWS, "here"), word_limits()).ask("iterative", request, (0, 1))
    assert call.messages[0].content == " a\n< |im_end|>\n\ni0: a\ni1: b\n(think) b\n  Answer."


def changed(section: str, **changes: Any) -> dict[str, Any]:
    return OWN | {section: {key: value for key, value in (OWN[section] | changes).items() if value is not None}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (OWN | {"form": "other"}, r"'form' is 'other': it must be 'iranker'"),
        (OWN | {"colour": "red"}, r"'colour' is unknown: use form"),
        (OWN | {"user": "no problem"}, r"'user' is .*placeholder \{problem\} is missing"),
        (OWN | {"system": 3}, r"'system' is 3: give a text"),
        (OWN | {"opening": "Well."}, r"'opening' is 'Well\.': it must end with <think>"),
        (OWN | {"empty": " "}, r"'empty' is ' ': a candidate without text would have nothing"),
        ({"form": "iranker"}, r"no section: add one such as \[passage\]"),
        (
            changed("passage", task="film"),
            r"\[passage\]: field 'task' is 'film': it must be 'passage'",
        ),
        (changed("passage", colour=1), r"\[passage\]: field 'colour' is unknown: use task"),
        (changed("passage", answer="it"), r"answer is 'it': it must hold \{number\}, \{name\} or \{text\}"),
        (changed("passage", answer="{rank}"), r"unknown placeholder \{rank\}"),
        (changed("passage", candidate="passage {number}"), r"candidate is .*it must hold \{text\} or \{name\}"),
        (changed("passage", iterative="{query}"), r"'iterative' is .*placeholder \{candidates\} is missing"),
        (changed("passage", iterative="{candidates}"), r"'iterative' is .*placeholder \{query\} is missing"),
        (changed("passage", iterative=None, direct=None), r"no wording: add iterative or direct"),
        (changed("passage", first_number=-1), r"'first_number' is -1: give at least 0"),
        (changed("item", quoted="yes"), r"'quoted' is 'yes': give true or false"),
        (changed("item", quoted=False), r"a candidate's text could pass for two candidates: set quoted = true"),
        (changed("movie", aim=""), r"two sections are for iterative requests of task 'item' with the aim ''"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(content: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_any_template(content, "here")


def test_the_digest_covers_what_shapes_a_prompt() -> None:
    first = built().digest()
    assert built(name="other").digest() == first
    others = [OWN | {"opening": ""}, changed("passage", first_number=1), changed("cost", detail="{text}")]
    assert len({build_any_template(each, "x").digest() for each in others} | {first}) == 4
    assert built().only("direct").digest() != first
    assert set(built().only("direct").wordings) == {"direct"}


def test_the_packaged_file_serves_all_tasks(word_limits: Any) -> None:
    path = family_options("iranker", {})["template"]
    template = open_template(path)
    assert isinstance(template, IRankerTemplate) and set(template.wordings) == {"iterative", "direct"}
    prompt = Prompt(template, word_limits())
    for (task, aim, candidates), asked in itertools.product(NINE, ("iterative", "direct")):
        call = prompt.ask(asked, RankingRequest("q", candidates, task, aim=aim), range(3))
        assert aim in said(call) and call.messages[-1].role == "assistant"
        assert all(name in said(call) for name in call.identifiers)
    found = json.loads(r1ranker("prompt", "show", path, "--task", "item", "--format", "json").output)
    assert found["messages"][-1]["role"] == "assistant"
    assert "Wanted: what comes next." in found["messages"][1]["content"]


def test_prompts_fit_the_context_with_their_answers(word_limits: Any) -> None:
    template = built()
    limits = word_limits(context_length=400, answer_reserve=20)
    request = RankingRequest("Heat", tuple(Candidate(str(n), f"t{n} " * 60) for n in range(6)), "item")
    call = Prompt(template, limits).ask("direct", request, range(6))
    assert call.cut_passages == 6
    answer = sum(limits.count_tokens(name) for name in call.identifiers)
    assert limits.count_prompt_tokens(call.messages) + answer < 400
    assert call.question == Question("direct", "order", request, tuple(range(6)))
