"""Rankings made by hand for the report: what is asked of the page depends on their form alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from r1ranker_ir.data.trec_runs import RunEntry, write_run
from r1ranker_ir.runs.traces import TracedRanking, TraceWriter
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage, place_score

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror="alert(1)"> {{7*7}} ${document.title}',
    "\u202egnitirw fo noitcerid eht\u2066 \x1b[31m \ud800 \u05d0\u05d1\u05d2 <!--",
    "ab " * 350_000,
)
WORDS = [f"word{number}" for number in range(4000)]


def eliminated(query_id: str, query: str, texts: dict[str, str], order: list[str]) -> TracedRanking:
    """An elimination that ends in an order; every thought quotes the passage that leaves."""
    candidates = tuple(Candidate(doc_id, text) for doc_id, text in texts.items())
    places = {doc_id: place for place, doc_id in enumerate(texts)}
    left, steps = list(places.values()), []
    for worst in [places[doc_id] for doc_id in order[:0:-1]]:
        chances = {place: 0.9 if place == worst else 0.1 / (len(left) - 1) for place in left}
        thought = f"It says: {candidates[worst].text[:90]} – which does not help."
        answer = f"<think>{thought}</think><answer>[1]</answer>"
        steps.append(
            Step(tuple(left), (worst,), thought, answer, chances, False, False, 0, Usage(1, 40 * len(left), 30))
        )
        left.remove(worst)
    request = RankingRequest(query, candidates, query_id=query_id)
    return TracedRanking("iterative", Ranking(request, tuple(places[each] for each in order), tuple(steps)))


def drawn(queries: int, depth: int, words: int) -> Iterator[TracedRanking]:
    """Eliminations of random passages, ended in random orders."""
    draw = random.Random(0)
    for number in range(queries):
        texts = {f"d{number}-{place}": " ".join(draw.choices(WORDS, k=words)) for place in range(depth)}
        yield eliminated(f"q{number}", " ".join(draw.choices(WORDS, k=6)), texts, draw.sample(list(texts), depth))


def write_all(folder: Path, rankings: list[TracedRanking]) -> None:
    """A corpus of what the rankings hold, the runs before and after, and the trace."""
    corpus = folder / "corpus"
    (corpus / "qrels").mkdir(parents=True)
    before, after, documents, queries, grades = {}, {}, [], [], ["query-id\tcorpus-id\tscore"]
    for traced in rankings:
        request = traced.ranking.request
        ids, count = [each.id for each in request.candidates], len(request.candidates)
        ordered = [each.id for each in traced.ranking.best_first]
        before[request.query_id], after[request.query_id] = (
            tuple(RunEntry(doc_id, place_score(place, count)) for place, doc_id in enumerate(some))
            for some in (ids, ordered)
        )
        documents += [{"_id": each.id, "text": each.text} for each in request.candidates]
        queries.append({"_id": request.query_id, "text": request.query})
        grades += [f"{request.query_id}\t{doc_id}\t{max(0, 3 - place)}" for place, doc_id in enumerate(ids[1:7])]
    write_json_lines(corpus / "corpus.jsonl", documents)
    write_json_lines(corpus / "queries.jsonl", queries)
    (corpus / "qrels" / "test.tsv").write_text("\n".join(grades) + "\n")
    write_run(before, folder / "first.trec")
    write_run(after, folder / "ranked.trec")
    with TraceWriter(folder / "trace.jsonl", "iterative") as writer:
        for traced in rankings:
            writer.write(traced.ranking)


def write_json_lines(path: Path, rows: list[dict[str, str]]) -> None:
    import json

    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
