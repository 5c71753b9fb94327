"""The `rerankers` classes, on a real causal language model: a small Llama with random weights, so that every order
is possible and what is tested does not depend on a good answer."""

import asyncio
import copy
import itertools
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
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
    assert all(first > second for first, second in itertools.pairwise(scores))
    assert all(0 < score <= 1 for score in scores)
    assert scores[:1] == [1.0][: len(ids)]


class TestResults:
    def test_texts(self, ranker):
        results = ranker.rank(QUERY, PASSAGES)
        assert isinstance(results, RankedResults)
        assert_ranked(results, [0, 1, 2, 3, 4])
        assert results.has_scores and results.query == QUERY
        assert all(PASSAGES[result.doc_id] == result.text == result.document.text for result in results)
        assert results.top_k(2) == results.results[:2]
        assert [result.doc_id for result in results] == list(results.ranking.order)
        assert results.get_result_by_docid(3).text == PASSAGES[3]
        assert results.get_score_by_docid(results[1].doc_id) == results[1].score == pytest.approx(0.8)
        assert results.get_result_by_docid("absent") is results.get_score_by_docid("absent") is None

    def test_ids_and_metadata(self, ranker):
        ids, rows = list("abcde"), [{"year": 2000 + place} for place in range(5)]
        results = ranker.rank(QUERY, docs=PASSAGES, doc_ids=ids, metadata=rows)
        assert_ranked(results, ids)
        for result in results:
            place = ids.index(result.doc_id)
            assert (result.text, result.metadata, result.year) == (PASSAGES[place], rows[place], 2000 + place)
            assert result.document.doc_id == result.doc_id and result.document.metadata == rows[place]

    def test_trace_of_an_elimination(self, iterative):
        results = iterative.rank(QUERY, PASSAGES)
        excluded = [step.outcome for step in results.trace]
        assert len(results.trace) == 4
        assert [place for (place,) in reversed(excluded)] == list(results.ranking.order[1:])
        for step in results.trace:
            assert sum(step.probabilities.values()) == pytest.approx(1)
            assert set(step.outcome) < set(step.shown) == set(step.probabilities)
            assert isinstance(step.thought, str) and step.usage.prompt_tokens > 0
        assert results.usage == sum((step.usage for step in results.trace), Usage())
        assert results.usage.calls == 4 and results.repairs == 0

    def test_trace_of_an_ordering(self, rankers):
        results = rankers["r1ranker-direct"].rank(QUERY, PASSAGES)
        (step,) = results.trace
        assert step.outcome == results.ranking.order
        assert results.usage.calls == 1 and results.repairs == 0

    def test_results_can_be_copied_and_pickled(self, iterative):
        results = iterative.rank(QUERY, PASSAGES, metadata=[{"n": n} for n in range(5)])
        for twin in (copy.deepcopy(results), pickle.loads(pickle.dumps(results))):
            assert [(result.doc_id, result.score, result.n) for result in twin] == [
                (result.doc_id, result.score, result.n) for result in results
            ]
            assert twin.trace == results.trace

    def test_unknown_attribute_of_a_result(self, iterative):
        with pytest.raises(AttributeError, match="no attribute 'year'"):
            _ = iterative.rank(QUERY, PASSAGES)[0].year

    # The model runs for every example, so there are few.
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(texts=st.lists(st.text(max_size=30), max_size=6), query=st.text(min_size=1, max_size=20).filter(str.strip))
    @pytest.mark.parametrize("kind", TYPES)
    def test_any_texts_come_back_once_each(self, rankers, kind, texts, query):
        results = rankers[kind].rank(query, texts)
        assert_ranked(results, list(range(len(texts))))
        assert all(result.text == texts[result.doc_id] for result in results)


class TestDocuments:
    def test_the_same_objects_come_back_unchanged(self, ranker):
        documents = [Document(text, doc_id=f"d{place}", metadata={"n": place}) for place, text in enumerate(PASSAGES)]
        before = [copy.deepcopy(vars(document)) for document in documents]
        results = ranker.rank(QUERY, documents)
        assert_ranked(results, [f"d{place}" for place in range(5)])
        for result in results:
            assert result.document is documents[int(result.doc_id[1:])]
            assert result.metadata is result.document.metadata
            assert result.n == int(result.doc_id[1:])
        assert [vars(document) for document in documents] == before

    def test_texts_and_documents_mixed(self, iterative):
        documents = [PASSAGES[0], Document(PASSAGES[1], doc_id="own"), Document(PASSAGES[2]), PASSAGES[3]]
        assert_ranked(iterative.rank(QUERY, documents), [0, "own", 2, 3])

    def test_doc_ids_fill_what_documents_lack(self, iterative):
        documents = [Document(PASSAGES[0]), Document(PASSAGES[1], doc_id="b"), PASSAGES[2]]
        results = iterative.rank(QUERY, documents, doc_ids=["a", "b", "c"])
        assert_ranked(results, ["a", "b", "c"])
        assert results.get_result_by_docid("a").document is documents[0]
        assert documents[0].doc_id is None
        documents = [Document(PASSAGES[0], doc_id="a"), Document(PASSAGES[1], doc_id="b")]
        with pytest.raises(InputError, match=r"docs\[1\] has the id 'b', but doc_ids says 'x'"):
            iterative.rank(QUERY, documents, doc_ids=["a", "x"])

    def test_metadata_fill_what_documents_lack(self, iterative):
        documents = [Document(PASSAGES[0], doc_id=0), Document(PASSAGES[1], doc_id=1, metadata={"own": True})]
        results = iterative.rank(QUERY, documents, metadata=[{"source": "web"}, None])
        first, second = results.get_result_by_docid(0), results.get_result_by_docid(1)
        assert first.metadata == {"source": "web"} and first.source == "web" and first.document is documents[0]
        assert second.metadata == {"own": True} and second.own is True
        assert documents[0].metadata == {}
        documents = [PASSAGES[0], Document(PASSAGES[1], metadata={"n": 1})]
        assert_ranked(iterative.rank(QUERY, documents, metadata=[{"n": 0}, {"n": 1}]), [0, 1])
        with pytest.raises(InputError, match=r"docs\[1\] has metadata of its own"):
            iterative.rank(QUERY, documents, metadata=[{"n": 0}, {"n": 2}])

    def test_repeated_ids_are_candidates_of_their_own(self, ranker):
        results = ranker.rank(QUERY, PASSAGES, doc_ids=["a", "b", "a", "b", "a"])
        assert_ranked(results, ["a", "b", "a", "b", "a"])
        assert {result.text for result in results} == set(PASSAGES)
        assert results.get_result_by_docid("a") is next(result for result in results if result.doc_id == "a")

    def test_the_same_document_twice(self, iterative):
        document = Document(PASSAGES[0], doc_id="d")
        results = iterative.rank(QUERY, [document, document])
        assert [result.document for result in results] == [document, document]

    def test_empty_text(self, ranker):
        assert_ranked(ranker.rank(QUERY, ["", PASSAGES[0], "  "]), [0, 1, 2])

    @pytest.mark.parametrize("docs", [[], (), iter([])])
    def test_no_documents_need_no_call(self, ranker, docs):
        calls = ranker.ranker.summary.usage.calls
        results = ranker.rank(QUERY, docs)
        assert results.results == results.top_k(5) == [] and results.trace == ()
        assert results.usage == Usage() and results.results_count() == 0
        assert ranker.ranker.summary.usage.calls == calls

    @pytest.mark.parametrize("docs", [PASSAGES[0], [PASSAGES[0]], Document(PASSAGES[0]), [Document(PASSAGES[0])]])
    def test_one_document_needs_no_call(self, ranker, docs):
        calls = ranker.ranker.summary.usage.calls
        results = ranker.rank(QUERY, docs)
        assert [(result.rank, result.score, result.doc_id) for result in results] == [(1, 1.0, 0)]
        assert results[0].document is docs or results[0].text == PASSAGES[0]
        assert results.usage == Usage() and ranker.ranker.summary.usage.calls == calls

    def test_one_document_with_one_id(self, iterative):
        result = iterative.rank(QUERY, PASSAGES[0], doc_ids="abc", metadata={"n": 1})[0]
        assert (result.doc_id, result.metadata) == ("abc", {"n": 1})
        assert iterative.rank(QUERY, PASSAGES[0], doc_ids=["abc"], metadata=[{"n": 1}])[0].doc_id == "abc"
        assert iterative.rank(QUERY, Document(PASSAGES[0]), doc_ids=7)[0].doc_id == 7

    @pytest.mark.parametrize("make", [tuple, iter, lambda texts: (text for text in texts)])
    def test_other_iterables(self, iterative, make):
        results = iterative.rank(
            QUERY, make(PASSAGES), doc_ids=make("abcde"), metadata=make([{"n": n} for n in range(5)])
        )
        assert_ranked(results, list("abcde"))

    def test_lists_longer_than_the_window(self, ranker):
        texts = [f"Passage number {place} about fleas." for place in range(37)]
        results = ranker.rank(QUERY, texts)
        assert_ranked(results, list(range(37)))
        assert max(len(step.shown) for step in results.trace) == 20


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("docs", "message"),
        [
            (None, "docs is None"),
            (["a", None], r"docs\[1\] is None"),
            (["a", 3], r"docs\[1\] is a builtins.int"),
            (["a", b"b"], r"docs\[1\] is a builtins.bytes"),
            ([["a", "b"]], r"docs\[0\] is a builtins.list"),
            ({"a": "b"}, "docs is a dict: give a list"),
            ({"a", "b"}, "docs is a set, which has no order"),
            (b"text", "docs is a bytes"),
            (5, "docs is a int"),
            (["a", Document(document_type="image", base64="aGk=")], r"docs\[1\] is of type 'image'"),
            (Document(document_type="image", image_path="x.png"), "docs is of type 'image'"),
        ],
    )
    def test_documents(self, iterative, docs, message):
        with pytest.raises(InputError, match=message):
            iterative.rank(QUERY, docs)

    def test_a_document_that_lost_its_text(self, iterative):
        document = Document("text")
        document.text = None
        with pytest.raises(InputError, match=r"docs\[0\]\.text is None"):
            iterative.rank(QUERY, [document, "b"])

    @pytest.mark.parametrize(
        ("query", "message"),
        [(None, "query is None"), ("", "query is blank"), (" \n", "query is blank"), (["a"], "query is a list")],
    )
    @pytest.mark.parametrize("docs", [[], PASSAGES])
    def test_queries(self, iterative, query, docs, message):
        with pytest.raises(InputError, match=message):
            iterative.rank(query, docs)

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ({"doc_ids": ["a", "b"]}, "doc_ids has length 2, but docs has length 3"),
            ({"metadata": [{}] * 4}, "metadata has length 4, but docs has length 3"),
            ({"doc_ids": []}, "doc_ids has length 0, but docs has length 3"),
            ({"doc_ids": "abc"}, "doc_ids is a str: give a list"),
            ({"doc_ids": ["a", None, "c"]}, r"doc_ids\[1\] is None"),
            ({"metadata": {"n": 1}}, "metadata is a dict: give a list"),
            ({"metadata": [{}, "row", {}]}, r"metadata\[1\] is a builtins.str"),
        ],
    )
    def test_ids_and_metadata(self, iterative, extra, message):
        with pytest.raises(InputError, match=message):
            iterative.rank(QUERY, PASSAGES[:3], **extra)

    def test_score_is_refused(self, ranker):
        with pytest.raises(R1RankerError, match=r"call rank\(\)") as caught:
            ranker.score(QUERY, PASSAGES[0])
        assert isinstance(caught.value, NotImplementedError)


class TestBatch:
    QUERIES = (QUERY, "bicycle", "cats", "eggs", "nothing to rank")

    def test_a_batch_gives_what_single_calls_give(self, ranker):
        lists = [PASSAGES, PASSAGES[::-1], PASSAGES[:1], [Document(text, doc_id=text[:5]) for text in PASSAGES], []]
        batch = ranker.rank_batch(self.QUERIES, lists)
        assert [results.query for results in batch] == list(self.QUERIES)
        for query, docs, results in zip(self.QUERIES, lists, batch, strict=True):
            alone = ranker.rank(query, docs)
            assert [result.doc_id for result in results] == [result.doc_id for result in alone]
            assert results.ranking.order == alone.ranking.order

    def test_queries_share_the_model_calls(self, iterative, monkeypatch):
        backend = iterative.ranker.engine.backend
        sizes, answer = [], backend.answer
        monkeypatch.setattr(backend, "answer", lambda calls: sizes.append(len(calls)) or answer(calls))
        iterative.rank_batch(["cats", "fleas", "wheels"], [PASSAGES] * 3)
        assert sizes == [3, 3, 3, 3]

    def test_ids_and_metadata(self, iterative):
        batch = iterative.rank_batch(
            iter(["cats", "fleas"]),
            (PASSAGES[:2], PASSAGES[2:]),
            doc_ids=[["a", "b"], None],
            metadata=[None, [{"n": n} for n in range(3)]],
        )
        assert_ranked(batch[0], ["a", "b"])
        assert_ranked(batch[1], [0, 1, 2])
        assert all(result.n == result.doc_id for result in batch[1])

    def test_no_queries(self, iterative):
        assert iterative.rank_batch([], []) == []

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
            ((["a", None], [["x"], ["y"]]), r"queries\[1\] is None"),
            (("query", [["x"]]), "queries is a str: give a list"),
            ((["a"], None), "docs_per_query is None"),
            ((None, [["x"]]), "queries is None"),
        ],
    )
    def test_wrong_arguments(self, iterative, arguments, message):
        with pytest.raises(InputError, match=message):
            iterative.rank_batch(*arguments)


class TestConcurrency:
    def test_async_gives_the_same_and_lets_the_loop_run(self, iterative):
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

    def test_async_passes_errors_on(self, iterative):
        with pytest.raises(InputError, match="docs is None"):
            asyncio.run(iterative.rank_async(QUERY, None))

    def test_threads_get_what_they_asked_for(self, ranker):
        self.assert_threads_agree(ranker)

    def test_threads_may_share_the_embedded_model(self):
        self.assert_threads_agree(Reranker("r1ranker-iterative-tiny", verbose=0))

    def assert_threads_agree(self, ranker):
        jobs = [(f"{QUERY} {number}", [*PASSAGES[number % 3 :][:3], f"Extra {number}"]) for number in range(4)]
        expected = [ranker.rank(query, docs).ranking.order for query, docs in jobs]
        start = threading.Barrier(4)

        def rank_all(_: int) -> list:
            start.wait()
            return [ranker.rank(query, docs).ranking.order for query, docs in jobs]

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(rank_all, range(4))) == [expected] * 4


class TestLoading:
    def test_classes(self, rankers):
        assert type(rankers["r1ranker-iterative"]) is IRankerReranker
        assert type(rankers["r1ranker-direct"]) is DRankerReranker
        assert all(isinstance(ranker, BaseRanker) for ranker in rankers.values())

    @pytest.mark.parametrize("kind", TYPES)
    def test_tiny_by_name_alone_writes_nothing(self, kind, capfd):
        ranker = Reranker(f"{kind}-tiny", verbose=0)
        results = ranker.rank(QUERY, PASSAGES)
        assert_ranked(results, [0, 1, 2, 3, 4])
        assert capfd.readouterr() == ("", "")

    def test_model_argument_and_variable(self, random_checkpoint, monkeypatch):
        given = Reranker("r1ranker-direct", model=random_checkpoint, verbose=0)
        monkeypatch.setenv("R1RANKER_MODEL", random_checkpoint)
        from_environment = Reranker("R1Ranker-Direct", verbose=0)
        assert given.checkpoint == from_environment.checkpoint == random_checkpoint

    def test_the_variable_does_not_replace_a_model_that_was_named(self, random_checkpoint, monkeypatch):
        monkeypatch.setenv("R1RANKER_MODEL", "/no/such/folder")
        assert Reranker(random_checkpoint, model_type="r1ranker-direct", verbose=0).checkpoint == random_checkpoint

    def test_path_objects(self, random_checkpoint):
        from pathlib import Path

        assert IRankerReranker(Path(random_checkpoint)).checkpoint == random_checkpoint
        assert IRankerReranker("r1ranker-iterative", model=Path(random_checkpoint)).checkpoint == random_checkpoint

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
    def test_contradictions(self, arguments, message):
        with pytest.raises(InputError, match=message):
            Reranker(**arguments, verbose=0)

    @pytest.mark.parametrize("kind", TYPES)
    def test_missing_folder(self, kind, tmp_path, capfd):
        folder = str(tmp_path / "absent")
        with pytest.raises(CheckpointError) as caught:
            Reranker(folder, model_type=kind, verbose=0)
        message = str(caught.value)
        assert folder in message and "'r1ranker-iterative-tiny' or 'r1ranker-direct-tiny'" in message
        assert caught.value.__cause__ is not None
        assert capfd.readouterr().out == ""

    def test_a_folder_that_is_no_model(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
        with pytest.raises(CheckpointError) as caught:
            Reranker(str(tmp_path), model_type="r1ranker-direct", verbose=0)
        assert str(tmp_path) in str(caught.value) and str(caught.value).count("r1ranker-iterative-tiny") == 1

    def test_malformed_settings_beside_a_model(self, random_checkpoint, tmp_path):
        folder = shutil.copytree(random_checkpoint, tmp_path / "model")
        (folder / "r1ranker.json").write_text('{"window_size": 0}')
        with pytest.raises(CheckpointError, match=r"window_size is 0.*'r1ranker-iterative-tiny'") as caught:
            Reranker(str(folder), model_type="r1ranker-direct", verbose=0)
        assert str(folder) in str(caught.value)

    def test_a_key_error_while_loading_is_not_taken_for_a_missing_dependency(self, random_checkpoint, monkeypatch):
        import transformers

        def fail(*arguments, **options):
            raise KeyError("rope_type")

        monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
        with pytest.raises(CheckpointError, match="rope_type"):
            Reranker(random_checkpoint, model_type="r1ranker-direct", verbose=0)

    def test_default_checkpoint_while_offline(self, tmp_path, monkeypatch):
        from huggingface_hub import constants

        assert constants.HF_HUB_OFFLINE  # as all tests are
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.delenv("R1RANKER_MODEL", raising=False)
        with pytest.raises(CheckpointError, match=r"Qwen/Qwen2\.5-3B-Instruct.*r1ranker-iterative-tiny"):
            Reranker("r1ranker-iterative", verbose=0)
