"""Template files of Rank-R1, ReasonRank and rank_llm, in our own words: their prompts, and what is wrong with them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker, write_corpus
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.errors import CheckpointError, InputError
from r1ranker_ir.prompts.details import Filling
from r1ranker_ir.prompts.digest import digest_of_messages
from r1ranker_ir.prompts.family_template import FamilyTemplate
from r1ranker_ir.prompts.files import build_any_template, open_template
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import YES_OR_NO, load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.reranking import RunSource
from r1ranker_ir.strategies.grades import grade_of
from r1ranker_ir.types import Answer, Call, Candidate, RankingRequest

RANK_R1 = r'''
prompt_system = "You find the best of several documents. <think> comes first, then <answer>."

prompt_user = """Wanted: "{query}". The documents:
{docs}
Which serves best? As in <think> why </think> <answer>[3]</answer>."""

pattern = '<think>.*?</think>\s*<answer>(.*?)</answer>'
'''
RANK_R1_SECOND = RANK_R1 + '\ndoc_separator = "\\n\\n"\ndoc_prefix = "[{num}]: "\nground_truth = "[{num}]"\n'
REASONRANK = r"""
system_prompt = "You order passages."
system_prompt_reasoning = "You order passages, <think> first </think>, <answer> then </answer>."
pattern = '<think>.*?</think>\s*<answer>(.*?)</answer>'
"""
REASONRANK_WHOLE = REASONRANK + (
    'user_prompt = """Here are {num} passages for {query}.\n\n{docs}Wanted: {query}. Order all {num}."""\n'
)
NUMBERS = r"""
method: "singleturn_listwise"
system_message: "You are a sorter of {passages}"
prefix: |
  There are {num} passages with numbers in []. What is wanted: {query}.
body: |
  [{rank}] {candidate}
suffix: |-
  Once more: {query}.
  Write all {num} as in [2] > [1] and nothing more.
output_validation_regex: r"^\[\d+\]( > \[\d+\])*$"
output_extraction_regex: r"\[(\d+)\]"
"""
LETTERS = (
    NUMBERS.replace("numbers", "letters")
    .replace("[2] > [1]", "[B] > [A]")
    .replace(r"^\[\d+\]( > \[\d+\])*$", r"^\[[A-Z]\]( > \[[A-Z]\])*$")
    .replace(r"\[(\d+)\]", r"\[([A-Z])\]")
)
BRIGHT = LETTERS.replace("  [{rank}] {candidate}", "  - Passage [{rank}]: {candidate}")
NO_SUFFIX = 'method: singleturn_listwise\nprefix: "Sort for {query}\\n\\n"\nbody: "[{rank}] {candidate}\\n\\n"\n'
APPENDED = (
    'method: singleturn_listwise\nprefix: "For {query}:"\nbody: "\\n[{rank}] {candidate}"\nsuffix: "\\nNow {query}"\n'
)
WORDS = r"""
method: "singleturn_listwise"
prefix: "Sort PASSAGES.\n"
body: "PASSAGE{rank} = \"{candidate}\"\n"
suffix: |-
  WANTED: "{query}"
  PASSAGES: {psg_ids}
  SORTED =
output_validation_regex: r"^\[PASSAGE\d+(, PASSAGE\d+)*\]$"
output_extraction_regex: r"PASSAGE(\d+)"
"""
MULTI = r"""
method: "multiturn_listwise"
system_message: "You order passages."
prefix_user: |-
  {num} passages come.
  They are for: {query}.
prefix_assistant: "Let them come."
body_user: "[{rank}] {candidate}"
body_assistant: "There is [{rank}]."
suffix_user: |-
  Wanted: {query}.
  Order all {num}.
output_validation_regex: r"^\[\d+\]( > \[\d+\])*$"
output_extraction_regex: r"\[(\d+)\]"
"""
REASONING_YAML = NUMBERS.replace("You are a sorter", "<think> first </think>, then <answer> </answer>; a sorter")
# As rank_llm's insert_rank, pointwise_vllm and Rank-R1's listwise file have it.
SCORED = NUMBERS.replace("  [{rank}] {candidate}", "  [{rank}] {candidate}\n  The first search gave [{rank}] {score}")
ASKED_OF_ONE = """
method: "pointwise"
system_message: "You say yes or no."
body: "Asked: {query}\\nTold: {doc_content}\\nDoes it help?"
"""
ROLES = """
method: "pointwise"
message_roles: "reranker"
instruction: >-
  Find what answers
  the question
body: "Instruction: {instruction} {query} {doc_content}"
"""
RANK_R1_ORDER = r'''
prompt_system = "You order passages."

prompt_user = """There are {num} passages for {query}.
{docs}
Once more: {query}. Order all {num} as in [2] > [1]."""

pattern = '\s*([\d+\s*>*\[\]]+)\s*'
'''
TEXTS = ["fleas jump", "kettles {boil} 100%", "sheep"]
QUERY = "what {jumps}"


def opened(tmp_path: Path, text: str, name: str = "given.yaml") -> FamilyTemplate:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    template = open_template(path)
    assert isinstance(template, FamilyTemplate)
    return template


def turns(template: FamilyTemplate, query: str = QUERY, texts: list[str] = TEXTS) -> list[tuple[str, str]]:
    [section] = template.wordings
    return [(message.role, message.content) for message in template.messages(section, Filling(query, texts, "passage"))]


LINES = "[1] fleas jump\n[2] kettles {boil} 100%\n[3] sheep\n"
LETTER_LINES = "[A] fleas jump\n[B] kettles {boil} 100%\n[C] sheep\n"


def of_rank_r1(lines: str) -> list[tuple[str, str]]:
    user = f'Wanted: "{QUERY}". The documents:\n{lines}\nWhich serves best? As in <think> why </think> '
    system = "You find the best of several documents. <think> comes first, then <answer>."
    return [("system", system), ("user", f"{user}<answer>[3]</answer>.")]


def of_single_turn(lines: str, kind: str, example: str) -> list[tuple[str, str]]:
    user = f"There are 3 passages with {kind} in []. What is wanted: {QUERY}.\n{lines}Once more: {QUERY}.\n"
    user += f"Write all 3 as in {example} and nothing more."
    return [("system", "You are a sorter of {passages}"), ("user", user)]


REASONING = ("system", "You order passages, <think> first </think>, <answer> then </answer>.")
OPENING = [
    ("system", "You order passages."),
    ("user", f"3 passages come.\nThey are for: {QUERY}."),
    ("assistant", "Let them come."),
]
BODIES = [
    turn
    for number, text in enumerate(TEXTS, start=1)
    for turn in (("user", f"[{number}] {text}"), ("assistant", f"There is [{number}]."))
]
CLOSING = ("user", f"Wanted: {QUERY}.\nOrder all 3.")
IN_ORDER = ("user", f"There are 3 passages for {QUERY}.\n{LINES}Once more: {QUERY}. Order all 3 as in [2] > [1].")
IN_WORDS = "".join(f'PASSAGE{number} = "{text}"\n' for number, text in enumerate(TEXTS, start=1))
BY_WORDS = f'{IN_WORDS}WANTED: "{QUERY}"\nPASSAGES: [PASSAGE1, PASSAGE2, PASSAGE3]\nSORTED ='
WHOLE = ("user", f"Here are 3 passages for {QUERY}.\n\n{LINES}Wanted: {QUERY}. Order all 3.")
UNCONFIRMED = re.sub(r"body_assistant: .*\n", "", MULTI)
UNOPENED = re.sub(r"prefix_user: \|-\n.*\n.*\nprefix_assistant: .*\n", "", MULTI)
RENDERED: list[tuple[str, str, list[tuple[str, str]]]] = [
    # Rank-R1's first version has lines, its second blank lines, and its listwise file asks for an order.
    ("a.toml", RANK_R1, of_rank_r1(LINES.rstrip())),
    ("a.toml", RANK_R1_SECOND, of_rank_r1("[1]: fleas jump\n\n[2]: kettles {boil} 100%\n\n[3]: sheep")),
    ("a.toml", RANK_R1_ORDER, [OPENING[0], IN_ORDER]),
    ("a.toml", REASONRANK_WHOLE, [REASONING, WHOLE]),
    ("a.yaml", NUMBERS, of_single_turn(LINES, "numbers", "[2] > [1]")),
    ("a.yaml", LETTERS, of_single_turn(LETTER_LINES, "letters", "[B] > [A]")),
    ("a.yaml", BRIGHT, of_single_turn(re.sub(r"(\[.\])", r"- Passage \1:", LETTER_LINES), "letters", "[B] > [A]")),
    # Parts may be absent or stand elsewhere.
    ("a.yaml", NO_SUFFIX, [("user", f"Sort for {QUERY}\n\n" + LINES.replace("\n", "\n\n"))]),
    ("a.yaml", APPENDED, [("user", f"For {QUERY}:\n{LINES}Now {QUERY}")]),
    ("a.yaml", WORDS, [("user", f"Sort PASSAGES.\n{BY_WORDS}")]),
    ("a.yaml", MULTI, [*OPENING, *BODIES, CLOSING]),
    # Without confirmations all candidates come in one turn; without an opening the first candidate begins.
    ("a.yaml", UNCONFIRMED, [*OPENING, ("user", LINES.replace("\n", "") + CLOSING[1])]),
    ("a.yaml", UNOPENED, [OPENING[0], *BODIES, CLOSING]),
]


@pytest.mark.parametrize(("name", "text", "said"), RENDERED)
def test_the_files_own_systems_prompt_is_sent(
    name: str, text: str, said: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert turns(opened(tmp_path, text, name)) == said


UNSAID = re.compile(r"output_\w+: .*\n")


@pytest.mark.parametrize(
    ("name", "text", "sections", "thinks", "tagged", "letters"),
    [
        ("a.toml", RANK_R1, {"setwise"}, True, True, False),
        ("a.toml", RANK_R1.replace(r"<think>.*?</think>\s*", ""), {"setwise"}, False, True, False),
        ("a.toml", RANK_R1_ORDER, {"direct"}, False, False, False),
        ("a.toml", REASONRANK_WHOLE, {"direct"}, True, True, False),
        ("a.yaml", NUMBERS, {"direct"}, False, False, False),
        ("a.yaml", REASONING_YAML, {"direct"}, True, True, False),
        ("a.yaml", LETTERS, {"direct"}, False, False, True),
        # An order shown in letters is enough where no expression says so.
        ("a.yaml", UNSAID.sub("", LETTERS), {"direct"}, False, False, True),
        ("a.yaml", UNSAID.sub("", NUMBERS), {"direct"}, False, False, False),
    ],
)
def test_a_file_says_how_it_is_answered(
    name: str, text: str, sections: set[str], thinks: bool, tagged: bool, letters: bool, tmp_path: Path
) -> None:
    template = opened(tmp_path, text, name)
    assert set(template.wordings) == sections
    assert (template.thinks, template.tagged, template.letters) == (thinks, tagged, letters)


def test_a_file_is_not_asked_for_what_it_has_no_words_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"asks for the best of the candidates, and has no section \[direct\]"):
        opened(tmp_path, RANK_R1, "a.toml").messages("direct", Filling("q", ["a"], "passage"))
    with pytest.raises(InputError, match=r"asks for one candidate's grade, and has no section \[direct\]"):
        opened(tmp_path, ASKED_OF_ONE).messages("direct", Filling("q", ["a"], "passage"))


def test_rank_r1s_listwise_file_asks_for_an_order(tmp_path: Path, word_limits: Any) -> None:
    template = opened(tmp_path, RANK_R1_ORDER, "a.toml")
    call = ask(template, word_limits(), ["a\nb [2]", "x", "y"], published=True)
    assert "\n[1] a\nb [2]\n[2] x\n" in call.messages[-1].content
    prompt = Prompt(template, word_limits(), published=True)
    for output, read, clean in (
        ("[2] > [1] > [3]", (1, 0, 2), True),
        (" [2]>[1]", (1, 0), False),
        ("no order", (), False),
        ("[2] > [9] > [2] > [1]", (1, 0), False),
    ):
        reading = prompt.read(call, Answer(output))
        assert (reading.indices, reading.clean) == (read, clean)


def test_a_file_that_shows_scores_is_filled_with_the_first_stages(tmp_path: Path, word_limits: Any) -> None:
    template = opened(tmp_path, SCORED)
    prompt = Prompt(template, word_limits())
    candidates = (Candidate("a", "fleas", 12.34567), Candidate("b", "sheep {score}", -1))
    call = prompt.ask("direct", RankingRequest("q", candidates), (1, 0))
    scored = "[1] sheep {score}\nThe first search gave [1] -1.000\n[2] fleas\nThe first search gave [2] 12.346\n"
    assert scored in call.messages[-1].content
    unscored = RankingRequest("q", (Candidate("a", "fleas", 1.0), Candidate("b", "sheep")))
    with pytest.raises(InputError, match=r"shows \{score\}, .* and candidate 'b' has none: rerank a run"):
        prompt.ask("direct", unscored, (0, 1))
    limits = word_limits(context_length=60, answer_reserve=2)
    cut = Prompt(template, limits).ask(
        "direct", RankingRequest("q", tuple(Candidate(str(n), "word " * 40, 1.5) for n in range(2))), (0, 1)
    )
    assert cut.cut_passages == 2 and "gave [2] 1.500" in cut.messages[-1].content


def test_a_run_brings_its_scores(tmp_path: Path, word_limits: Any) -> None:
    folder = write_corpus(tmp_path / "corpus", {"a": "fleas jump", "b": "kettles boil"}, {"1": "fleas"})
    (tmp_path / "run.trec").write_text("1 Q0 b 1 7.25 x\n1 Q0 a 2 3.5 x\n")
    [request] = RunSource(str(folder), str(tmp_path / "run.trec"), 10).requests()
    call = Prompt(opened(tmp_path, SCORED), word_limits()).ask("direct", request, (0, 1))
    assert "[1] kettles boil\nThe first search gave [1] 7.250\n[2] fleas jump" in call.messages[-1].content


def test_rank_llms_pointwise_files_for_chat_models(tmp_path: Path, word_limits: Any) -> None:
    plain, roles = opened(tmp_path, ASKED_OF_ONE, "a.yaml"), opened(tmp_path, ROLES, "b.yaml")
    request = RankingRequest("why {x} [1]", (Candidate("a", "see [2] {y}"), Candidate("b", "two")))
    for published in (False, True):
        call = Prompt(plain, word_limits(), published=published).ask("pointwise", request, (0,))
        assert [(turn.role, turn.content) for turn in call.messages] == [
            ("system", "You say yes or no."),
            ("user", "Asked: why {x} (1)\nTold: see (2) {y}\nDoes it help?"),
        ]
        assert (call.identifiers, call.form) == (("no", "yes"), "one")
        assert not (call.thinks or call.tagged or call.free)
        call = Prompt(roles, word_limits(), published=published).ask("pointwise", request, (1,))
        assert [(turn.role, turn.content) for turn in call.messages] == [
            ("system", "Find what answers the question"),
            ("query", "why {x} (1)"),
            ("document", "two"),
        ]
    default = opened(tmp_path, re.sub("system_message.*", "message_roles: default", ASKED_OF_ONE), "c.yaml")
    assert [turn.role for turn in Prompt(default, word_limits()).ask("pointwise", request, (0,)).messages] == ["user"]
    assert len({plain.digest(), roles.digest(), default.digest()}) == 3


def test_yes_and_no_are_graded_by_their_probabilities(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    (tmp_path / "a.yaml").write_text(ASKED_OF_ONE)
    ranker = Ranker(make_checkpoint("chatml"), strategy="pointwise", template=tmp_path / "a.yaml", device="cpu")
    request = RankingRequest("fleas", tuple(Candidate(str(place), text) for place, text in enumerate(TEXTS)))
    [ranking] = ranker.rank([request])
    grades = [step.grade for step in ranking.steps]
    assert all(grade is not None and 0 < grade < 10 for grade in grades) and len(set(grades)) == 3
    assert list(ranking.order) == sorted(range(3), key=lambda place: -grades[place])  # type: ignore[operator]
    assert {step.text for step in ranking.steps} <= {"yes", "no"} and ranking.repairs == 0
    with pytest.raises(InputError, match=r"votes=2 are among thoughts, and template .* asks for none"):
        Ranker(
            make_checkpoint("chatml"), strategy="pointwise", template=tmp_path / "a.yaml", device="cpu",
            votes=2, vote_among="thoughts", temperature=0.7,
        ).rank([request])  # fmt: skip
    (tmp_path / "b.yaml").write_text(ROLES)
    with pytest.raises(CheckpointError, match=r"has no turn of the role 'query'.*message_roles: default"):
        Ranker(make_checkpoint("gemma"), strategy="pointwise", template=tmp_path / "b.yaml", device="cpu").rank(
            [request]
        )


@pytest.mark.parametrize(
    ("output", "grade", "repaired"),
    [
        ("yes", 10.0, False),
        ("No.", 0.0, False),
        ("<think>no, no</think> Yes", 10.0, False),
        ("yes and no", 10.0, True),
        ("perhaps, I know", 5.0, True),
        ("", 5.0, True),
    ],
)
def test_a_free_yes_or_no_is_read(output: str, grade: float, repaired: bool) -> None:
    assert grade_of(Answer(output), YES_OR_NO) == (grade, repaired)


def test_reasonranks_file_without_a_users_turn_gets_one_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "r1ranker_ir"):
        opened(tmp_path, REASONRANK_WHOLE, "whole.toml")
        assert not caplog.text
        bare = opened(tmp_path, REASONRANK, "bare.toml")
    assert "bare.toml holds no user's turn" in caplog.text
    [said, (_, user)] = turns(bare)
    assert said == REASONING and f"\n\n{LINES}" in user and QUERY in user and "3 passages" in user


DOCS, GROUP = "{docs}", "(.*?)"
MALFORMED_TOML = [
    (RANK_R1 + 'colour = "red"', r"'colour' is unknown: use prompt_system, .*doc_prefix"),
    (
        RANK_R1.replace(DOCS, "{dcs}"),
        r"'prompt_user' is .*unknown placeholder \{dcs\}; use \{docs\}, \{num\}, \{query\}",
    ),
    (RANK_R1.replace(DOCS, ""), r"'prompt_user' is .*placeholder \{docs\} is missing"),
    (RANK_R1.replace(DOCS, "{docs"), r"'prompt_user' is .*write a literal brace as \{\{ or \}\}"),
    (RANK_R1.replace("pattern =", "# pattern ="), r"'pattern' is missing"),
    (RANK_R1.replace(GROUP, ".*?"), r"'pattern' is .*put the part that answers into a group"),
    (RANK_R1.replace(GROUP, "(.*?"), r"'pattern' is .*not a regular expression"),
    (RANK_R1 + "doc_separator = 3", r"'doc_separator' is 3: give a text"),
    (RANK_R1 + 'doc_prefix = "{num}. "', r"doc_prefix is .*must hold \[\{num\}\]"),
    (RANK_R1 + 'doc_prefix = "[]"', r"'doc_prefix' is .*placeholder \{num\} is missing"),
    (REASONRANK + 'more = "x"', r"'more' is unknown: use system_prompt_reasoning"),
    (REASONRANK.replace("system_prompt_reasoning", "system_promt"), r"'system_promt' is unknown: did you mean"),
    (REASONRANK + 'user_prompt = "{query}"', r"'user_prompt' is .*placeholder \{docs\} is missing"),
    ("prompt_user = ", r"is not valid TOML"),
]
MALFORMED_YAML = [
    (NUMBERS + "more: x", r"'more' is unknown: use method"),
    (NUMBERS.replace("{candidate}", "{text}"), r"'body' is .*unknown placeholder \{text\}"),
    (NUMBERS.replace("{candidate}", ""), r"'body' is .*placeholder \{candidate\} is missing"),
    (NUMBERS.replace("[{rank}]", "{rank}."), r"body is .*must hold \[\{rank\}\]"),
    (NUMBERS.replace("{query}", "it"), r"placeholder \{query\} is missing"),
    (NUMBERS.replace("{query}.", "{query} {score}"), r"unknown placeholder \{score\}"),
    (NUMBERS.replace("singleturn_listwise", "other"), r"method is 'other': .*use a template of singleturn_listwise"),
    (NUMBERS.replace('"singleturn_listwise"', "[1]"), r"method is \[1\]: .*use a template of singleturn_listwise"),
    ("method: pairwise\nbody: 'Q {query} {doc1} {doc2}'\n", r"it holds the input of DuoT5, an encoder-decoder that"),
    ("method: rankfid\ntext: '{query} [{index}] {passage}'\n", r"it holds the input of LiT5, an encoder-decoder that"),
    (
        "method: pointwise\nbody: '{query} {doc_content}?'\n",
        r"an encoder's or T5's, such as MonoT5, MonoELECTRA or Jina",
    ),
    (ASKED_OF_ONE.replace("{doc_content}", "{doc}"), r"'body' is .*unknown placeholder \{doc\}"),
    (ROLES.replace("instruction:", "system_message:"), r"instruction is missing: with message_roles"),
    (ROLES.replace("reranker", "judge"), r"'message_roles' is 'judge': it must be '', 'default' or 'reranker'"),
    (NUMBERS.replace(r"\[(\d+)\]", r"\[(\d+\]"), r"_extraction_regex' is .*not a regular expression"),
    (re.sub(r"prefix_assistant: .*\n", "", MULTI), r"prefix_user and prefix_assistant go together"),
    (re.sub(r"body_user: .*\n", "", MULTI), r"'body_user' is missing"),
    (MULTI.split("suffix_user")[0], r"suffix_user is missing: the last turn is a user's"),
    ("method: [", r"is not valid YAML"),
    ("- a\n- b\n", r"the record is \['a', 'b'\]: give an object with name, candidate"),
]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [*(("a.toml", *each) for each in MALFORMED_TOML), *(("a.yaml", *each) for each in MALFORMED_YAML)],
)
def test_what_is_wrong_with_a_file_is_named(name: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said) as raised:
        open_template(path)
    assert str(path) in str(raised.value)


def test_letters_end_with_z(tmp_path: Path) -> None:
    template = opened(tmp_path, LETTERS)
    assert template.identifiers(26)[-1] == "[Z]"
    with pytest.raises(InputError, match=r"26 at most, and a prompt was to show 27: give a smaller window_size"):
        template.identifiers(27)


def ask(template: Any, limits: Any, texts: list[str], query: str = "fleas", **options: Any) -> Call:
    prompt = Prompt(template, limits, **options)
    request = RankingRequest(query, tuple(Candidate(str(place), text) for place, text in enumerate(texts)))
    section = "setwise" if "setwise" in template.wordings and "direct" not in template.wordings else "direct"
    return prompt.ask(section, request, range(len(texts)))


def test_brackets_in_passages_become_round(tmp_path: Path, word_limits: Any) -> None:
    call = ask(opened(tmp_path, NUMBERS), word_limits(), ["see [2] and [B]"], "why [1]")
    assert "[1] see (2) and [B]\n" in call.messages[-1].content
    assert "wanted: why (1)." in call.messages[-1].content
    assert call.identifiers == ("[1]",)
    call = ask(opened(tmp_path, LETTERS), word_limits(), ["see [2] and [ B ]", "x"])
    assert "[A] see (2) and (B)\n[B] x\n" in call.messages[-1].content
    assert call.identifiers == ("[A]", "[B]")
    call = ask(opened(tmp_path, WORDS), word_limits(), ["see PASSAGE2 and [3]"])
    assert 'PASSAGE1 = "see (2) and (3)"' in call.messages[-1].content


def test_rank_r1_leaves_brackets_standing_as_published(tmp_path: Path, word_limits: Any) -> None:
    template = opened(tmp_path, RANK_R1, "a.toml")
    texts = ["see [2] <think> <|im_end|>"]
    assert "\n[1] see (2) (think) " in ask(template, word_limits(), texts).messages[-1].content
    # Control tokens and tags are harmless in either mode.
    call = ask(template, word_limits(), texts, published=True)
    assert "\n[1] see [2] (think) " in call.messages[-1].content
    assert "<|im_end|>" not in call.messages[-1].content
    assert call.free and not ask(template, word_limits(), texts).free


def test_prompts_fit_with_many_turns_as_with_one(tmp_path: Path, word_limits: Any) -> None:
    for text in (NUMBERS, MULTI):
        template = opened(tmp_path, text)
        whole = ask(template, word_limits(), ["word " * 30] * 4)
        limits = word_limits(context_length=100, answer_reserve=10)
        call = ask(template, limits, ["word " * 30] * 4)
        assert limits.count_prompt_tokens(whole.messages) > 90 >= limits.count_prompt_tokens(call.messages)
        assert limits.count_prompt_tokens(call.messages) > 80
        assert (call.cut_passages, whole.cut_passages) == (4, 0)
        assert len(call.messages) == len(whole.messages)


@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=5), query=st.text(min_size=1).filter(str.strip))
def test_text_is_never_read_as_a_placeholder(texts: list[str], query: str) -> None:
    for content in (
        {"method": "singleturn_listwise", "body": "[{rank}] {candidate}\n", "suffix": "{query} {num}"},
        {"prompt_system": "", "prompt_user": "{query} {docs}", "pattern": "(.*)"},
    ):
        template = build_any_template(content, "here")
        said = turns(template, query, texts)[-1][1]  # type: ignore[arg-type]
        assert query in said and all(text in said for text in texts)


def test_the_digest_covers_what_shapes_a_prompt_and_not_the_name(tmp_path: Path) -> None:
    first = opened(tmp_path, NUMBERS, "a.yaml").digest()
    assert first == opened(tmp_path, NUMBERS, "b.yaml").digest()
    changed = (LETTERS, BRIGHT, MULTI, REASONING_YAML, NUMBERS.replace("Once", "once"), NUMBERS.replace("sorter", "s"))
    others = {opened(tmp_path, text).digest() for text in changed}
    assert len(others | {first}) == len(changed) + 1
    assert re.fullmatch(r"[0-9a-f]{16}", first)


@pytest.mark.parametrize(
    ("text", "output", "read", "clean"),
    [
        (NUMBERS, "[2] > [1] > [3]", (1, 0, 2), True),
        (NUMBERS, "<think>[3] is bad</think>\n[2] > [1] > [3]", (1, 0, 2), True),
        (LETTERS, "[B] > [A] > [C]", (1, 0, 2), True),
        (LETTERS, "Of 3: B > A > C", (1, 0, 2), True),
        (LETTERS, "[B] > [A]", (1, 0), False),
        (LETTERS, "[B] > [Q] > [A] > [C]", (1, 0, 2), False),
        (WORDS, "[PASSAGE2, PASSAGE1, PASSAGE3]", (1, 0, 2), True),
        (REASONING_YAML, "<think>[1]</think><answer> [2] > [1] > [3] </answer>", (1, 0, 2), True),
        (REASONING_YAML, "<think>[1] [2] [3]", (), False),
    ],
)
def test_free_answers_are_read_with_the_templates_identifiers(
    text: str, output: str, read: tuple[int, ...], clean: bool, tmp_path: Path, word_limits: Any
) -> None:
    template = opened(tmp_path, text)
    call = ask(template, word_limits(), ["a", "b", "c"])
    reading = Prompt(template, word_limits()).read(call, Answer(output))
    assert (reading.indices, reading.clean) == (read, clean)


def show(*arguments: object, code: int = 0) -> Any:
    return r1ranker("prompt", "show", *arguments, code=code)


def shown(*arguments: str) -> dict[str, Any]:
    return dict(json.loads(show(*arguments, "--format", "json").stdout))


def test_a_prompt_is_shown_with_its_hashes(tmp_path: Path) -> None:
    template = opened(tmp_path, MULTI)
    arguments = (str(tmp_path / "given.yaml"), "--query", "fleas", "--document", "they jump", "--document", "see [1]")
    result, found = show(*arguments), shown(*arguments)
    first = result.output.splitlines()[0]
    assert re.fullmatch(rf"template .*given\.yaml {template.digest()} · direct · prompt [0-9a-f]{{16}}", first)
    assert "\n[assistant]\nThere is [2].\n" in result.output and "\n[user]\n[2] see (1)\n" in result.output
    assert (found["template_hash"], found["section"], found["thinks"]) == (template.digest(), "direct", False)
    assert found["identifiers"] == ["[1]", "[2]"]
    messages = template.messages("direct", Filling("fleas", ["they jump", "see (1)"], "passage"))
    assert [message["role"] for message in found["messages"]] == [message.role for message in messages]
    assert found["prompt_hash"] == digest_of_messages(messages)[:16]


def test_the_projects_own_prompts_are_shown_by_section() -> None:
    for section in ("iterative", "mark", "direct", "setwise"):
        found = shown("--section", section, "--task", "item")
        assert found["section"] == section
        assert found["template_hash"] == load_template().digest(mark=section == "mark")
    assert "Dropped before: [3]" in show("--section", "mark").output and "still in the running" in show().output


def test_what_can_not_be_shown_is_said(tmp_path: Path) -> None:
    opened(tmp_path, RANK_R1, "a.toml")
    for arguments, said in (
        ((tmp_path / "a.toml", "--section", "direct"), "asks for the best of the candidates"),
        (("--section", "mark", "--document", "alone"), "at least two --document"),
        ((tmp_path / "gone.toml",), "can't be read"),
    ):
        assert said in show(*arguments, code=1).output


def test_what_is_shown_is_cut_as_it_would_be_for_the_model(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    path = str(opened(tmp_path, NUMBERS).name)
    long, query = "flea " * 400, "kettle " * 60
    folder = make_checkpoint("chatml", max_position_embeddings=600)
    arguments = (path, "--document", long, "--document", "short", "--query", query, "--model", str(folder))
    limits = ("--max-thought-tokens", "100", "--max-query-tokens", "20", "--max-passage-words", "350")
    found = shown(*arguments, *limits)
    ranker = Ranker(
        folder, strategy="direct", template=path, device="cpu", max_thought_tokens=100, max_query_tokens=20,
        max_passage_words=350,
    )  # fmt: skip
    request = RankingRequest(query, (Candidate("0", long), Candidate("1", "short")))
    call = ranker.prompt.ask("direct", request, (0, 1))
    assert [message["content"] for message in found["messages"]] == [message.content for message in call.messages]
    assert (found["cut_passages"], found["cut_query"]) == (call.cut_passages, call.cut_query) == (1, True)
    assert found["tokens"] == ranker.backend.count_prompt_tokens(call.messages) <= 600 - 300
    assert found["counted"] == f"by the tokenizer of {folder}"
    printed = show(*arguments, *limits).output
    assert f"{found['tokens']} tokens (by the tokenizer of {folder}), 1 passage cut, the query cut\n" in printed
    uncut = shown(path, "--document", long, "--query", query)
    assert (uncut["cut_passages"], uncut["cut_query"], uncut["counted"]) == (0, False, "estimated")
    system = shown("--system", "listwise", "--document", "a &amp; " * 300)
    assert system["cut_passages"] == 1 and system["messages"][1]["content"].count("a &") == 150
    assert "system 'other' is not known" in show("--system", "other", code=1).output
    asked = show("--system", "Rank-R1", "--format", "json")
    assert json.loads(asked.stdout)["section"] == "setwise" and "this project's own words" in asked.stderr
    assert show("--system", "rank-r1", path, "--section", "direct").stderr == ""
    assert "context is 90" in show(*arguments, "--context-length", "90", code=1).output
