"""Sources of training data: what becomes a record, what is dropped and counted, and errors that name the place."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.adapters import ranking_bench
from r1ranker_ir.adapters.ranking_bench import Unusable, ranking_bench_requests, request_of_row
from r1ranker_ir.data.corpora import Corpus, open_corpus
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.errors import DataFileError, InputError, MissingExtraError
from r1ranker_ir.training.data.from_runs import Retrieval, retrieved_records

TEXTS = {
    **{"d1": "Fleas live for a year.", "d2": "Ticks wait.", "d3": "Lice are small.", "d4": "Bees dance."},
    **{"d5": "ticks WAIT", "d6": "  ", "d7": "Wasps build."},
}


def json_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_corpus(folder: Path, qrels: str, queries: tuple[str, ...] = ("q1", "q2", "q3")) -> Path:
    folder.mkdir(exist_ok=True)
    json_lines(folder / "corpus.jsonl", [{"_id": doc_id, "text": text} for doc_id, text in TEXTS.items()])
    json_lines(folder / "queries.jsonl", [{"_id": query_id, "text": f"about {query_id}"} for query_id in queries])
    (folder / "qrels.trec").write_text(qrels)
    return folder


def run_of(**doc_ids: str) -> Run:
    return {
        query_id: tuple(RunEntry(doc_id, -float(rank)) for rank, doc_id in enumerate(ids.split()))
        for query_id, ids in doc_ids.items()
    }


def shown(record: JudgedRequest) -> list[tuple[str, float]]:
    return [(candidate.id, gain) for candidate, gain in zip(record.request.candidates, record.gains, strict=True)]


# --- a corpus with judgments and a run ------------------------------------------------------------------------------


def records_of(
    corpus: Corpus, run: Run, dropped: Counter[str] | None = None, left_out: Counter[str] | None = None, **options: Any
) -> list[JudgedRequest]:
    counted = Counter() if dropped is None else dropped, Counter() if left_out is None else left_out
    return list(retrieved_records(corpus, run, Retrieval(**options), *counted))


def test_a_record_holds_the_run_in_its_order_with_grades_and_then_lacking_positives(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path / "mine", "q1 0 d7 1\nq1 0 d4 3\nq1 0 d1 2\nq1 0 d3 -1\n"))
    [record] = records_of(corpus, run_of(q1="d3 d1 d2"))
    assert shown(record) == [("d3", 0.0), ("d1", 2.0), ("d2", 0.0), ("d4", 3.0), ("d7", 1.0)]
    request = record.request
    assert (request.query, request.query_id, record.source, request.task) == ("about q1", "q1", "mine", "passage")
    assert record.request.candidates[0].text == "Lice are small."


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"add_positives": False}, [("d2", 0), ("d3", 0), ("d1", 2), ("d7", 0)]),
        ({"judged_only": True}, [("d3", 0), ("d1", 2), ("d4", 3)]),
        ({"depth": 2}, [("d2", 0), ("d3", 0), ("d4", 3), ("d1", 2)]),
        ({"depth": 2, "add_positives": False}, [("d2", 0), ("d3", 0)]),
    ],
)
def test_what_is_kept_of_a_run_can_be_chosen(tmp_path: Path, options: dict[str, Any], expected: Any) -> None:
    corpus = open_corpus(write_corpus(tmp_path / "mine", "q1 0 d4 3\nq1 0 d1 2\nq1 0 d3 0\n"))
    [record] = records_of(corpus, run_of(q1="d2 d3 d1 d7"), **options)
    assert shown(record) == expected


def test_queries_and_documents_that_can_not_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    judged = "q1 0 d1 1\nq1 0 gone 1\nq2 0 d2 0\nq4 0 d1 1\n"
    corpus = open_corpus(write_corpus(tmp_path / "mine", judged, ("q1", "q2", "q3", "q4", "q5")))
    dropped, left_out = Counter[str](), Counter[str]()
    [record] = records_of(corpus, run_of(q1="d2 d6 d5 lost", q2="d1", q3="d1", other="d1"), dropped, left_out)
    assert shown(record) == [("d2", 0.0), ("d1", 1.0)]
    assert dropped == {"not in the run": 2, "no document judged relevant": 2}
    assert left_out == {"blank": 1, "not in the corpus": 2, "the same text as another": 1}
    # Of equal texts, the one with the greatest gain stays.
    corpus = open_corpus(write_corpus(tmp_path / "mine", "q1 0 d5 1\n"))
    [record] = records_of(corpus, run_of(q1="d2 d1 d5 d3"))
    assert shown(record) == [("d1", 0.0), ("d5", 1.0), ("d3", 0.0)]


def test_queries_are_limited_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path / "mine", "q1 0 d1 1\nq2 0 d1 1\nq3 0 d1 1\n"))
    dropped = Counter[str]()
    records = records_of(corpus, run_of(q3="d2", q2="d2"), dropped, queries=1, source="named")
    assert [(record.request.query_id, record.source) for record in records] == [("q2", "named")]
    assert not dropped
    with pytest.raises(InputError, match=r"none of the run's 1 queries is in corpus .*mine"):
        records_of(corpus, run_of(q9="d1"))


# --- Ranking-bench --------------------------------------------------------------------------------------------------

PASSAGES = ["Fleas live for a year.", "Ticks wait:\nin the grass.", "Bees dance."]
PASSAGE_ROW = {
    "problem": "## Here is a query: how old are fleas and candidate passages:\n"
    + "".join(f"passage {name}: {text}\n" for name, text in zip((4, 0, 2), PASSAGES, strict=True))
    + "\nThink, then name the least likely passage (e.g., passage 3).",
    "gt": "passage 4",
    "candidates": PASSAGES,
    "task_name": "Passage-5",
}
ITEM_ROW = {
    "problem": "I've watched the following films in the past, in order:\n['0. Heat', '1. It's a Gift']\n\n"
    "Now there are 3 candidate films:\n['0. Alien', '1. Up', '2. Brazil']\n\nSelect the least likely.",
    "gt": "Up",
    "candidates": ["Alien", "Up", "Brazil"],
    "task_name": "Rec-Movie",
}
MODEL_ROW = {
    "problem": "# The LLM names and their discriptions are:\n    # Small (8b): Each token price is 0.2. Quick. \n"
    "    # Large (70b): Each token price is 0.9. Thorough.\n"
    "    ## Here is a query: what is 2 + 2? and LLM condidates: ['Large (70b)', 'Small (8b)']. Select the least.",
    "gt": "Small (8b)",
    "candidates": ["Large (70b)", "Small (8b)"],
    "task_name": "Router-Cost",
}


def usable(row: dict[str, Any]) -> JudgedRequest:
    judged = request_of_row(row)
    assert isinstance(judged, JudgedRequest)
    return judged


def test_passages_are_named_by_the_prompt_that_holds_them() -> None:
    record = usable(PASSAGE_ROW)
    assert record.request.query == "how old are fleas"
    names = ("passage 4", "passage 0", "passage 2")
    assert [(c.id, c.text) for c in record.request.candidates] == list(zip(names, PASSAGES, strict=True))
    assert record.gains == (1.0, 0.0, 0.0)
    assert (record.request.task, record.source) == ("passage", "ranking-bench/Passage-5")
    assert usable(PASSAGE_ROW | {"gt": "Bees dance."}).gains == (0.0, 0.0, 1.0)  # a text in place of a name


def test_passages_that_begin_alike_keep_their_own_names() -> None:
    texts = ["Bees dance. They fly.", "Bees dance.", "Bees dance."]
    block = "".join(f"passage {place}: {text}\n" for place, text in enumerate(texts))
    row = PASSAGE_ROW | {
        "problem": f"## Here is a query: bees and candidate passages:\n{block}\nRank them.",
        "candidates": texts,
        "gt": "passage 2",
    }
    assert [candidate.id for candidate in usable(row).request.candidates] == ["passage 0", "passage 1", "passage 2"]
    assert usable(row).gains == (0.0, 0.0, 1.0)
    assert request_of_row(row | {"gt": "Bees dance."}) == Unusable("gt fits several candidates")


def test_items_have_a_history_and_models_their_descriptions() -> None:
    item, model = usable(ITEM_ROW), usable(MODEL_ROW)
    assert item.request.query == "Heat\nIt's a Gift"
    assert item.request.aim == "the movie that this viewer watches next"
    assert (item.request.task, item.gains) == ("item", (0.0, 1.0, 0.0))
    assert [candidate.text for candidate in item.request.candidates] == ["Alien", "Up", "Brazil"]
    assert (model.request.query, model.request.aim) == ("what is 2 + 2?", "a low cost above all, then a good answer")
    assert (model.request.task, model.gains) == ("model", (0.0, 1.0))
    assert [(candidate.id, candidate.text) for candidate in model.request.candidates] == [
        ("Large (70b)", "Large (70b): Each token price is 0.9. Thorough."),
        ("Small (8b)", "Small (8b): Each token price is 0.2. Quick."),
    ]


@pytest.mark.parametrize(
    ("history", "shown"),
    [
        ("""['0. Foo [Import]', "1. Bob's, 'x'", '2. Say "Hi"', '3. Last [a]']""",)
        + ("Foo [Import]|Bob's, 'x'|Say \"Hi\"|Last [a]",),
        ("['1. Heat', '2. Ronin'].", "Heat|Ronin"),
        ("['9. Heat',\n '10. Ronin, The']", "Heat|Ronin, The"),
        ("['0. Say \"1. x\", or y', '1. z']", 'Say "1. x", or y|z'),
        ("['0. Heat', '7. Ronin']", "['0. Heat', '7. Ronin']"),
        ("Heat, Ronin\n and Up", "Heat, Ronin and Up"),
    ],
)
def test_a_history_is_a_choice_a_line_where_it_is_a_list(history: str, shown: str) -> None:
    problem = f"I've watched the following films, in order:\n{history}\n\nNow there are 3 candidate films"
    assert usable(ITEM_ROW | {"problem": problem}).request.query.split("\n") == shown.split("|")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "title",
    [
        *("Now there are two", "Now there are 3 candidate films:", "Now there are 9, Now there are 8"),
        "And\nNow there are none",
    ],
)
def test_a_title_that_holds_the_words_behind_the_history_cuts_nothing(title: str, place: int) -> None:
    titles = ["Heat", "Ronin"]
    titles.insert(place, title)
    history = ", ".join(f"'{number}. {each}'" for number, each in enumerate(titles))
    problem = ITEM_ROW["problem"].replace("['0. Heat', '1. It's a Gift']", f"[{history}]")
    context = usable(ITEM_ROW | {"problem": problem}).request.query
    assert context.split("\n") == [" ".join(each.split()) for each in titles]


def test_a_title_that_is_a_whole_list_and_a_candidate_may_hold_the_words_behind_the_history() -> None:
    title = "Now there are 3 candidate films: ['0. Alien', '1. Up', '2. Brazil']"
    context = usable(ITEM_ROW | {"problem": ITEM_ROW["problem"].replace("0. Heat", f"0. {title}")}).request.query
    assert title in context and "It's a Gift" in context
    row = ITEM_ROW | {"candidates": ["Alien", "Up", "Now there are 3"]}
    row["problem"] = row["problem"].replace("2. Brazil", "2. Now there are 3")
    assert usable(row).request.query == "Heat\nIt's a Gift"


@pytest.mark.parametrize("title", ["Heat']\nNow there are 3 candidate films:\n['0. Alien", "x'] Now there are"])
def test_a_history_whose_end_can_not_be_told_is_counted_and_not_cut(title: str) -> None:
    made = request_of_row(ITEM_ROW | {"problem": ITEM_ROW["problem"].replace("0. Heat", f"0. {title}")})
    assert made == Unusable("where the history ends can't be told")


@pytest.mark.parametrize("place", ["begins {} here", "{}", "ends with {}", "{} and {}"])
def test_a_query_may_hold_the_words_behind_it(place: str) -> None:
    for row, words in ((PASSAGE_ROW, "and candidate passages:"), (MODEL_ROW, "and LLM candidates:")):
        own = usable(row).request.query
        query = place.format(words, words)
        changed = usable(row | {"problem": row["problem"].replace(own, f"{own}, {query}", 1)})
        assert " ".join(changed.request.query.split()) == f"{own}, {query}"


def test_rows_on_one_query_share_an_id_whatever_their_lists_and_aims() -> None:
    shorter = PASSAGE_ROW | {"candidates": PASSAGES[:2]}
    performance = MODEL_ROW | {"task_name": "Router-Performance", "gt": "Large (70b)"}
    assert usable(shorter).request.query_id == usable(PASSAGE_ROW).request.query_id != usable(ITEM_ROW).request.query_id
    assert usable(performance).request.query_id == usable(MODEL_ROW).request.query_id
    assert usable(performance).request.aim != usable(MODEL_ROW).request.aim
    # Tasks are told whatever the case of their names.
    assert usable(ITEM_ROW | {"task_name": "rec-movie"}).request.aim == usable(ITEM_ROW).request.aim


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_candidate_lists_may_be_text(write: Any) -> None:
    for row in (PASSAGE_ROW, ITEM_ROW, MODEL_ROW):
        assert usable(row | {"candidates": write(row["candidates"])}) == usable(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PASSAGE_ROW | {"gt": None}, "problem, gt or task_name is no text"),
        (PASSAGE_ROW | {"candidates": "a, b"}, "candidates are no list of texts"),
        (PASSAGE_ROW | {"candidates": ["a", 2]}, "candidates are no list of texts"),
        (PASSAGE_ROW | {"candidates": ["a", " "]}, "candidates are no list of texts"),
        (PASSAGE_ROW | {"candidates": PASSAGES[:1]}, "fewer than 2 candidates"),
        (PASSAGE_ROW | {"task_name": "Dance-5"}, "unknown task_name 'Dance-5'"),
        (PASSAGE_ROW | {"problem": "what is it"}, "the query is not to be found in the problem"),
        (PASSAGE_ROW | {"candidates": [*PASSAGES, "Lice."]}, "a candidate is not to be found in the problem"),
        (PASSAGE_ROW | {"gt": "passage 3"}, "gt is not among the candidates"),
        (ITEM_ROW | {"problem": "films"}, "the history is not to be found in the problem"),
        (ITEM_ROW | {"gt": "Heat"}, "gt is not among the candidates"),
        (ITEM_ROW | {"candidates": ["Up", "Alien", "Up"]}, "gt fits several candidates"),
        (ITEM_ROW | {"problem": "in order: ['0. '] Now there are"}, "the query or history is blank"),
        (MODEL_ROW | {"problem": "Here is a query:   and LLM candidates: []"}, "the query or history is blank"),
    ],
)
def test_rows_that_can_not_be_used_have_a_reason(row: dict[str, Any], reason: str) -> None:
    assert request_of_row(row) == Unusable(reason)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_ranking_bench_is_read_from_a_file_of_its_columns(tmp_path: Path, ending: str) -> None:
    import datasets

    path = tmp_path / f"bench.{ending}"
    rows = [PASSAGE_ROW, ITEM_ROW | {"gt": "Heat"}, ITEM_ROW, MODEL_ROW]
    if ending == "jsonl":
        json_lines(path, rows)
    else:
        datasets.Dataset.from_list(rows).to_parquet(path)
    dropped: Counter[str] = Counter()
    assert list(ranking_bench_requests(path, dropped)) == [usable(row) for row in (PASSAGE_ROW, ITEM_ROW, MODEL_ROW)]
    assert dropped == {"gt is not among the candidates": 1}
    assert [record.source for record in ranking_bench_requests(path, Counter(), queries=2, source="b")] == ["b"]


def test_the_hubs_configurations_are_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []
    load = lambda *words, **options: asked.append((words, options)) or [PASSAGE_ROW]  # noqa: E731
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(ranking_bench_requests("direct", Counter(), split="test")) == [usable(PASSAGE_ROW)]
    assert asked == [((ranking_bench.HUB_NAME, "direct"), {"split": "test"})]


def test_what_is_wrong_with_a_whole_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench.txt").write_text("x")
    (tmp_path / "broken.jsonl").write_text('{"problem": \n')
    json_lines(tmp_path / "lacking.jsonl", [{"problem": "p", "gt": "g"}])
    json_lines(tmp_path / "useless.jsonl", [ITEM_ROW | {"gt": "x"}] * 2 + [ITEM_ROW | {"problem": "x"}])
    for where, error, said in (
        ("iteratve", InputError, "neither 'iterative' nor 'direct', which come from the hub, nor a file"),
        (tmp_path / "bench.txt", InputError, r"ends in none of \.json, \.jsonl, \.parquet"),
        (
            tmp_path / "lacking.jsonl",
            DataFileError,
            r"lacking\.jsonl:1: column 'candidates' is missing \(there are prob",
        ),
        (tmp_path / "useless.jsonl", DataFileError, r"none of 3 rows could be used \(2 × gt is not among the cand"),
        (tmp_path / "broken.jsonl", InputError, r"can't load Ranking-bench from '.*broken\.jsonl'"),
        ("direct", InputError, r"can't load Ranking-bench from 'direct' .*give a \.jsonl or"),  # tests are offline
    ):
        with pytest.raises(error, match=said):
            list(ranking_bench_requests(where, Counter()))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"r1ranker-ir\[train\]"):
        list(ranking_bench_requests("direct", Counter()))
