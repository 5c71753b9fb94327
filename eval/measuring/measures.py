"""Effectiveness measures of runs, all computed by ir_measures."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from r1ranker_ir.data.qrels import GREATEST_GRADE
from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.errors import InputError

if TYPE_CHECKING:
    from ir_measures import Measure, Qrel

logger = logging.getLogger(__name__)

EXAMPLE = "nDCG@10 RR(rel=2)@10 AP"
_ENDING = re.compile(r"(?<=.)(\.(trec|run|txt|res))?(\.gz)?$")
# Spaces and commas split measures, except inside the brackets that hold a measure's parameters.
_TOKEN = re.compile(r"(?:\([^()]*\)|[^\s,])+")


@dataclass(frozen=True)
class Evaluation:
    """The measures of one run."""

    mean: Mapping[Measure, float]  # over all judged queries (ir_measures' aggregate: a sum for counts)
    per_query: Mapping[str, Mapping[Measure, float]]  # by judged query, in the order of the judgments
    missing: tuple[str, ...]  # judged queries of which the run holds no document; they count as 0
    unjudged: tuple[str, ...]  # queries of the run without judgments; they do not count


def parse_measures(text: str) -> tuple[Measure, ...]:
    """Parses names of measures as ir_measures writes them."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        raise InputError(f"no measure given: name at least one, such as {EXAMPLE!r}")
    return tuple(dict.fromkeys(_parse_measure(token) for token in tokens))


def evaluate(qrels: Iterable[Qrel], run: Run, measures: Sequence[Measure], *, name: str = "run") -> Evaluation:
    """Measures a run against judgments; `name` is what logs and errors call it.

    The order of a run's documents is that of pytrec_eval and of trec_eval 9, whatever computes a measure: by falling
    score in single precision (trec_eval 10.0 has doubles), ties by falling document id. Judged queries that the run
    lacks count as 0 and are logged; so do those for which a measure has no value, such as Accuracy without a relevant
    document.
    """
    import ir_measures

    judgments = _judgments_for_trec_eval(qrels)
    judged = dict.fromkeys(judgment.query_id for judgment in judgments)
    if not judged:
        raise InputError("there are no judgments: nothing can be measured")
    missing = tuple(query_id for query_id in judged if not run.get(query_id))
    unjudged = tuple(query_id for query_id in run if query_id not in judged)
    if run and len(unjudged) == len(run):
        raise InputError(
            f"{name}: none of its {len(run)} queries is judged (the run has {unjudged[0]!r}, the judgments have "
            f"{next(iter(judged))!r}): is it a run of this corpus?"
        )
    for some, all_, said in (
        (missing, judged, "judged queries have no results and count as 0"),
        (unjudged, run, "queries are not judged and do not count"),
    ):
        if some:
            logger.warning("%s: %d of %d %s: %s", name, len(some), len(all_), said, first_of(some))
    scored = {query_id: _falling_scores(entries) for query_id, entries in run.items() if entries}
    try:
        metrics = list(ir_measures.iter_calc(measures, judgments, scored))
    except Exception as error:  # the libraries and programs behind ir_measures raise whatever they like
        named = " ".join(map(str, measures))
        raise InputError(f"{name}: ir_measures could not compute {named} ({type(error).__name__}: {error})") from error
    per_query: dict[str, dict[Measure, float]] = {query_id: dict.fromkeys(measures, 0.0) for query_id in judged}
    for metric in metrics:
        if metric.query_id in per_query:
            per_query[metric.query_id][metric.measure] = metric.value
    columns = {measure: [values[measure] for values in per_query.values()] for measure in measures}
    means = {measure: _aggregate(measure, values) for measure, values in columns.items()}
    return Evaluation(means, per_query, missing, unjudged)


def common_queries(qrels: Iterable[Qrel], runs: Mapping[str, Run]) -> tuple[list[Qrel], dict[str, Run], int]:
    """Keeps what measures runs over the judged queries that all of them have results for; and how many are judged."""
    judgments = list(qrels)
    judged = list(dict.fromkeys(judgment.query_id for judgment in judgments))
    if not judged:
        raise InputError("there are no judgments: nothing can be measured")
    common = {query_id for query_id in judged if all(run.get(query_id) for run in runs.values())}
    if not common:
        held = ", ".join(f"{name}: {sum(map(bool, map(run.get, judged)))}" for name, run in runs.items())
        raise InputError(
            f"none of the {len(judged)} judged queries has results in all runs (judged queries by run: {held}): are "
            f"these runs of this corpus, and of the same queries?"
        )
    left_out = set(judged) - common
    kept: dict[str, Run] = {
        name: {query_id: run[query_id] for query_id in run if query_id not in left_out} for name, run in runs.items()
    }
    return [judgment for judgment in judgments if judgment.query_id in common], kept, len(judged)


def measures_json(evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """Evaluations as plain data for JSON, with full precision."""
    return [
        {
            "run": name,
            "mean": {str(measure): value for measure, value in evaluation.mean.items()},
            "per_query": {
                query_id: {str(measure): value for measure, value in values.items()}
                for query_id, values in evaluation.per_query.items()
            },
            "missing": list(evaluation.missing),
            "unjudged": list(evaluation.unjudged),
        }
        for name, evaluation in evaluations.items()
    ]


def _judgments_for_trec_eval(qrels: Iterable[Qrel]) -> list[Qrel]:
    """Judgments that trec_eval survives: it takes a query's greatest grade for a size of memory."""
    judgments = list(qrels)
    greatest: dict[str, int] = {}
    for judgment in judgments:
        if abs(judgment.relevance) > GREATEST_GRADE:
            raise InputError(
                f"grade {judgment.relevance} of document {judgment.doc_id!r}, query {judgment.query_id!r}, is beyond "
                f"{GREATEST_GRADE:,}: measures are computed with small whole numbers, so scale the grades"
            )
        known = greatest.get(judgment.query_id, judgment.relevance)
        greatest[judgment.query_id] = max(known, judgment.relevance)
    # A size below 0 is a segmentation fault. Where all grades are negative, none is relevant: 0 says the same.
    return [judgment if greatest[judgment.query_id] >= 0 else judgment._replace(relevance=0) for judgment in judgments]


def _falling_scores(entries: Sequence[RunEntry]) -> dict[str, float]:
    """Scores without ties, in trec_eval's order: other providers of ir_measures break ties the other way round."""
    with np.errstate(over="ignore"):
        scores = np.array([entry.score for entry in entries]).astype(np.float32).tolist()
    ordered = sorted(zip(scores, (entry.doc_id for entry in entries), strict=True))
    return {doc_id: float(place) for place, (_, doc_id) in enumerate(ordered, start=1)}


def _aggregate(measure: Measure, values: Iterable[float]) -> float:
    aggregator = cast(Any, measure).aggregator()
    for value in values:
        aggregator.add(value)
    return float(aggregator.result())


def _parse_measure(token: str) -> Measure:
    # ir_measures' own parser leans on ast.Num, which Python 3.14 has removed.
    import ir_measures

    try:
        node, parameters, cutoff = ast.parse(token, mode="eval").body, dict[str, Any](), None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            cutoff = _literal(node.right)
            node = node.left
        if isinstance(node, ast.Call) and not node.args:
            parameters = {str(given.arg): _literal(given.value) for given in node.keywords}
            node = node.func
        if not isinstance(node, ast.Name) or node.id not in ir_measures.measures.registry:
            raise ValueError("there is no measure of that name")
        kind = ir_measures.measures.registry[node.id]
        if cutoff is not None:
            parameters[kind.AT_PARAM] = cutoff
        for name, info in kind.SUPPORTED_PARAMS.items():
            if info.required and name not in parameters:
                raise ValueError(f"it needs a value for {name}")
        measure: Any = kind(**parameters)
        measure.validate_params()
        ir_measures.evaluator([measure], [])
    except (SyntaxError, ValueError, AssertionError) as error:
        said = f"measure {token!r} can't be computed ({error})"
        raise InputError(f"{said}: write measures as ir_measures does, such as {EXAMPLE!r}") from None
    return cast("Measure", measure)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)} is not a value") from None


def short_names(files: Sequence[str]) -> tuple[str, ...]:
    """Shortens names of run files (`-`: standard input) to their stems, where these tell them apart."""
    resolved = [file if file == "-" else str(Path(file).resolve()) for file in files]
    if twice := next((file for file, full in zip(files, resolved, strict=True) if resolved.count(full) > 1), None):
        raise InputError(f"run {twice!r} is given twice: compare each run once, the baseline included")
    stems = tuple(_ENDING.sub("", Path(full).name) for full in resolved)
    return stems if len(set(stems)) == len(stems) else tuple(files)


def first_of(ids: Sequence[str]) -> str:
    """The first five of some ids."""
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
