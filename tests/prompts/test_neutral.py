"""Text as data: what the neutraliser takes away, and what it leaves alone."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.neutral import Neutraliser

CONTROL = (
    *("<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<think>", "</think>"),
    *("<｜User｜>", "<｜end▁of▁sentence｜>", "[gMASK]", "im_start", "<|a b|>", "< >", "###\n", " <x>", "▁▁", "€"),
    *("flea", "COVID-19", "New York", "\n\n", "    "),
)
WORDS_AMONG_THEM = ("flea", "COVID-19", "New York")
STRUCTURE = tuple(" ".join(token.split()) for token in CONTROL if token.strip() and token not in WORDS_AMONG_THEM)
IDENTIFIER = re.compile(r"\[\s*\d+\s*\]")
TAG = re.compile(r"<\s*/?\s*(think|answer)\s*>", re.IGNORECASE)
neutral = Neutraliser(CONTROL)

FRAGMENTS = st.sampled_from(
    [
        *CONTROL,
        *(token[:cut] for token in CONTROL for cut in (1, len(token) // 2, -1)),
        *(token[cut:] for token in CONTROL for cut in (1, len(token) // 2, -1)),
        *("[3]", "[ 12 ]", "[", "]", "3", "[٣]", "[①]", "［", "］", "[1] > [2]", "(1)"),
        *("<", ">", "/", "think", "answer", "</answer>", "<ANSWER>", "< / think >", "＜think＞", "＜", "＞"),
        *("｜", "|", "\u200b", "\u00ad", "\ufeff", "\u0338", "\u0301", "\u202e", "\x00", "\x01", "\ud800", "\u00a8"),
        *(" ", "\n", "\r\n", "\t", "\u2028", "\u00a0", "\x1c", "\x85", "word", "ﬁ", "ｆｌｅａ", "x"),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=14).map("".join)


def disguises_removed(text: str) -> str:
    visible = "".join(sign for sign in text if unicodedata.category(sign) not in ("Cc", "Cf"))
    return unicodedata.normalize("NFKC", visible)


def assert_harmless(text: str) -> None:
    for token in STRUCTURE:
        assert token not in text
    assert not IDENTIFIER.search(text)
    assert not TAG.search(text)


ANY = st.one_of(TEXTS, st.text(), st.lists(st.sampled_from("€ \x00"), max_size=4).map("".join))


@given(text=ANY, cut=st.integers(0, 40))
def test_nothing_that_acts_as_structure_is_left_and_no_text_vanishes(text: str, cut: int) -> None:
    result = neutral(text)
    for part in (result, disguises_removed(result), result[:cut]):
        assert_harmless(part)
    assert result == " ".join(result.split()) == neutral(result)
    assert bool(result) == bool(text.strip())
    result.encode("utf-8")


# None of the tokens above is made of these signs alone.
ORDINARY = st.text(st.characters(categories=("L", "N", "M", "Sm"), exclude_characters="<>|")).map(
    lambda text: text.encode("utf-8", "replace").decode()
)


@given(text=st.lists(ORDINARY, max_size=6).map(" ".join))
def test_ordinary_text_keeps_every_sign(text: str) -> None:
    assert neutral(text) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "A flea (Ctenocephalides felis) lives 2–3 months; see ch. 3, p. 12!",
        "if a < b and c > d: x[i] = y[i + 1]  # ½ ﬁne",
        "COVID-19 in New York: the flea's answer, and what to think of it",
        "日本語の文章、［注］を含む。",
        "x²+y² ≠ z², ＡＢＣ, <b>bold</b>, [a], [3.5], [3, 4]",
    ],
)
def test_ordinary_text_is_unchanged_but_for_white_space(text: str) -> None:
    assert neutral(f"\n {text}\t") == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see [3] and [ 14 ]", "see (3) and (14)"),
        ("[[1]]", "[(1)]"),
        ("</answer>\n[2]", "(/answer) (2)"),
        ("< THINK >so</Think>", "(THINK)so(/Think)"),
        ("stop<|im_end|>", "stop< |im_end|>"),
        ("<|im_<|im_end|>end|>", "<|im_< |im_end|>end|>"),
        ("<think<think>>", "<think(think)>"),
        ("＜think＞ ［3］", "(think) (3)"),
        ("＜｜im_end｜＞", "< |im_end|>"),
        ("<|im_\u200bend|>", "< |im_end|>"),
        ("[\u00ad3]", "(3)"),
        ("<think>\u0338 ＜think＞", "(think)\u0338 (think)"),
        ("<｜User｜>", "< ｜User｜>"),
        ("5 € each", "5 each"),
        ("", ""),
        (" \n\t ", ""),
        ("a\x00b", "a b"),
        ("\ud83d", "?"),
        ("€€ €", "?"),
        ("\x00", "?"),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert neutral(text) == expected


def test_tokens_with_spaces_are_broken_for_good() -> None:
    assert Neutraliser(["<| end|>"])("a <| end|> b") == "a < | end|> b"
    assert "[ X ]" not in Neutraliser(["[ X ]"])("a [ X ] b")
    assert not Neutraliser([" <x>"])("<x> y").startswith("<x>")
