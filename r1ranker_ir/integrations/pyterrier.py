"""The rankers as a PyTerrier transformer: `bm25 >> R1RankerTransformer(ranker)`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from r1ranker_ir.errors import InputError, missing_extra

try:
    import pandas as pd
    import pyterrier as pt
except ImportError as error:
    raise missing_extra("the PyTerrier transformer", "pyterrier", error) from error

from r1ranker_ir.integrations.rerankers import R1RankerReranker
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.cascade import Cascade
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.traces import CASCADE, TracedRanking
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, place_score

_OF_RANKER = ("window_size", "stride")


class R1RankerTransformer(pt.Transformer):  # type: ignore[misc]  # not checked with PyTerrier's types
    """Reranks results, all queries of a frame together.

    Needs the columns `qid`, `query`, `docno` and the text's; the first stage's order is that of `rank`, else `score`,
    else the rows'. Sets `score` (1 for the best, in equal steps down to 1/n; it only says the rank again), `rank` and
    `trace`: what `r1ranker trace` reads of a query, the same dict in each of its rows.

    Grid search may vary `depth`, `window_size`, `stride` and the options of the ranker's strategy, such as `schedule`;
    the ranker that was given stays as it is.

    Args:
        ranker: a `Ranker`, a `Cascade` or a reranker such as `IRankerReranker`.
        depth: rerank the first N of each query, and keep the others behind them; `None` for all.
        text_field: the column of the texts.
        traces: set the column `trace`.

    Raises:
        InputError: if an argument or a text can't be used.
    """

    def __init__(
        self,
        ranker: Ranker | Cascade | R1RankerReranker,
        *,
        depth: int | None = None,
        text_field: str = "text",
        traces: bool = True,
    ) -> None:
        opened = ranker.ranker if isinstance(ranker, R1RankerReranker) else ranker
        if not isinstance(opened, Ranker | Cascade):
            raise InputError(f"ranker is {quoted(ranker)}: give a Ranker, a Cascade or a reranker")
        self.ranker: Ranker | Cascade = opened
        self.depth = _checked_depth(depth)
        self.text_field = text_field
        self.traces = traces

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        pt.validate.result_frame(inp, extra_columns=["query", self.text_field], context=self)
        found = [_in_order(rows) for _, rows in inp.groupby("qid", sort=False, dropna=False)]
        rankings = self.ranker.rank([self._request(rows) for rows in found])
        ranked = [self._ranked(*each) for each in zip(found, rankings, strict=True)]
        return pd.concat(ranked, ignore_index=True) if ranked else self._with_results(inp, [])

    def get_parameter(self, name: str) -> Any:
        if isinstance(self.ranker, Ranker) and name in self._options():
            return getattr(self.ranker if name in _OF_RANKER else self.ranker.options, name)
        self._check(name)
        return getattr(self, name)

    def set_parameter(self, name: str, value: Any) -> None:
        if isinstance(self.ranker, Ranker) and name in self._options():
            self.ranker = self.ranker.having(**{name: value})
            return
        self._check(name)
        setattr(self, name, _checked_depth(value) if name == "depth" else value)

    def __repr__(self) -> str:
        depth = "" if self.depth is None else f", depth={self.depth}"
        return f"{type(self).__name__}({self.ranker!r}{depth})"

    # Of its own, as `==` is: PyTerrier's is that of the repr, which a grid search changes.
    __hash__ = object.__hash__

    def schematic(self, *, input_columns: list[str] | None) -> dict[str, Any]:
        return {"label": "R1Ranker", "help_url": None}

    def _options(self) -> tuple[str, ...]:
        return (
            (*(each.name for each in fields(self.ranker.options)), *_OF_RANKER)
            if isinstance(self.ranker, Ranker)
            else ()
        )

    def _check(self, name: str) -> None:
        own = ("depth", "text_field", "traces")
        if name not in own:
            raise InputError(f"unknown parameter {name!r}: use one of {', '.join((*own, *self._options()))}")

    def _request(self, rows: pd.DataFrame) -> RankingRequest:
        rows = rows if self.depth is None else rows.head(self.depth)
        scores = rows["score"] if "score" in rows else [None] * len(rows)
        candidates = tuple(
            Candidate(str(docno), self._text(docno, text), None if pd.isna(score) else float(score))
            for docno, text, score in zip(rows["docno"], rows[self.text_field], scores, strict=True)
        )
        return RankingRequest(str(rows["query"].iloc[0]), candidates, query_id=str(rows["qid"].iloc[0]))

    def _text(self, docno: object, text: object) -> str:
        if not isinstance(text, str):
            raise InputError(f"the {self.text_field} of document {quoted(docno)} is {quoted(text)}: give a text")
        return text

    def _ranked(self, rows: pd.DataFrame, ranking: Ranking) -> pd.DataFrame:
        behind = range(len(ranking.order), len(rows))
        return self._with_results(rows.iloc[[*ranking.order, *behind]], [ranking] * len(rows))

    def _with_results(self, rows: pd.DataFrame, rankings: list[Ranking]) -> pd.DataFrame:
        again, places = rows.copy(), range(len(rows))
        again["score"] = _column(again, (place_score(place, len(rows)) for place in places), "float64")
        again["rank"] = _column(again, (place + pt.model.FIRST_RANK for place in places), "int64")
        if self.traces:
            traced = self._trace(rankings[0]) if rankings else {}
            again["trace"] = _column(again, (traced for _ in places), "object")
        return again

    def _trace(self, ranking: Ranking) -> dict[str, Any]:
        if isinstance(self.ranker, Cascade):
            return TracedRanking(CASCADE, ranking).to_dict()
        told = (self.ranker.notes, self.ranker.conditions)
        return TracedRanking(self.ranker.strategy, ranking, *told).to_dict()


def _column(rows: pd.DataFrame, values: Iterable[Any], kind: str) -> pd.Series:
    return pd.Series(list(values), index=rows.index, dtype=kind)


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    for name in ("rank", "score"):
        if name in rows:
            return rows.sort_values(name, ascending=name == "rank", kind="stable")
    return rows


def _checked_depth(depth: int | None) -> int | None:
    if depth is not None and depth < 1:
        raise InputError(f"depth is {depth}: give at least 1, or None for all")
    return depth
