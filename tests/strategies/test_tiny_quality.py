"""What the embedded model has to reach on judged passages; minutes long, so run with `-m slow`."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.trec_runs import RunEntry, read_run
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.requests import entries_of, requests_of_run

SHUFFLES = range(5)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "least"), [("iterative", 0.4998), ("direct", 0.485)])
def test_embedded_model_orders_shuffled_candidates_of_trec_dl_2019(
    strategy: str, least: float, data_folder: Path, embedded_checkpoint: Path
) -> None:
    folder = data_folder / "trec-dl-2019"
    corpus, run = open_corpus(folder), read_run(str(folder / "run.bm25.trec"))
    qrels, [measure] = corpus.qrels(), parse_measures("nDCG@10")
    ranker = Ranker(embedded_checkpoint, strategy=strategy, device="cpu")
    shuffled, reranked = [], []
    for seed in SHUFFLES:
        requests = requests_of_run(corpus, run, 10, shuffle=seed)
        given = {
            request.query_id: tuple(RunEntry(c.id, -place) for place, c in enumerate(request.candidates))
            for request in requests
        }
        found = {ranking.request.query_id: entries_of(ranking) for ranking in ranker.rank(requests)}
        shuffled.append(evaluate(qrels, given, [measure]).mean[measure])
        reranked.append(evaluate(qrels, found, [measure]).mean[measure])
    print(f"nDCG@10 of {len(SHUFFLES)} shuffles: {shuffled}; {strategy}: {reranked}")
    assert sum(shuffled) / len(SHUFFLES) < 0.48
    assert sum(reranked) / len(SHUFFLES) >= least, reranked
    assert ranker.summary.repairs == 0
