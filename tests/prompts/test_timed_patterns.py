"""Regular expressions of template files: as Python's `re` matches them, but never for ever."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts import timed_patterns
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.prompts.timed_patterns import timed_pattern

PATTERNS = (
    "<answer>(.*?)</answer>",
    r"<think>.*?</think>\s*<answer>(.*?)</answer>",
    r"^\[\d+\]( > \[\d+\])*$",
    r"\[(\d+)\]",
    r"(?P<a>\w+)-(?P=a)|(x)?",
    r"a{e<=1}(b)",
    "([A-Z])|([a-z])",
)
HANGING = (
    "(a+)+$(b)",
    "(a|aa)+$",
    "(.*?,){30}x",
    "(a|a)*(b)",
    "((a{1,100}){1,100}){1,100}b",
    "(.*)(.*)(.*)(.*)(.*)(.*)x",
)


@given(st.sampled_from(PATTERNS), st.text("<answer>/think[]019ab-AB \n\ud800ก่", max_size=60))
def test_what_matches_is_what_re_says(pattern: str, text: str) -> None:
    for flags in (0, re.DOTALL):
        timed = timed_pattern(pattern, "here", flags)
        for mine, theirs in (
            (timed.search(text), re.search(pattern, text, flags)),
            (timed.fullmatch(text), re.fullmatch(pattern, text, flags)),
        ):
            assert mine == (None if theirs is None else (theirs[0], *theirs.groups()))


@pytest.mark.parametrize("pattern", HANGING)
def test_a_pattern_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.setattr(timed_patterns, "SECONDS", 0.5)
    with pytest.raises(InputError, match=r"own\.toml: pattern is .* takes more than 0\.5 seconds on an answer of"):
        timed_pattern(pattern, "own.toml: pattern").search("a," * 2000 + "a" * 4000 + "!")
    # The next one is none the worse for it.
    assert timed_pattern("(b)", "here").search("abc") == ("b", "b")


@pytest.mark.parametrize("pattern", ["a{4294967296}", "(" * 3000 + "a" + ")" * 3000, "(", "[a", "x" * 20_000, r"\p{L}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"own\.toml: pattern (is|has) ") as caught:
        timed_pattern(pattern, "own.toml: pattern")
    assert len(str(caught.value)) < 600


def test_nested_counts_do_not_fill_the_memory() -> None:
    assert timed_pattern("((((a{1000}){1000}){1000}){1000})", "here").search("a" * 100) is None


def test_the_patterns_of_template_files_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_patterns, "SECONDS", 0.5)
    files = {
        "rank_r1.toml": 'prompt_system = "s"\nprompt_user = "{query} {docs}"\npattern = "(a+)+!"\n',
        "reasonrank.toml": 'system_prompt_reasoning = "s"\npattern = "(a|aa)+!"\n',
        "rank_llm.yaml": "method: singleturn_listwise\nprefix: '{query}'\nbody: '[{rank}] {candidate}'\n"
        "output_validation_regex: '(a|aa)+!'\noutput_extraction_regex: '(a)'\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        template = open_template(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: \w+ is .* takes more than"):
            template.read("a" * 5000, ("[1]", "[2]", "[3]"), "order", published=True)


def test_threads_share_the_process() -> None:
    found: list[object] = []

    def work(number: int) -> None:
        for _ in range(20):
            found.append((number, timed_pattern(r"x(\d+)", "here").search(f"x{number}")))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(map(str, found))) == [f"({n}, ('x{n}', '{n}'))" for n in range(4)] and len(found) == 80


def test_a_process_that_was_ended_is_started_again() -> None:
    timed_pattern("a", "here").search("a")
    worker = timed_patterns._worker
    assert worker is not None
    worker._process.kill()
    worker._process.wait()
    assert timed_pattern("(a)", "here").search("ba") == ("a", "a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_asks_a_process_of_its_own() -> None:
    timed_pattern("a", "here").search("a")
    child = os.fork()
    if child == 0:
        os._exit(0 if timed_pattern("(c)", "here").search("abc") == ("c", "c") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert timed_pattern("(b)", "here").search("abc") == ("b", "b")
