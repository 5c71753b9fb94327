"""What a report is made of: runs, and the traces that belong to some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.measures import short_names
from r1ranker_ir.runs.traces import TracedRanking, once_each
from r1ranker_ir.types import place_score

INPUT_ORDER = "input order"
"""What the orders are called that went into a trace."""


@dataclass
class TraceNotes:
    """What is kept of a trace once its rankings have passed: orders and costs by query."""

    name: str
    before: dict[str, tuple[RunEntry, ...]] = field(default_factory=dict)
    after: dict[str, tuple[RunEntry, ...]] = field(default_factory=dict)
    costs: dict[str, dict[str, int]] = field(default_factory=dict)

    def take(self, rankings: Iterable[TracedRanking]) -> Iterator[TracedRanking]:
        """Lets rankings pass and notes them."""
        for traced in once_each(rankings, f"trace {self.name!r}"):
            ranking = traced.ranking
            query_id = ranking.request.query_id
            self.before[query_id] = _entries([each.id for each in ranking.request.candidates])
            self.after[query_id] = _entries([each.id for each in ranking.best_first])
            usage = ranking.usage
            tokens = usage.prompt_tokens + usage.completion_tokens
            self.costs[query_id] = {"repairs": ranking.repairs, "tokens": tokens, "calls": usage.calls}
            yield traced


@dataclass(frozen=True)
class Sources:
    """Runs by name, the baseline first, and which trace tells of each, by name."""

    runs: Mapping[str, Run]
    trace_of: Mapping[str, TraceNotes]


def sources_of(runs: Mapping[str, Run], traces: Sequence[TraceNotes]) -> Sources:
    """Brings runs and traces together: a trace belongs to the run whose orders it ends with, else makes one itself.

    Where that leaves a single run, the orders that went into its trace are the baseline.
    """
    all_runs: dict[str, Run] = dict(runs)
    trace_of: dict[str, TraceNotes] = {}
    for trace in traces:
        same = [name for name, run in runs.items() if name not in trace_of and _agree(run, trace.after)]
        name = same[0] if same else trace.name
        if not same:
            while name in all_runs:
                name += " (trace)"
            all_runs[name] = trace.after
        trace_of[name] = trace
    if len(all_runs) == 1 and trace_of:
        all_runs = {INPUT_ORDER: next(iter(trace_of.values())).before, **all_runs}
    if not all_runs:
        raise InputError("there is nothing to report on: give at least one run, or a trace with --traces")
    return Sources(all_runs, trace_of)


def named_runs(files: Sequence[str], runs: Mapping[str, Any]) -> dict[str, Any]:
    """Runs by the shortest names that tell their files apart."""
    return {} if not files else {name: runs[file] for name, file in zip(short_names(files), files, strict=True)}


def _agree(run: Run, after: Run) -> bool:
    """Whether a run begins with the orders of a trace in the queries that both have."""
    common = [query_id for query_id in after if query_id in run]
    return bool(common) and all(
        [entry.doc_id for entry in after[query_id]] == [entry.doc_id for entry in run[query_id][: len(after[query_id])]]
        for query_id in common
    )


def _entries(ids: Sequence[str]) -> tuple[RunEntry, ...]:
    return tuple(RunEntry(doc_id, place_score(place, len(ids))) for place, doc_id in enumerate(dict.fromkeys(ids)))
