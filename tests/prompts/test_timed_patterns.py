"""Regular expressions of template files: as Python's `re` matches them, but never for ever."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts import timed_patterns
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.prompts.timed_patterns import TimedPattern, checked_pattern

PATTERNS = (
    "<answer>(.*?)</answer>",
    r"<think>.*?</think>\s*<answer>(.*?)</answer>",
    r"^\[\d+\]( > \[\d+\])*$",
    r"\[(\d+)\]",
    r"(?P<a>\w+)-(?P=a)|(x)?",
    "([A-Z])|([a-z])",
)


@given(st.sampled_from(PATTERNS), st.text("<answer>/think[]019ab-AB \n\ud800ก่", max_size=60))
def test_what_matches_is_what_re_says(pattern: str, text: str) -> None:
    for flags in (0, re.DOTALL):
        timed = TimedPattern(checked_pattern(pattern), "here", flags)
        for mine, theirs in (
            (timed.search(text), re.search(pattern, text, flags)),
            (timed.fullmatch(text), re.fullmatch(pattern, text, flags)),
        ):
            assert (mine and (mine[0], *mine.groups())) == (theirs and (theirs[0], *theirs.groups()))


@pytest.mark.parametrize("pattern", ["(a+)+$(b)", "(a|aa)+$", "(.*?,){30}x", "((a{1,9}){1,9}){1,9}b"])
def test_a_pattern_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.setattr(timed_patterns, "SECONDS", 0.2)
    with pytest.raises(InputError, match=r"own\.toml: pattern is .* takes more than 0\.2 seconds on an answer of"):
        TimedPattern(checked_pattern(pattern), "own.toml: pattern").search("a," * 2000 + "a" * 4000 + "!")


@pytest.mark.parametrize(
    "pattern",
    ["a{4294967296}", "(" * 3000 + "a" + ")" * 3000, "(", "[a", "x" * 20_000, r"\p{L}", "((a{1000}){1000}){1000}"],
)
def test_what_is_no_pattern_is_refused(pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"prompt_system = 's'\nprompt_user = '{{query}} {{docs}}'\npattern = '{pattern}'\n")
    with pytest.raises(InputError, match=r"own\.toml: field 'pattern' is .*: it(s| is| has) ") as caught:
        open_template(path)
    assert len(str(caught.value)) < 600


def test_the_patterns_of_template_files_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_patterns, "SECONDS", 0.2)
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
