"""The `rerankers` classes, on a real causal language model: a small Llama with random weights, so that every order
is possible and what is tested does not depend on a good answer."""

import asyncio
import copy
import itertools
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import transformers
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rerankers import Document, Reranker
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults

from r1ranker_ir import DRankerReranker, IRankerReranker
from r1ranker_ir.errors import CheckpointError, InputError, R1RankerError
from r1ranker_ir.types import Usage

TYPES = ("r1ranker-iterative", "r1ranker-direct")
QUERY = "how long is the life cycle of a flea"
PASSAGES = [
    "A flea lives from two weeks to several months, depending on warmth and food.",
    "The bicycle wheel was patented in 1866.",
    "Eggs of fleas hatch within two to twelve days.",
    "Cats groom themselves for hours each day.",
    "A life cycle has the stages egg, larva, pupa and adult.",
]
ROWS = [{"n": n} for n in range(5)]


@pytest.fixture(scope="session")
def random_checkpoint(make_checkpoint, tmp_path_factory) -> str:
    """A model with random weights, in a folder with words that rerankers looks for in a model's name."""
    folder = tmp_path_factory.mktemp("jina-t5-gpt-random") / "model"
    return str(shutil.copytree(make_checkpoint("chatml"), folder))


@pytest.fixture(scope="session")
def rankers(random_checkpoint):
    return {kind: Reranker(random_checkpoint, model_type=kind, verbose=0, max_thought_tokens=2) for kind in TYPES}


@pytest.fixture(params=TYPES)
def ranker(request, rankers):
    return rankers[request.param]


@pytest.fixture
def iterative(rankers):
    return rankers["r1ranker-iterative"]


def assert_ranked(results: RankedResults, ids: list) -> None:
    """Every document once, ranks from 1, scores strictly falling in (0, 1]."""
    assert sorted(map(repr, (result.doc_id for result in results))) == sorted(map(repr, ids))
    assert [result.rank for result in results] == list(range(1, len(ids) + 1))
    scores = [result.score for result in results]
    assert all(first > second for first, second in itertools.pairwise(scores)) and all(0 < each <= 1 for each in scores)
    assert scores[:1] == [1.0][: len(ids)]


# --- results --------------------------------------------------------------------------------------------------------


def test_texts(ranker):
    results = ranker.rank(QUERY, PASSAGES)
    assert isinstance(ranker, BaseRanker) and isinstance(results, RankedResults)
    assert_ranked(results, [0, 1, 2, 3, 4])
    assert results.has_scores and results.query == QUERY
    assert all(PASSAGES[result.doc_id] == result.text == result.document.text for result in results)
    assert results.top_k(2) == results.results[:2]
    assert [result.doc_id for result in results] == list(results.ranking.order)
    assert results.get_result_by_docid(3).text == PASSAGES[3]
    assert results.get_score_by_docid(results[1].doc_id) == results[1].score == pytest.approx(0.8)
    assert results.get_result_by_docid("absent") is results.get_score_by_docid("absent") is None


def test_ids_and_metadata_travel_with_the_texts_whatever_holds_them(ranker):
    ids = list("abcde")
    for make in (list, tuple, iter, lambda values: (value for value in values)):
        results = ranker.rank(QUERY, docs=make(PASSAGES), doc_ids=make(ids), metadata=make(ROWS))
        assert_ranked(results, ids)
        for result in results:
            place = ids.index(result.doc_id)
            assert (result.text, result.metadata, result.n) == (PASSAGES[place], ROWS[place], place)
            assert result.document.doc_id == result.doc_id and result.document.metadata == ROWS[place]
    with pytest.raises(AttributeError, match="no attribute 'year'"):
        _ = results[0].year


def test_traces(rankers):
    results = rankers["r1ranker-iterative"].rank(QUERY, PASSAGES)
    excluded = [step.outcome for step in results.trace]
    assert [place for (place,) in reversed(excluded)] == list(results.ranking.order[1:])
    for step in results.trace:
        assert sum(step.probabilities.values()) == pytest.approx(1)
        assert set(step.outcome) < set(step.shown) == set(step.probabilities)
        assert isinstance(step.thought, str) and step.usage.prompt_tokens > 0
    assert results.usage == sum((step.usage for step in results.trace), Usage())
    assert results.usage.calls == len(results.trace) == 4 and results.repairs == 0
    ordered = rankers["r1ranker-direct"].rank(QUERY, PASSAGES)
    (step,) = ordered.trace
    assert step.outcome == ordered.ranking.order and ordered.usage.calls == 1 and ordered.repairs == 0


def test_results_can_be_copied_and_pickled(iterative):
    results = iterative.rank(QUERY, PASSAGES, metadata=ROWS)
    for twin in (copy.deepcopy(results), pickle.loads(pickle.dumps(results))):
        pairs = zip(twin, results, strict=True)
        assert all((one.doc_id, one.score, one.n) == (two.doc_id, two.score, two.n) for one, two in pairs)
        assert twin.trace == results.trace


# The model runs for every example, so there are few.
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=30), max_size=6), query=st.text(min_size=1, max_size=20).filter(str.strip))
@pytest.mark.parametrize("kind", TYPES)
def test_any_texts_come_back_once_each(rankers, kind, texts, query):
    results = rankers[kind].rank(query, texts)
    assert_ranked(results, list(range(len(texts))))
    assert all(result.text == texts[result.doc_id] for result in results)


# --- documents ------------------------------------------------------------------------------------------------------


def test_the_same_objects_come_back_unchanged(ranker):
    documents = [Document(text, doc_id=f"d{place}", metadata={"n": place}) for place, text in enumerate(PASSAGES)]
    before = [copy.deepcopy(vars(document)) for document in documents]
    results = ranker.rank(QUERY, documents)
    assert_ranked(results, [f"d{place}" for place in range(5)])
    for result in results:
        assert result.document is documents[result.n] and result.doc_id == f"d{result.n}"
        assert result.metadata is result.document.metadata
    assert [vars(document) for document in documents] == before
    assert [result.document for result in ranker.rank(QUERY, documents[:1] * 2)] == documents[:1] * 2


def test_ids_and_metadata_fill_what_documents_lack(iterative):
    documents = [Document(PASSAGES[0]), Document(PASSAGES[1], doc_id="b", metadata={"own": True}), PASSAGES[2]]
    results = iterative.rank(QUERY, documents, doc_ids=["a", "b", "c"], metadata=[{"source": "web"}, None, None])
    assert_ranked(results, ["a", "b", "c"])
    first, second = results.get_result_by_docid("a"), results.get_result_by_docid("b")
    assert first.document is documents[0] and first.metadata == {"source": "web"} and first.source == "web"
    assert second.metadata == {"own": True} and second.own is True
    assert documents[0].doc_id is None and documents[0].metadata == {}
    assert_ranked(iterative.rank(QUERY, documents, metadata=[None, {"own": True}, None]), [0, "b", 2])
    with pytest.raises(InputError, match=r"docs\[1\] has the id 'b', but doc_ids says 'x'"):
        iterative.rank(QUERY, documents, doc_ids=["a", "x", "c"])
    with pytest.raises(InputError, match=r"docs\[1\] has metadata of its own"):
        iterative.rank(QUERY, documents, metadata=[None, {"n": 2}, None])


def test_repeated_ids_are_candidates_of_their_own(ranker):
    results = ranker.rank(QUERY, PASSAGES, doc_ids=["a", "b", "a", "b", "a"])
    assert_ranked(results, ["a", "b", "a", "b", "a"])
    assert {result.text for result in results} == set(PASSAGES)
    assert results.get_result_by_docid("a") is next(result for result in results if result.doc_id == "a")


@pytest.mark.parametrize("docs", [[], iter([]), PASSAGES[0], PASSAGES[:1], Document(PASSAGES[0])])
def test_none_and_one_need_no_call(ranker, docs):
    calls = ranker.ranker.summary.usage.calls
    results = ranker.rank(QUERY, docs)
    assert [(result.rank, result.score, result.doc_id, result.text) for result in results] in (
        [],
        [(1, 1.0, 0, PASSAGES[0])],
    )
    assert not isinstance(docs, Document) or results[0].document is docs
    assert results.usage == Usage() and results.trace == () and ranker.ranker.summary.usage.calls == calls


def test_one_document_with_one_id(iterative):
    result = iterative.rank(QUERY, PASSAGES[0], doc_ids="abc", metadata={"n": 1})[0]
    assert (result.doc_id, result.metadata) == ("abc", {"n": 1})
    assert iterative.rank(QUERY, PASSAGES[0], doc_ids=["abc"], metadata=[{"n": 1}])[0].doc_id == "abc"
    assert iterative.rank(QUERY, Document(PASSAGES[0]), doc_ids=7)[0].doc_id == 7


def test_empty_texts_and_lists_longer_than_the_window(ranker):
    assert_ranked(ranker.rank(QUERY, ["", PASSAGES[0], "  "]), [0, 1, 2])
    results = ranker.rank(QUERY, [f"Passage number {place} about fleas." for place in range(37)])
    assert_ranked(results, list(range(37)))
    assert max(len(step.shown) for step in results.trace) == 20


# --- wrong arguments ------------------------------------------------------------------------------------------------

LOST = Document("text")
LOST.text = None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"docs": None}, "docs is None"),
        ({"docs": ["a", None]}, r"docs\[1\] is None"),
        ({"docs": ["a", 3]}, r"docs\[1\] is a builtins.int"),
        ({"docs": [["a", "b"]]}, r"docs\[0\] is a builtins.list"),
        ({"docs": {"a": "b"}}, "docs is a dict: give a list"),
        ({"docs": {"a", "b"}}, "docs is a set, which has no order"),
        ({"docs": b"text"}, "docs is a bytes"),
        ({"docs": ["a", Document(document_type="image", base64="aGk=")]}, r"docs\[1\] is of type 'image'"),
        ({"docs": Document(document_type="image", image_path="x.png")}, "docs is of type 'image'"),
        ({"docs": [LOST, "b"]}, r"docs\[0\]\.text is None"),
        ({"query": None}, "query is None"),
        ({"query": " \n", "docs": []}, "query is blank"),
        ({"query": ["a"]}, "query is a list"),
        ({"doc_ids": ["a", "b"]}, "doc_ids has length 2, but docs has length 3"),
        ({"metadata": [{}] * 4}, "metadata has length 4, but docs has length 3"),
        ({"doc_ids": "abc"}, "doc_ids is a str: give a list"),
        ({"doc_ids": ["a", None, "c"]}, r"doc_ids\[1\] is None"),
        ({"metadata": {"n": 1}}, "metadata is a dict: give a list"),
        ({"metadata": [{}, "row", {}]}, r"metadata\[1\] is a builtins.str"),
    ],
)
def test_wrong_arguments(iterative, arguments, message):
    with pytest.raises(InputError, match=message):
        iterative.rank(**{"query": QUERY, "docs": PASSAGES[:3], **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], [["x"]]), "docs_per_query has length 1, but queries has length 2"),
        ((["a"], [["x"]], [["1"], ["2"]]), "doc_ids has length 2, but queries has length 1"),
        ((["a"], [["x"]], None, []), "metadata has length 0, but queries has length 1"),
        ((["a"], [["y"]], [["2", "3"]]), r"doc_ids\[0\] has length 2, but docs_per_query\[0\] has length 1"),
        ((["a", "b"], [["x"], ["y", None]]), r"docs_per_query\[1\]\[1\] is None"),
        ((["a", "b"], [["x"], None]), r"docs_per_query\[1\] is None"),
        ((["a", "b"], ["x", "y"]), r"docs_per_query\[0\] is a str: give a list"),
        ((["a", " "], [["x"], ["y"]]), r"queries\[1\] is blank"),
        (("query", [["x"]]), "queries is a str: give a list"),
        ((["a"], None), "docs_per_query is None"),
    ],
)
def test_wrong_arguments_of_a_batch(iterative, arguments, message):
    with pytest.raises(InputError, match=message):
        iterative.rank_batch(*arguments)


def test_score_is_refused(ranker):
    with pytest.raises(R1RankerError, match=r"call rank\(\)") as caught:
        ranker.score(QUERY, PASSAGES[0])
    assert isinstance(caught.value, NotImplementedError)


# --- batches and threads --------------------------------------------------------------------------------------------


def test_a_batch_gives_what_single_calls_give(ranker):
    queries = (QUERY, "bicycle", "cats", "eggs", "nothing to rank")
    lists = [PASSAGES, PASSAGES[::-1], PASSAGES[:1], [Document(text, doc_id=text[:5]) for text in PASSAGES], []]
    batch = ranker.rank_batch(queries, lists)
    assert [results.query for results in batch] == list(queries) and ranker.rank_batch([], []) == []
    for query, docs, results in zip(queries, lists, batch, strict=True):
        alone = ranker.rank(query, docs)
        assert [result.doc_id for result in results] == [result.doc_id for result in alone]
        assert results.ranking.order == alone.ranking.order


def test_queries_of_a_batch_share_the_model_calls_and_keep_their_ids(iterative, monkeypatch):
    backend = iterative.ranker.engine.backend
    sizes, answer = [], backend.answer
    monkeypatch.setattr(backend, "answer", lambda calls: sizes.append(len(calls)) or answer(calls))
    more = {"doc_ids": [list("abcde"), None, None], "metadata": [None, ROWS, None]}
    batch = iterative.rank_batch(iter(["cats", "fleas", "wheels"]), (PASSAGES,) * 3, **more)
    assert sizes == [3, 3, 3, 3]
    assert_ranked(batch[0], list("abcde"))
    assert_ranked(batch[1], [0, 1, 2, 3, 4])
    assert all(result.n == result.doc_id for result in batch[1])


def test_async_gives_the_same_and_lets_the_loop_run(iterative):
    texts, rows = PASSAGES * 3, [{"n": n} for n in range(15)]

    async def rank_while_ticking():
        ticks = 0
        task = asyncio.create_task(iterative.rank_async(QUERY, texts, doc_ids=range(100, 115), metadata=rows))
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return await task, ticks

    results, ticks = asyncio.run(rank_while_ticking())
    assert ticks > 5
    assert results.ranking.order == iterative.rank(QUERY, texts).ranking.order
    assert all(result.doc_id == 100 + result.n for result in results)
    with pytest.raises(InputError, match="docs is None"):
        asyncio.run(iterative.rank_async(QUERY, None))


@pytest.mark.parametrize("kind", [*TYPES, "r1ranker-iterative-tiny"])
def test_threads_get_what_they_asked_for(rankers, kind):
    ranker = rankers.get(kind) or Reranker(kind, verbose=0)
    jobs = [(f"{QUERY} {number}", [*PASSAGES[number % 3 :][:3], f"Extra {number}"]) for number in range(4)]
    expected = [ranker.rank(query, docs).ranking.order for query, docs in jobs]
    start = threading.Barrier(4)

    def rank_all(_: int) -> list:
        start.wait()
        return [ranker.rank(query, docs).ranking.order for query, docs in jobs]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rank_all, range(4))) == [expected] * 4


# --- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_tiny_by_name_alone_writes_nothing(kind, capfd):
    ranker = Reranker(f"{kind}-tiny", verbose=0)
    assert type(ranker) is {TYPES[0]: IRankerReranker, TYPES[1]: DRankerReranker}[kind]
    assert_ranked(ranker.rank(QUERY, PASSAGES), [0, 1, 2, 3, 4])
    assert capfd.readouterr() == ("", "")


def test_a_model_comes_from_an_argument_or_the_environment(random_checkpoint, monkeypatch):
    assert Reranker("r1ranker-direct", model=random_checkpoint, verbose=0).checkpoint == random_checkpoint
    assert IRankerReranker("r1ranker-iterative", model=Path(random_checkpoint)).checkpoint == random_checkpoint
    monkeypatch.setenv("R1RANKER_MODEL", random_checkpoint)
    assert Reranker("R1Ranker-Direct", verbose=0).checkpoint == random_checkpoint
    monkeypatch.setenv("R1RANKER_MODEL", "/no/such/folder")  # which does not replace a model that was named
    assert Reranker(random_checkpoint, model_type="r1ranker-direct", verbose=0).checkpoint == random_checkpoint
    assert IRankerReranker(Path(random_checkpoint)).checkpoint == random_checkpoint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "r1ranker-iterative-tiny", "model": "other/model"}, "always means the embedded model"),
        ({"model_name": "r1ranker-direct", "model_type": TYPES[0]}, "is the direct strategy, not the iterative"),
        ({"model_name": "a/b", "model_type": TYPES[0], "model": "c/d"}, "two models were given"),
        ({"model_name": " ", "model_type": TYPES[0]}, "name is blank"),
        ({"model_name": "jina", "model_type": TYPES[0]}, r"written as '\./jina'"),
    ],
)
def test_contradictions(arguments, message):
    with pytest.raises(InputError, match=message):
        Reranker(**arguments, verbose=0)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "'r1ranker-iterative-tiny' or 'r1ranker-direct-tiny'"),
        ({"config.json": '{"model_type": "no-such-architecture"}'}, "r1ranker-iterative-tiny"),
        ({"r1ranker.json": '{"window_size": 0}'}, "window_size is 0"),
    ],
)
def test_what_can_not_be_loaded_names_the_folder_and_a_way_out(files, said, random_checkpoint, tmp_path, capfd):
    folder = tmp_path / "model"
    if files is not None:
        shutil.copytree(random_checkpoint, folder)
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(CheckpointError) as caught:
        Reranker(str(folder), model_type="r1ranker-direct", verbose=0)
    message = str(caught.value)
    assert str(folder) in message and said in message and message.count("r1ranker-iterative-tiny") == 1
    assert caught.value.__cause__ is not None and capfd.readouterr().out == ""


def test_a_key_error_while_loading_is_not_taken_for_a_missing_dependency(random_checkpoint, monkeypatch):
    def fail(*arguments, **options):
        raise KeyError("rope_type")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(CheckpointError, match="rope_type"):
        Reranker(random_checkpoint, model_type="r1ranker-direct", verbose=0)


def test_default_checkpoint_while_offline(tmp_path, monkeypatch):
    assert constants.HF_HUB_OFFLINE  # as all tests are
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("R1RANKER_MODEL", raising=False)
    with pytest.raises(CheckpointError, match=r"Qwen/Qwen2\.5-3B-Instruct.*r1ranker-iterative-tiny"):
        Reranker("r1ranker-iterative", verbose=0)
