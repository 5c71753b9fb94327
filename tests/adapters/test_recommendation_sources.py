"""Sources of recommendation data: each format as its makers give it out, and what is wrong named by its place."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.frames import interactions_of_frame
from r1ranker_ir.adapters.recommendation.interactions import Interactions
from r1ranker_ir.adapters.recommendation.sources import open_interactions
from r1ranker_ir.errors import DataFileError, InputError

ITEMS = "item_id:token\ttitle:token_seq\tprice:float\n1\tChess &amp; Go\t3\n2\tPoker\t4\n3\t  Darts \t5\n"
LISTS = "user_id:token\titem_id_list:token_seq\titem_id:token\n7\t1 2\t3\n8\t3\t1\n"


def folder_of(folder: Path, **files: str | bytes) -> Path:
    """Writes files; `__` in a name stands for a dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def histories(interactions: Interactions) -> dict[str, tuple[tuple[str, ...], str]]:
    return {each.user: (each.known, each.target) for each in interactions.histories}


# --- RecBole --------------------------------------------------------------------------------------------------------


def test_recbole_with_lists(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "board", g__test__inter=LISTS, g__item=ITEMS)
    read = open_interactions(folder)

    assert (read.source, dict(read.titles)) == ("board", {"1": "Chess & Go", "2": "Poker", "3": "Darts"})
    assert histories(read) == {"7": (("1", "2"), "3"), "8": (("3",), "1")}
    of_file = open_interactions(folder / "g.test.inter")
    assert (of_file.source, of_file.histories) == ("g.test", read.histories)


def test_recbole_with_a_choice_a_line_goes_by_time(tmp_path: Path) -> None:
    rows = "u\t1\t5\t30\nv\t3\t1\t2\nu\t2\t5\t10\nv\t1\t1\t1.5\nu\t3\t1\t20\n"
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    folder = folder_of(tmp_path, a__inter=header + rows, b__item=ITEMS.replace("title:", "movie_title:"))

    assert histories(open_interactions(folder)) == {"u": (("2", "3"), "1"), "v": (("1",), "3")}


def test_recbole_without_times_goes_by_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "\ufeffuser_id:token\titem_id:token\r\nu\t3\r\nv\t1\r\n\r\nu\t1\r\nu\t2\r\n"
    folder = folder_of(tmp_path, a__inter=rows, a__item=ITEMS)

    assert histories(open_interactions(folder)) == {"u": (("3", "1"), "2"), "v": ((), "1")}
    assert "has no column timestamp: its lines count as being in the order of time" in caplog.text


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a__inter": LISTS}, "no .item file in"),
        ({"a__inter": LISTS, "b__inter": LISTS, "a__item": ITEMS}, "2 .inter files in .*a.inter, b.inter"),
        ({"a__inter": "user_id\titem_id\n", "a__item": ITEMS}, "a.inter:1: column 'user_id' is not name:type"),
        ({"a__inter": "user_id:token\tt:float\n1\t2\n", "a__item": ITEMS}, "a.inter:1: no column 'item_id'"),
        ({"a__inter": LISTS, "a__item": "item_id:token\tyear:float\n1\t2\n"}, "a.item:1: no column with titles"),
        ({"a__inter": LISTS, "a__item": ITEMS.encode() + b"4\t\xff\t1\n"}, "a.item:5: not utf-8: convert"),
        ({"a__inter": LISTS.split("7")[0], "a__item": ITEMS}, "holds no user with a known item"),
        ({"readme__txt": "hello"}, "is in no known format"),
        ({"ratings__dat": "1::1::5::9\n"}, "has ratings.dat and no movies.dat"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, files: dict[str, str | bytes], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_interactions(folder_of(tmp_path, **files))


def test_a_source_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_interactions(tmp_path / "nowhere")


LIST_PROBLEMS = [
    ("9\t1 4 2\t3", "a.inter:4: unknown item id: '4' has no title", {"9": (("1", "2"), "3")}),
    ("9\t1\t4", "a.inter:4: unknown item id: '4' has no title", {}),
    ("9\t1", "a.inter:4: not 3 columns: 2 where '\\t' splits the line", {}),
    ("\t1\t2", "a.inter:4: blank user id", {}),
    ("7\t1\t2", "a.inter:4: user has a line already: '7'", {}),
]


@pytest.mark.parametrize(("line", "said", "more"), LIST_PROBLEMS)
def test_lines_that_cant_be_used_are_named_or_counted(
    tmp_path: Path, line: str, said: str, more: dict[str, tuple[tuple[str, ...], str]], caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(tmp_path, a__inter=f"{LISTS}{line}\n", a__item=ITEMS)
    problems = Problems("skip")

    assert histories(open_interactions(folder, problems)) == histories_of_lists(tmp_path / "as-is") | more
    assert sum(problems.counts.values()) == 1
    assert said in caplog.text
    with pytest.raises(DataFileError) as caught:
        open_interactions(folder)
    assert str(caught.value).startswith(said) and "--on-error skip" in str(caught.value)


def histories_of_lists(folder: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    return histories(open_interactions(folder_of(folder, a__inter=LISTS, a__item=ITEMS)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("4\t \t1", "a.item:5: blank title: item '4'"),
        ("\tBridge\t1", "a.item:5: blank item id"),
        ("2\tBridge\t1", "a.item:5: item id occurs twice: '2' is 'Poker' already"),
    ],
)
def test_items_that_cant_be_used(tmp_path: Path, line: str, said: str) -> None:
    folder = folder_of(tmp_path, a__inter=LISTS, a__item=f"{ITEMS}{line}\n")
    with pytest.raises(DataFileError, match=said):
        open_interactions(folder)
    assert len(open_interactions(folder, Problems("skip")).titles) == 3


# --- MovieLens ------------------------------------------------------------------------------------------------------

GENRES = "|".join("0" * 19)


def test_movielens_100k(tmp_path: Path) -> None:
    movies = f"1|Toy Story (1995)|01-Jan-1995||http://x?title=Toy%20Story|{GENRES}\n"
    movies += f"2|Cité des enfants perdus, La (1995)|01-Jan-1995||http://y|{GENRES}\n3|unknown||||{GENRES}\n"
    ratings = "196\t2\t3\t881250949\n22\t1\t1\t878887116\n196\t1\t5\t881250900\n"
    folder = folder_of(tmp_path / "ml-100k", u__data=ratings, u__item=movies.encode("latin-1"))
    read = open_interactions(folder)

    assert read.source == "ml-100k"
    assert read.titles["2"] == "Cité des enfants perdus, La (1995)"
    assert histories(read) == {"196": (("1",), "2"), "22": ((), "1")}
    assert open_interactions(folder / "u.data") == read


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])  # 1M and 10M
def test_movielens_1m(tmp_path: Path, encoding: str) -> None:
    movies = "1::Toy Story (1995)::Animation|Children's\n73::Misérables, Les (1995)::Drama\n"
    ratings = "1::73::5::978300760\n1::1::3::978300760\n"
    folder = folder_of(tmp_path / "ml-1m", ratings__dat=ratings, movies__dat=movies.encode(encoding))
    read = open_interactions(folder)

    assert dict(read.titles) == {"1": "Toy Story (1995)", "73": "Misérables, Les (1995)"}
    assert histories(read) == {"1": (("73",), "1")}  # of one second: in the file's order


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1::9::5::1", "ratings.dat:2: unknown item id: '9'"),
        ("1::1::5", "ratings.dat:2: not 4 columns: 3 where '::' splits the line"),
        ("1::1::5::noon", "ratings.dat:2: time is no number: 'noon'"),
        ("1::1::5::nan", "ratings.dat:2: time is no number: 'nan'"),
        ("::1::5::1", "ratings.dat:2: blank user id"),
    ],
)
def test_ratings_that_cant_be_used(tmp_path: Path, line: str, said: str) -> None:
    folder = folder_of(tmp_path, ratings__dat=f"1::1::5::1\n{line}\n", movies__dat="1::Toy Story (1995)::Animation\n")
    with pytest.raises(DataFileError, match=said):
        open_interactions(folder)
    problems = Problems("skip")
    assert histories(open_interactions(folder, problems)) == {"1": ((), "1")}
    assert sum(problems.counts.values()) == 1


# --- frames ---------------------------------------------------------------------------------------------------------


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputError, match="list given where a pandas frame is needed"):
        interactions_of_frame([("u", "i")], user="who", item="what")  # type: ignore[arg-type]
    frame = pandas.DataFrame({"who": [1, 1, 2, 1], "what": [10.0, 11.0, 12.0, 12.0], "when": [3, 1, 5, 2]})
    titles = pandas.Series({10: "Go", 11: "Chess &amp; Co", 12: "Poker"})
    read = interactions_of_frame(frame, user="who", item="what", time="when", titles=titles, source="shop")

    assert (read.source, dict(read.titles)) == ("shop", {"10": "Go", "11": "Chess & Co", "12": "Poker"})
    assert histories(read) == {"1": (("11", "12"), "10"), "2": ((), "12")}
    dates = frame.assign(when=pandas.to_datetime(["2020-03-01", "2020-01-01", "2020-01-09", "2020-02-01"], utc=True))
    assert interactions_of_frame(dates, user="who", item="what", time="when", titles=titles, source="shop") == read
    by_row = interactions_of_frame(frame.assign(what=["Go", "Chess", "Go", "Poker"]), user="who", item="what")
    assert histories(by_row) == {"1": (("Go", "Chess"), "Poker"), "2": ((), "Go")}
    assert dict(by_row.titles) == {"Go": "Go", "Chess": "Chess", "Poker": "Poker"}


def test_rows_of_a_frame_that_cant_be_used() -> None:
    pandas = pytest.importorskip("pandas")
    columns = {"u": ["a", None, "a", "a"], "i": [1, 1, None, 7], "t": [1.0, 2.0, 3.0, 4.0]}
    frame = pandas.DataFrame(columns, index=["w", "x", "y", "z"])
    problems = Problems("skip")
    read = interactions_of_frame(frame, user="u", item="i", titles={1: "Go"}, problems=problems)

    assert histories(read) == {"a": ((), "1")}
    assert problems.counts == {"blank user id": 1, "unknown item id": 2}
    with pytest.raises(DataFileError, match="row 'x': blank user id"):
        interactions_of_frame(frame, user="u", item="i", titles={1: "Go"})
    no_time = frame.assign(t=[1, None, "noon", 4]).loc[["w", "x"]].assign(u="a")
    with pytest.raises(DataFileError, match="row 'x': time is no number"):
        interactions_of_frame(no_time, user="u", item="i", time="t", titles={1: "Go"})
    with pytest.raises(InputError, match="the frame has no column 'v': it has 'u', 'i', 't'"):
        interactions_of_frame(frame, user="v", item="i")


def test_many_problems_of_a_kind_are_named_a_few_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ratings = "1::1::5::1\n" + "1::9::5::1\n" * 30
    folder = folder_of(tmp_path, ratings__dat=ratings, movies__dat="1::Toy Story (1995)::Animation\n")
    problems = Problems("skip")
    open_interactions(folder, problems)

    assert problems.line() == "30 rows left out (30 × unknown item id)"
    assert len(caplog.records) == 6
