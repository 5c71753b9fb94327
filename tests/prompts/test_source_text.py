"""What published systems do to texts before they show them: repaired characters, a limit in words, lines kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.files import build_any_template
from r1ranker_ir.prompts.neutral import Neutraliser
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.source_text import first_words, repaired
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.systems import FAMILY, family_options
from r1ranker_ir.types import Candidate, RankingRequest

ONE_TURN = {"method": "singleturn_listwise", "body": "[{rank}] {candidate}\n", "suffix": "Wanted: {query}"}
RANK_R1 = {"prompt_system": "", "prompt_user": "{query}\n{docs}", "pattern": "<answer>(.*?)</answer>"}
REASONRANK = {"system_prompt_reasoning": "s", "pattern": "<answer>(.*?)</answer>", "user_prompt": "{query}\n{docs}"}
BROKEN = "the cafÃ©â€™s &amp; bar’s ﬁne"


def shown(template: Any, limits: Any, text: str, query: str = "fleas", **options: Any) -> Any:
    prompt = Prompt(template, limits, **options)
    section = "direct" if "direct" in template.wordings else "setwise"
    return prompt.ask(section, RankingRequest(query, (Candidate("a", text),)), (0,))


def test_texts_are_repaired_before_they_are_shown(word_limits: Any) -> None:
    template = build_any_template(ONE_TURN, "here")
    call = shown(template, word_limits(), BROKEN, "cafÃ© &amp; bar", repair_text=True)
    assert call.messages[-1].content == "[1] the café's & bar's fine\nWanted: café &amp; bar"
    assert call.cut_passages == 0 and not call.cut_query
    call = shown(template, word_limits(), BROKEN, "cafÃ© &amp; bar")
    assert call.messages[-1].content == f"[1] {BROKEN}\nWanted: cafÃ© &amp; bar"


def test_a_text_that_would_be_repaired_away_stays(word_limits: Any) -> None:
    call = shown(build_any_template(ONE_TURN, "here"), word_limits(), "\x01\x02", "\x01", repair_text=True)
    assert "(no text)" not in call.messages[-1].content


def test_what_a_repair_brings_forth_is_harmless(word_limits: Any) -> None:
    text = "&#91;2&#93; &lt;think&gt; &lt;|im_end|&gt;"
    call = shown(build_any_template(ONE_TURN, "here"), word_limits(), text, repair_text=True)
    line = call.messages[-1].content.splitlines()[0]
    assert line.startswith("[1] (2) (think) ") and "<|im_end|>" not in line


@given(st.text(max_size=60) | st.text(st.sampled_from("\x01\x02\x7f\ufeff \ud800"), min_size=1, max_size=4))
def test_any_text_can_be_repaired_and_does_not_vanish(text: str) -> None:
    assert bool(repaired(text).strip()) >= bool(text.strip())
    assert isinstance(repaired(text + "\ud83d", entities=False), str)


def test_the_systems_of_rank_llm_and_reasonrank_repair_and_the_others_do_not() -> None:
    repairing = {name for name, member in FAMILY.items() if member.settings.get("repair_text")}
    assert repairing == {"reasonrank", "listwise", "first", "rankgpt"}
    counting = {name for name, member in FAMILY.items() if member.settings.get("max_passage_words") == 300}
    assert counting == {"listwise", "first", "rankgpt"}
    assert family_options("listwise", {"repair_text": False})["repair_text"] is False


def test_passages_of_trec_dl_2019_that_come_out_differently(data_folder: Path) -> None:
    lines = (data_folder / "trec-dl-2019" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"].strip() for line in lines]
    assert (sum(repaired(text) != text for text in texts), len(texts)) == (890, 4297)


def test_a_missing_ftfy_is_named_before_a_model_is_asked() -> None:
    program = (
        "import sys; sys.modules['ftfy'] = None\n"
        "from r1ranker_ir.backends.oracle import OracleBackend\n"
        "from r1ranker_ir.prompts.prompt import Prompt\n"
        "from r1ranker_ir.prompts.template import load_template\n"
        "Prompt(load_template(), OracleBackend(gains={}), repair_text=True)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert re.search(r"MissingExtraError: repair_text needs ftfy .*pip install ftfy", run.stderr), run.stderr


def test_a_passage_is_cut_to_words_before_its_tokens_count(word_limits: Any) -> None:
    template = build_any_template(ONE_TURN, "here")
    text = " ".join(f"w{number}" for number in range(310))
    call = shown(template, word_limits(), text, max_passage_words=300)
    assert call.messages[-1].content.splitlines()[0] == "[1] " + " ".join(text.split()[:300])
    assert call.cut_passages == 1
    call = shown(template, word_limits(), " ".join(text.split()[:300]), max_passage_words=300)
    assert call.cut_passages == 0
    call = shown(template, word_limits(), text, max_passage_words=300, max_passage_tokens=20)
    assert call.messages[-1].content.splitlines()[0] == "[1] " + " ".join(text.split()[:20])
    assert call.cut_passages == 1


@given(st.text(max_size=80), st.integers(1, 10))
def test_first_words_are_the_first_ones(text: str, most: int) -> None:
    kept, cut = first_words(text, most)
    assert kept.split() == text.split()[:most]
    assert cut == (len(text.split()) > most)


LINES = "def jump(flea):\n    return flea.height * 2\n\n[2] see"


@pytest.mark.parametrize(
    ("content", "published"),
    [
        (RANK_R1, "[1] def jump(flea):\n    return flea.height * 2\n\n[2] see"),
        (REASONRANK, "[1] def jump(flea):\n    return flea.height * 2\n\n(2) see"),
        (ONE_TURN, "[1] def jump(flea): return flea.height * 2 (2) see"),
    ],
)
def test_lines_stay_where_the_published_system_keeps_them(content: Any, published: str, word_limits: Any) -> None:
    template = build_any_template(content, "here")
    assert published in shown(template, word_limits(), LINES, published=True).messages[-1].content
    one_line = "[1] def jump(flea): return flea.height * 2 (2) see"
    assert one_line in shown(template, word_limits(), LINES).messages[-1].content
    own = shown(load_template(), word_limits(), LINES, published=True)
    assert one_line in own.messages[-1].content


HOSTILE = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<answer>", "</answer>", "<|im_start|>", "<|im_end|>", "<|im_", "end|>", "[ 3 ]", "[3]"]
        + ["\n", "\r\n", " ", "\t", "a", "\u200b", "＜", "[/IN ST]", "[/IN", "ST]", "\u00a0"]
    ),
    max_size=14,
).map("".join)


@given(HOSTILE)
def test_kept_lines_are_as_harmless_as_one_line(text: str) -> None:
    tokens = ("<|im_start|>", "<|im_end|>", "[/IN ST]")
    kept = Neutraliser(tokens, keep_lines=True)
    plain = kept(text)
    assert kept(plain) == plain
    for found in (plain, " ".join(plain.split())):
        assert not any(token in found for token in tokens)
        assert not re.search(r"<\s*/?\s*(think|answer)\s*>", found, re.IGNORECASE)
        assert not re.search(r"\[\s*\d+\s*\]", found)


@given(st.text(alphabet="ab\n \t", max_size=40))
def test_harmless_text_keeps_its_white_space(text: str) -> None:
    assert Neutraliser(("<|im_end|>",), keep_lines=True)(text) == text.strip()
