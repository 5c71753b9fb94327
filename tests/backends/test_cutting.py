"""Cutting texts: whole words as long as they leave something to read, and never nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from references import Open

from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.backends.tokens import EstimatedCounts
from r1ranker_ir.prompts.cutting import LONG_WORD, LONGEST_CLUSTER, cluster_ends, cut_at_word

Count = Callable[[str], int]

THAI = "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทย"
UNSPACED = {
    "Thai": THAI,
    "Khmer": "រាជធានីភ្នំពេញគឺជាទីក្រុងធំជាងគេបំផុតនៅក្នុងប្រទេសកម្ពុជា",
    "Lao": "ວຽງຈັນເປັນນະຄອນຫຼວງແລະເປັນເມືອງທີ່ໃຫຍ່ທີ່ສຸດຂອງປະເທດລາວ",
    "Burmese": "ရန်ကုန်မြို့သည်မြန်မာနိုင်ငံ၏အကြီးဆုံးမြို့တော်ဖြစ်သည်",
    "Chinese": "跳蚤是一种寄生昆虫，它们的幼虫以成虫留下的东西为食。",
    "rare Chinese": "𠀀𠀁𠀂𠀃𠀄" * 6,
    "Japanese": "ノミは寄生する昆虫で、か\u3099く\u3099んは成虫の残したものを食べて育ちます。",
    "Tibetan": "ལྷ་ས་ནི་བོད་ཀྱི་རྒྱལ་ས་ཡིན་པ་དང་གནའ་བོའི་གྲོང་ཁྱེར་ཞིག་ཡིན།",
    "Javanese": "ꦗꦏꦂꦠꦲꦶꦏꦸꦏꦸꦛꦲꦶꦁꦤꦒꦫꦶꦲꦶꦤ꧀ꦢꦺꦴꦤꦺꦱꦶꦪ",
}
RUNS = {
    **UNSPACED,
    "URL": "https://example.org/archive/2024/report.html?query=" + "0123456789abcdef" * 250,
    "base64": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 40,
    "emoji": "👩‍👩‍👧🇹🇭👍🏽" * 20,
    "letters": "Ctenocephalides" * 60,
}


@pytest.fixture(scope="session")
def count_of(load_tokenizer: Open) -> Callable[[str], ChatTokenizer | EstimatedCounts]:
    return functools.cache(
        lambda name: EstimatedCounts() if name == "estimated" else ChatTokenizer(load_tokenizer(name))
    )


COUNTERS = ("estimated", "chatml", "gemma", "nfkc")


@pytest.mark.parametrize("beginning", ["", "ok "])
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("counter", COUNTERS)
def test_a_long_run_fills_most_of_what_it_may_take(
    counter: str, name: str, beginning: str, count_of: Callable[[str], Any]
) -> None:
    text, counts = beginning + RUNS[name] * 3, count_of(counter)
    whole = counts.count(text)
    assert whole > 20  # or nothing would be cut
    for limit in (whole // 2, whole - 1):
        cut = cut_at_word(text, limit, counts.count)
        assert text.startswith(cut)
        assert 0.7 * limit - 15 <= counts.count(cut) <= limit
        assert not beginning or len(cut) > len(beginning)


CLUSTERS = st.sampled_from(
    [
        *("a", "é", "e\u0301", "x\u0316\u0301\u0327", "ก็", "ที่", "ភ្នំ", "က်", "が", "か\u3099", "猫", "葛\U000e0100", "ཀྱི"),
        *("한", "\u1112\u1161\u11ab", "क्षि", "👩‍👩‍👧", "🇹🇭", "👍🏽", "1\ufe0f\u20e3", ".", "/", "9", "\u0600", "ﷺ"),
    ]
)
SPACES = st.sampled_from([" ", " ", "\n", "  ", "\t", "\x1c", "\u00a0"])
TEXTS = st.one_of(
    st.text(),
    st.lists(st.one_of(CLUSTERS, CLUSTERS, CLUSTERS, SPACES), max_size=80).map("".join),
    st.tuples(CLUSTERS, st.integers(1, 200)).map(lambda given: given[0] * given[1]),
)


@pytest.mark.parametrize("counter", COUNTERS)
@given(text=TEXTS, limit=st.integers(1, 60))
@example(text="a" + "\u0301" * 500, limit=1)
@example(text="ok " + "\u0301" * 500, limit=7)
@settings(max_examples=50, deadline=None)
def test_what_is_left_is_a_beginning_that_can_be_read(
    counter: str, text: str, limit: int, count_of: Callable[[str], Any]
) -> None:
    counts = count_of(counter)
    text = text.lstrip().encode("utf-8", "replace").decode()
    cut = cut_at_word(text, limit, counts.count)

    assert text.startswith(cut)
    assert bool(cut.strip()) == bool(text.strip())
    # No letter is torn apart, unless it alone is longer than any language's.
    ends = cluster_ends(text)
    assert len(cut) in {0, *ends, *(len(text[:end].rstrip()) for end in ends)}
    if counts.count(cut) > limit:
        assert len(cut) <= ends[0]
    assert cut_at_word(text, 0, lambda _: 1) == ""


@given(text=TEXTS)
def test_letters_end_where_unicode_says(text: str) -> None:
    clusters = regex.findall(r"\X", text)
    ends = cluster_ends(text)
    if all(len(cluster) <= LONGEST_CLUSTER for cluster in clusters):
        assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == clusters
    assert "".join(text[start:end] for start, end in zip([0, *ends], ends, strict=False)) == text
    assert all(end - start <= LONGEST_CLUSTER for start, end in zip([0, *ends], ends, strict=False))


def whole_words(text: str, limit: int, count: Count) -> str:
    """The longest beginning in whole words, found by trying each."""
    ends = [0, *(word.end() for word in regex.finditer(r"\S+", text))]
    return text if count(text) <= limit else text[: max(end for end in ends if count(text[:end]) <= limit)]


WORDS = st.text(st.sampled_from("abcdeéñжלß한3-'.,;"), min_size=1, max_size=LONG_WORD)


@pytest.mark.parametrize("counter", COUNTERS)
@given(text=st.lists(WORDS, max_size=40).map(" ".join), limit=st.integers(1, 120))
@settings(max_examples=50, deadline=None)
def test_ordinary_text_is_cut_between_words(
    counter: str, text: str, limit: int, count_of: Callable[[str], Any]
) -> None:
    counts = count_of(counter)
    expected = whole_words(text, limit, counts.count)
    cut = cut_at_word(text, limit, counts.count)
    if expected:
        assert cut == expected
    else:
        assert text.split(" ")[0].startswith(cut) and bool(cut) == bool(text)


def test_a_long_word_is_left_whole_where_enough_stands_before_it() -> None:
    count = EstimatedCounts().count
    url = "https://example.org/" + "a" * 400
    enough, little = "flea " * 60, "flea " * 40
    assert cut_at_word(f"{enough}{url}", 100, count) == enough.rstrip()
    assert cut_at_word(f"{little}{url}", 100, count).startswith(f"{little}https://example.org/a")
    assert cut_at_word(f"flea {'a' * LONG_WORD}", 8, count) == "flea"
    assert cut_at_word(f"flea {'a' * (LONG_WORD + 1)}", 8, count) == f"flea {'a' * 28}"
    assert cut_at_word("猫が好きです", 3, count) == "猫が"


@pytest.mark.parametrize("text", ["flea life " * 200_000, "x" * 2_000_000, THAI * 30_000])
def test_only_a_beginning_of_a_long_text_is_counted(text: str) -> None:
    counted = []

    def count(part: str) -> int:
        counted.append(len(part))
        return EstimatedCounts().count(part)

    cut = cut_at_word(text, 400, count)
    assert 300 <= EstimatedCounts().count(cut) <= 400
    assert max(counted) < 5_000 and len(counted) < 40
