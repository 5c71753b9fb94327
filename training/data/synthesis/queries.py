"""Queries: those that a corpus has, or those that a model writes for passages; and which of them are left out."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from r1ranker_ir.data.corpora import Corpus, FolderCorpus, open_corpus
from r1ranker_ir.errors import ContextLengthError
from r1ranker_ir.files.digests import share_of
from r1ranker_ir.prompts.answers import answer_text
from r1ranker_ir.prompts.neutral import Neutraliser
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.strategies.windows import record_step
from r1ranker_ir.thoughts.choosing import words_of
from r1ranker_ir.training.data.leakage import TestData
from r1ranker_ir.types import Call, Candidate, Message, Program, Ranking, RankingRequest

from .answered import answered
from .near_duplicates import NearTexts
from .settings import Synthesis

WRITTEN = 100
"""How many queries are written unless told otherwise."""
NEAR_DUPLICATE, NEAR_TEST = "a near-duplicate of another query", "a near-duplicate of a test query"
OTHER_SPLIT, TEST_PASSAGE = "judged in another split", "a test query's positive"
NOT_WRITTEN, LENGTH, COPIED = "no query in the answer", "fewer than 3 words or more than 32", "copied from its passage"

_WORDING = (
    "Passage: {passage}\n\nWrite one question that somebody might type into a search engine and that this passage "
    "answers. Name what it is about, so that it makes sense to a reader who has not seen the passage. Answer with the "
    "question alone, on one line."
)
_LEAST_PASSAGE_WORDS, _PASSAGE_TOKENS = 12, 512
_LEAST_WORDS, _MOST_WORDS = 3, 32
_LABEL = re.compile(r"^\W*(?:question|query)\s*\d*\s*[:：]\s*", re.IGNORECASE)
_AROUND = " \t\"'“”‘’`*"


@dataclass(frozen=True)
class Query:
    """A query; `passage` is the id of the document that it was written for, if any."""

    id: str
    text: str
    passage: str = ""


def chosen_passages(
    corpus: Corpus, settings: Synthesis, test: TestData, dropped: Counter[str]
) -> list[tuple[str, str]]:
    """Draws the passages to write queries for: ids and texts, long enough ones, and no test query's positive."""

    def drawn() -> Iterator[tuple[float, str, str]]:
        for doc_id, text in corpus.iterate_documents():
            if len(text.split()) < _LEAST_PASSAGE_WORDS:
                continue
            if test.test_of_passage(doc_id, text, corpus.collection) is not None:
                dropped[TEST_PASSAGE] += 1
                continue
            yield share_of(f"{settings.seed}:{doc_id}"), doc_id, text

    return [(doc_id, text) for _, doc_id, text in heapq.nsmallest(settings.queries or WRITTEN, drawn())]


def own_queries(corpus: Corpus, settings: Synthesis, dropped: Counter[str]) -> list[Query]:
    """The queries of a corpus, without those that another split of a folder judges."""
    others: set[str] = set()
    if isinstance(corpus, FolderCorpus):
        splits = (FolderCorpus(Path(corpus.name), split) for split in corpus.splits() if split != corpus.split)
        others = {judgment.query_id for each in splits for judgment in each.qrels()}
    topics = corpus.queries()
    dropped.update({OTHER_SPLIT: len(others & topics.keys())} if others & topics.keys() else {})
    return [Query(query_id, text) for query_id, text in topics.items() if query_id not in others][: settings.queries]


def new_queries(
    queries: Iterable[Query], test: TestData, near_test: NearTexts, collection: str, dropped: Counter[str]
) -> list[Query]:
    """Leaves out test queries and near-duplicates, of them or of queries before."""
    seen, kept = NearTexts(), []
    for query in queries:
        request = RankingRequest(query.text, (), query_id=query.id)
        if leak := test.test_of_query(request, collection):
            dropped[f"a test query of {leak}"] += 1
        elif near_test.holds(query.text):
            dropped[NEAR_TEST] += 1
        elif not seen.is_new(query.text):
            dropped[NEAR_DUPLICATE] += 1
        else:
            kept.append(query)
    return kept


def judged_texts(corpora: Sequence[str]) -> NearTexts:
    """The judged queries of corpora, to find near-duplicates of them."""
    near = NearTexts()
    for name in corpora:
        corpus = open_corpus(name)
        topics = corpus.queries()
        for query_id in dict.fromkeys(judgment.query_id for judgment in corpus.qrels()):
            if query_id in topics:
                near.add(topics[query_id])
    return near


def written_queries(ranker: Ranker, passages: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Has a query written for each passage: the query, or an empty text, and why it can't be used."""
    requests = (
        RankingRequest("what does this passage answer", (Candidate(doc_id, text),), query_id=doc_id)
        for doc_id, text in passages
    )
    found = [("", NOT_WRITTEN)] * len(passages)
    programs = map(partial(_written, prompt=ranker.prompt), requests)
    for place, outcome in answered(ranker.engine.outcomes(programs)).items():
        found[place] = read_query(outcome.steps[0].text, passages[place][1])
    return found


def read_query(output: str, passage: str) -> tuple[str, str]:
    """Reads a query from what a model has written, and says why it can't be used, or nothing."""
    lines = [line.strip() for line in (answer_text(output) or "").splitlines() if line.strip()]
    query = " ".join(_LABEL.sub("", lines[0]).strip(_AROUND).split()) if lines else ""
    words = words_of(query)
    if not words:
        return "", NOT_WRITTEN
    if not _LEAST_WORDS <= len(words) <= _MOST_WORDS:
        return query, LENGTH
    return query, COPIED if f" {' '.join(words)} " in f" {' '.join(words_of(passage))} " else ""


def _written(request: RankingRequest, prompt: Prompt) -> Program:
    """A program of one call, which is written freely; its text is in the step."""
    call = _call(request, prompt)
    answer = yield call
    return Ranking(request, (0,), (record_step(call, answer, (0,), (0,), repaired=False),))


def _call(request: RankingRequest, prompt: Prompt) -> Call:
    limits = prompt.limits
    text = Neutraliser(limits.control_tokens)(request.candidates[0].text)
    whole = _rendered(text)
    room = min(_PASSAGE_TOKENS, prompt.max_passage_tokens or _PASSAGE_TOKENS)
    if limits.context_length is not None:
        around = limits.count_prompt_tokens(_rendered("").messages) + limits.answer_reserve
        room = min(room, limits.context_length - around)
    if room < 1:
        raise ContextLengthError(
            f"no passage fits beside the {limits.answer_reserve} tokens that are kept for thought and answer: lower "
            "max_thought_tokens"
        )
    if limits.count_tokens(text) <= room:
        return whole
    return replace(_rendered(limits.cut_text(text, room)), cut_passages=1)


def _rendered(passage: str) -> Call:
    return Call((Message("user", _WORDING.format(passage=passage)),), (), "one", free=True)
