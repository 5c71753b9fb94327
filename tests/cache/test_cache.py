"""The completions cache: what it keeps comes back unchanged, to whoever asked the same, and to nobody else."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r1ranker_ir.cache import completions as cache_module
from r1ranker_ir.cache.completions import CompletionsCache, default_cache_path, open_cache
from r1ranker_ir.cache.records import decode, encode, key_maker
from r1ranker_ir.errors import InputError, StorageError
from r1ranker_ir.types import CLOSED_AT, Answer, Call, Message, Usage

MIB = 2**20

texts = st.text(st.characters(), max_size=40)
answers = st.builds(
    Answer,
    text=texts,
    thought=texts,
    choice=st.none() | st.lists(texts, max_size=4).map(tuple),
    probabilities=st.none() | st.dictionaries(texts, st.floats(allow_nan=False), max_size=4),
    thought_closed=st.booleans(),
    closed_at=st.sampled_from([None, *CLOSED_AT]),
    usage=st.builds(Usage, *[st.integers(0, 2**40)] * 3),
)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def answer(number: int, size: int = 10) -> Answer:
    thought = random.Random(number).randbytes(size).hex()
    return Answer(f"<think>{thought}</think>[1]", thought, ("[1]",), {"[1]": 0.1 + number, "[2]": 0.2}, usage=Usage(1))


def rows_of(path: Path, statement: str) -> list[Any]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "cache.sqlite"


@given(answers)
@example(Answer("a" * 10_000, "a" * 10_000))
@example(Answer("<think>\ud83d\ude00</think>", "\ud83d\ude00"))
@example(Answer("é\ud800" * 300, ""))
@example(Answer("", "\x00"))
def test_answers_come_back_exactly(kept: Answer) -> None:
    back = decode(key(1), encode(key(1), kept))
    assert back == kept
    assert back is not None
    # Dictionaries are equal in any order; a trace is not.
    assert list((back.probabilities or {}).items()) == list((kept.probabilities or {}).items())


@given(answers, st.data())
def test_no_damage_goes_unnoticed(kept: Answer, data: st.DataObject) -> None:
    value = bytearray(encode(key(1), kept))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    assert decode(key(1), bytes(value)) is None
    assert decode(key(2), encode(key(1), kept)) is None
    assert decode(key(1), encode(key(1), kept)[: data.draw(st.integers(0, len(value) - 1))]) is None


def test_answers_that_the_first_version_kept_are_read() -> None:
    kept = bytes.fromhex(
        "645ab0c223dc064300580000005b223c7468696e6b3e5c6e615c6e3c2f7468696e6b3e5c6e3c616e737765723e5b325d3c2f616e73776572"
        "3e222c5b382c395d2c5b225b325d225d2c5b225b315d222c225b325d225d2c747275652c5b312c32302c395d5d000000000000d03f000000"
        "000000e83f"
    )
    text, chances = "<think>\na\n</think>\n<answer>[2]</answer>", {"[1]": 0.25, "[2]": 0.75}
    answer = Answer(text, "a", ("[2]",), chances, thought_closed=True, usage=Usage(1, 20, 9))
    assert decode(key(1), kept) == answer
    assert encode(key(1), answer) == kept


def test_a_key_says_all_that_decides_an_answer_and_nothing_else() -> None:
    call = Call((Message("system", "a"), Message("user", "b")), ("[1]", "[2]"), "one")
    key_of = key_maker({"backend": "x", "seed": 1})
    others = [
        replace(call, messages=(Message("system", "a"), Message("user", "c"))),
        replace(call, messages=(Message("user", "a"), Message("user", "b"))),
        replace(call, messages=(Message("user", "ab"),)),
        replace(call, identifiers=("[1]",)),
        replace(call, identifiers=("[2]", "[1]")),
        replace(call, form="order"),
        *(replace(call, **{name: value}) for name, value in (("thinks", False), ("tagged", False), ("free", True))),
    ]
    keys = {key_of(each) for each in (call, *others)}
    keys |= {key_maker(identity)(call) for identity in ({"backend": "x", "seed": 2}, {"backend": "x"}, {})}
    assert len(keys) == 13
    assert key_of(replace(call, cut_passages=3, repairs_before=2, ranking=7)) == key_of(call)
    assert key_maker({"seed": 1, "backend": "x"})(call) == key_of(call)


def test_answers_stay_when_the_file_is_opened_again(path: Path) -> None:
    with CompletionsCache(path) as cache:
        assert cache.look_up([key(1)]) == {}
        assert cache.store({key(1): answer(1), key(2): answer(2)}, model="m") == {}
        assert cache.look_up([key(3), key(2), key(1), key(2)]) == {key(1): answer(1), key(2): answer(2)}
    cache.close()
    with CompletionsCache(path) as cache:
        assert cache.look_up([key(2), key(1)]) == {key(1): answer(1), key(2): answer(2)}
        many = [key(number) for number in range(2_000)]
        assert set(cache.look_up(many)) == {key(1), key(2)}
    with pytest.raises(StorageError, match="closed"):
        cache.look_up([key(1)])


def test_the_first_answer_stays_and_who_comes_later_is_told(path: Path) -> None:
    with CompletionsCache(path) as first, CompletionsCache(path) as second:
        first.store({key(1): answer(1), key(2): answer(2)}, model="m")
        late = {key(1): answer(10), key(2): answer(2), key(3): answer(3)}
        assert second.store(late, model="m") == {key(1): answer(1)}
        assert first.look_up(list(late)) == {key(1): answer(1), key(2): answer(2), key(3): answer(3)}


def test_a_damaged_answer_is_missing_until_it_is_stored_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with CompletionsCache(path) as cache:
        cache.store({key(1): answer(1), key(2): answer(2)}, model="m")
    damaged = "CAST(substr(value, 1, 20) || x'00' || substr(value, 22) AS BLOB)"
    rows_of(path, f"UPDATE answers SET value = {damaged} WHERE id = 1")
    with CompletionsCache(path) as cache, caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert cache.look_up([key(1), key(2)]) == {key(2): answer(2)}
        assert cache.store({key(1): answer(1)}, model="m") == {}
        assert cache.look_up([key(1)]) == {key(1): answer(1)}
    assert [record.getMessage() for record in caplog.records] == [
        f"an answer in the cache {path} is damaged: it is asked for again"
    ]


def test_the_file_stays_below_its_limit_and_forgets_what_was_not_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = 100
    monkeypatch.setattr(cache_module, "_now", lambda: hour)
    favourites = {key(number): answer(number, 500) for number in range(10)}
    with CompletionsCache(path, max_bytes=MIB) as cache:
        cache.store(favourites, model="m")
        for start in range(10, 3_000, 10):
            hour += 1
            assert cache.look_up(list(favourites)) == favourites
            cache.store({key(number): answer(number, 500) for number in range(start, start + 10)}, model="m")
            assert path.stat().st_size <= MIB
        kept = {int.from_bytes(each, "big") for each in cache.look_up([key(number) for number in range(3_000)])}
        # All that was used, and of the rest the latest without a gap.
        rest = sorted(kept - set(range(10)))
        assert kept >= set(range(10))
        assert rest == list(range(rest[0], 3_000))
        assert len(rest) > 300
        found = cache.info()
    assert (found.entries, found.max_bytes) == (len(kept), MIB)
    assert path.stat().st_size <= MIB
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]


def test_uses_that_can_not_be_noted_are_no_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {key(number): Answer(str(number)) for number in range(1_500)}
    with CompletionsCache(path, lock_timeout=0.05) as cache:
        cache.store(many, model="m")
        later = cache.info().newest_use
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        now = cache_module._now()
        monkeypatch.setattr(cache_module, "_now", lambda: now + 1)
        assert cache.look_up(list(many)) == many
        assert cache.look_up([key(1)])
    other.close()
    with CompletionsCache(path) as cache:
        assert cache.info().newest_use == later


def test_the_limit_comes_from_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (0, -1, MIB - 1):
        with pytest.raises(InputError, match=f"max_bytes is {limit}: give at least 1048576"):
            CompletionsCache(path, max_bytes=limit)
    monkeypatch.setenv("R1RANKER_CACHE_MAX_BYTES", "3000000")
    with open_cache(path) as cache:
        assert cache.max_bytes == 3_000_000
    monkeypatch.setenv("R1RANKER_CACHE_MAX_BYTES", "3GB")
    with pytest.raises(InputError, match="R1RANKER_CACHE_MAX_BYTES is '3GB'"):
        open_cache(path)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, own_cache: Path, tmp_path: Path) -> None:
    assert default_cache_path() == own_cache
    with open_cache() as cache:
        assert cache.path == own_cache
    monkeypatch.delenv("R1RANKER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_path() == tmp_path / "r1ranker-ir" / "completions.sqlite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for platform, folder in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(sys, "platform", platform)
        assert default_cache_path() == Path.home() / folder / "r1ranker-ir" / "completions.sqlite"


def _newer(path: Path) -> None:
    CompletionsCache(path).close()
    rows_of(path, "PRAGMA user_version = 99")


def _cut(path: Path) -> None:
    with CompletionsCache(path) as cache:
        cache.store({key(number): answer(number, 500) for number in range(100)}, model="m")
    path.write_bytes(path.read_bytes()[:5_000])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("not a database at all" * 100), "is damaged, or not a cache"),
        (_cut, "is damaged, or not a cache"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: rows_of(path, "CREATE TABLE bookmarks (a)"), "an SQLite database of another program"),
        (_newer, "has format 99, and this r1ranker-ir keeps format 1"),
    ],
)
def test_files_that_can_not_be_used(path: Path, make: Callable[[Path], object], said: str) -> None:
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StorageError, match=said) as caught, CompletionsCache(path) as cache:
        cache.store({key(1): answer(1)}, model="m")
    assert str(path) in str(caught.value)
    assert "--no-cache" in str(caught.value)
    # What belongs to another program, or may yet be of use, stays as it was.
    assert (path.read_bytes() if path.is_file() else b"") == before
    if path.is_file():
        with pytest.raises(StorageError, match=r"below' can't be used: .*choose another file"):
            CompletionsCache(path / "below")


def test_waiting_for_another_process_has_an_end(path: Path) -> None:
    CompletionsCache(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    with CompletionsCache(path, lock_timeout=0.1) as cache:
        other.execute("BEGIN IMMEDIATE")
        # Reading needs no lock.
        assert cache.look_up([key(1)]) == {}
        with pytest.raises(StorageError, match=r"has been locked by another process for 0\.1 seconds"):
            cache.store({key(1): answer(1)}, model="m")
        other.execute("COMMIT")
        other.close()
        cache.store({key(1): answer(1)}, model="m")
        assert cache.look_up([key(1)])


def test_a_full_disk_is_said_and_loses_nothing_that_was_stored(small_disk: Path) -> None:
    path = small_disk / "cache.sqlite"
    stored = 0
    with CompletionsCache(path) as cache:
        full = r"cache.sqlite' can't be written \(database or disk is full\): free some"
        with pytest.raises(StorageError, match=full):
            while True:
                cache.store({key(stored): answer(stored, 5_000)}, model="m")
                stored += 1
        assert stored > 10
        assert len(cache.look_up([key(number) for number in range(stored + 1)])) == stored
    with CompletionsCache(path) as cache:
        assert len(cache.look_up([key(number) for number in range(stored + 1)])) == stored
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]


WRITER = """
import random, sys
from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.types import Answer
path, seed = sys.argv[1], int(sys.argv[2])
numbers = list(range(300))
random.Random(seed).shuffle(numbers)
with CompletionsCache(path) as cache:
    for start in range(0, 300, 10):
        some = numbers[start : start + 10]
        keys = [number.to_bytes(32, "big") for number in some]
        cache.look_up(keys)
        first = cache.store({key: Answer(str(number), str(seed)) for key, number in zip(keys, some)}, model="m")
        for key, number in zip(keys, some):
            assert cache.look_up([key])[key].text == str(number)
            assert first.get(key, Answer(str(number), str(seed))) == cache.look_up([key])[key]
print("done")
"""


def test_processes_share_a_file_that_none_of_them_finds_there(path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["done\n"] * 4
    with CompletionsCache(path) as cache:
        found = cache.look_up([key(number) for number in range(300)])
        assert {each.text for each in found.values()} == set(map(str, range(300)))
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]


def test_threads_share_a_cache(path: Path) -> None:
    with CompletionsCache(path) as cache, ThreadPoolExecutor(8) as pool:

        def work(seed: int) -> None:
            for number in random.Random(seed).sample(range(60), 60):
                cache.store({key(number): answer(number)}, model=f"m{seed}")
                assert cache.look_up([key(number)]) == {key(number): answer(number)}

        list(pool.map(work, range(8)))
        assert cache.look_up([key(number) for number in range(60)]) == {key(n): answer(n) for n in range(60)}
        assert cache.info().entries == 60


FORK = """
import os, sys
from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.types import Answer
cache = CompletionsCache(sys.argv[1])
cache.store({b"parent": Answer("parent")}, model="m")
for number in range(3):
    if os.fork() == 0:
        assert cache.look_up([b"parent"])[b"parent"].text == "parent"
        cache.store({b"child%d" % number: Answer("child")}, model="m")
        sys.exit()
    assert os.wait()[1] == 0
    cache.store({b"again%d" % number: Answer("parent")}, model="m")
print(cache.info().entries)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_opens_the_file_for_itself(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "7\n", done.stderr


def test_what_a_cache_holds_is_counted_by_model_and_cleared_by_model(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CompletionsCache(path) as cache:
        assert (cache.info().entries, cache.info().oldest_use, cache.info().models) == (0, None, ())
        monkeypatch.setattr(cache_module, "_now", lambda: 500_000)
        cache.store({key(1): answer(1), key(2): answer(2)}, model="org/one", version="abc")
        monkeypatch.setattr(cache_module, "_now", lambda: 500_001)
        cache.store({key(3): answer(3)}, model="org/one", version="def")
        cache.store({key(number): answer(number, 5_000) for number in range(10, 60)}, model="two")
        info = cache.info()
        assert (info.path, info.format, info.entries, info.max_bytes) == (path, 1, 53, 2 * 1024**3)
        uses = f"{info.oldest_use} {info.newest_use}"
        assert uses == "2027-01-15 08:00:00+00:00 2027-01-15 09:00:00+00:00"
        counted = [(each.name, each.version, each.entries) for each in info.models]
        assert counted == [("two", "", 50), ("org/one", "abc", 2), ("org/one", "def", 1)]
        assert cache.clear("three") == 0
        assert cache.clear("org/one") == 3
        assert cache.look_up([key(1), key(10)]) == {key(10): answer(10, 5_000)}
        before = path.stat().st_size
        assert cache.clear() == 50
        assert cache.info().models == ()
        assert path.stat().st_size < before / 5
        cache.store({key(1): answer(1)}, model="org/one", version="abc")
        assert cache.info().entries == 1
