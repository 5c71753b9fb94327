"""Sources of recommendation data: each format as its makers give it out, and what is wrong named by its place."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.interactions import Interactions
from r1ranker_ir.adapters.recommendation.sources import open_interactions
from r1ranker_ir.errors import DataFileError, InputError

ITEMS = "item_id:token\ttitle:token_seq\tprice:float\n1\tChess &amp; Go\t3\n2\tPoker\t4\n3\t  Darts \t5\n"
LISTS = "user_id:token\titem_id_list:token_seq\titem_id:token\n7\t1 2\t3\n8\t3\t1\n"
OF_LISTS = {"7": (("1", "2"), "3"), "8": (("3",), "1")}
MOVIE = "1::Toy Story (1995)::Animation\n"
GENRES = "|".join("0" * 19)


def folder_of(folder: Path, **files: str | bytes) -> Path:
    """Writes files; `__` in a name stands for a dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def histories(interactions: Interactions) -> dict[str, tuple[tuple[str, ...], str]]:
    return {each.user: (each.known, each.target) for each in interactions.histories}


def test_recbole_with_lists(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "board", g__test__inter=LISTS, g__item=ITEMS)
    read = open_interactions(folder)
    assert (read.source, dict(read.titles)) == ("board", {"1": "Chess & Go", "2": "Poker", "3": "Darts"})
    assert histories(read) == OF_LISTS
    of_file = open_interactions(folder / "g.test.inter")
    assert (of_file.source, of_file.histories) == ("g.test", read.histories)


def test_recbole_with_a_choice_a_line_goes_by_time_or_else_by_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "u\t1\t5\t30\nv\t3\t1\t2\nu\t2\t5\t10\nv\t1\t1\t1.5\nu\t3\t1\t20\n"
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    titles = ITEMS.replace("title:", "movie_title:")
    timed = open_interactions(folder_of(tmp_path / "a", a__inter=header + rows, b__item=titles))
    assert histories(timed) == {"u": (("2", "3"), "1"), "v": (("1",), "3")} and not caplog.text
    rows = "\ufeffuser_id:token\titem_id:token\r\nu\t3\r\nv\t1\r\n\r\nu\t1\r\nu\t2\r\n"
    untimed = open_interactions(folder_of(tmp_path / "b", a__inter=rows, a__item=ITEMS))
    assert histories(untimed) == {"u": (("3", "1"), "2"), "v": ((), "1")}
    assert "has no column timestamp: its lines count as being in the order of time" in caplog.text


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a__inter": LISTS}, "0 .item files in"),
        ({"a__inter": LISTS, "b__inter": LISTS, "a__item": ITEMS}, "2 .inter files in .*a.inter, b.inter"),
        ({"a__inter": "user_id\titem_id\n", "a__item": ITEMS}, "a.inter:1: column 'user_id' is not name:type"),
        ({"a__inter": "user_id:token\tt:float\n1\t2\n", "a__item": ITEMS}, "a.inter:1: no column 'item_id'"),
        ({"a__inter": LISTS, "a__item": "item_id:token\tyear:float\n1\t2\n"}, "a.item:1: no column with titles"),
        ({"a__inter": LISTS, "a__item": ITEMS.encode() + b"4\t\xff\t1\n"}, "a.item:5: not utf-8: convert"),
        ({"a__inter": LISTS.split("7")[0], "a__item": ITEMS}, "holds no user with a known item"),
        ({"a__inter": LISTS, "a__item": f"{ITEMS}4\t \t1\n"}, "a.item:5: blank title: item '4'"),
        ({"a__inter": LISTS, "a__item": f"{ITEMS}\tBridge\t1\n"}, "a.item:5: blank item id"),
        ({"a__inter": LISTS, "a__item": f"{ITEMS}2\tBridge\t1\n"}, "a.item:5: item id occurs twice: '2' is 'Poker'"),
        ({"readme__txt": "hello"}, "is in no known format"),
        ({"ratings__dat": "1::1::5::9\n"}, "has ratings.dat and no movies.dat"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, files: dict[str, str | bytes], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_interactions(folder_of(tmp_path, **files))
    with pytest.raises(InputError, match="does not exist"):
        open_interactions(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("line", "said", "more"),
    [
        ("9\t1 4 2\t3", "a.inter:4: unknown item id: '4' has no title", {"9": (("1", "2"), "3")}),
        ("9\t1\t4", "a.inter:4: unknown item id: '4' has no title", {}),
        ("9\t1", "a.inter:4: not 3 columns: 2 where '\\t' splits the line", {}),
        ("\t1\t2", "a.inter:4: blank user id", {}),
        ("7\t1\t2", "a.inter:4: user has a line already: '7'", {}),
        ("1::9::5::1", "ratings.dat:2: unknown item id: '9'", {}),
        ("1::1::5", "ratings.dat:2: not 4 columns: 3 where '::' splits the line", {}),
        ("1::1::5::noon", "ratings.dat:2: time is no number: 'noon'", {}),
        ("1::1::5::nan", "ratings.dat:2: time is no number: 'nan'", {}),
        ("::1::5::1", "ratings.dat:2: blank user id", {}),
    ],
)
def test_lines_that_cant_be_used_are_named_or_counted(
    tmp_path: Path, line: str, said: str, more: dict[str, tuple[tuple[str, ...], str]], caplog: pytest.LogCaptureFixture
) -> None:
    if "::" in line:
        folder, rest = folder_of(tmp_path, ratings__dat=f"1::1::5::1\n{line}\n", movies__dat=MOVIE), {"1": ((), "1")}
    else:
        folder, rest = folder_of(tmp_path, a__inter=f"{LISTS}{line}\n", a__item=ITEMS), OF_LISTS
    problems = Problems("skip")
    assert histories(open_interactions(folder, problems)) == rest | more
    assert sum(problems.counts.values()) == 1 and said in caplog.text
    with pytest.raises(DataFileError) as caught:
        open_interactions(folder)
    assert str(caught.value).startswith(said) and "--on-error skip" in str(caught.value)


def test_movielens_100k(tmp_path: Path) -> None:
    movies = f"1|Toy Story (1995)|01-Jan-1995||http://x?title=Toy%20Story|{GENRES}\n"
    movies += f"2|Cité des enfants perdus, La (1995)|01-Jan-1995||http://y|{GENRES}\n3|unknown||||{GENRES}\n"
    ratings = "196\t2\t3\t881250949\n22\t1\t1\t878887116\n196\t1\t5\t881250900\n"
    folder = folder_of(tmp_path / "ml-100k", u__data=ratings, u__item=movies.encode("latin-1"))
    read = open_interactions(folder)
    assert (read.source, read.titles["2"]) == ("ml-100k", "Cité des enfants perdus, La (1995)")
    assert histories(read) == {"196": (("1",), "2"), "22": ((), "1")}
    assert open_interactions(folder / "u.data") == read


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])  # 1M and 10M
def test_movielens_1m(tmp_path: Path, encoding: str) -> None:
    movies = f"{MOVIE}73::Misérables, Les (1995)::Drama\n"
    ratings = "1::73::5::978300760\n1::1::3::978300760\n"
    read = open_interactions(folder_of(tmp_path, ratings__dat=ratings, movies__dat=movies.encode(encoding)))
    assert dict(read.titles) == {"1": "Toy Story (1995)", "73": "Misérables, Les (1995)"}
    assert histories(read) == {"1": (("73",), "1")}  # of one second: in the file's order


def test_many_problems_of_a_kind_are_named_a_few_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    problems = Problems("skip")
    ratings = "1::1::5::1\n" + "1::9::5::1\n" * 30
    open_interactions(folder_of(tmp_path, ratings__dat=ratings, movies__dat=MOVIE), problems)
    assert problems.line() == "30 rows left out (30 × unknown item id)"
    assert len(caplog.records) == 6
