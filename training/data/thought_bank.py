"""From traces to a bank of thoughts: what fits the judgments is kept with its query and candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs
from r1ranker_ir.prompts.answers import identifiers
from r1ranker_ir.prompts.worked_examples import WorkedExample
from r1ranker_ir.thoughts.bank import write_bank

from .command import open_training_corpus
from .completion_files import CompletedSample
from .from_traces import Selection, read_traces, select_steps


@dataclass(frozen=True)
class BuiltBank:
    """What a bank was made of."""

    thoughts: int
    queries: int
    selection: Selection

    def report(self) -> str:
        """Says in one line what was kept and what was not."""
        return f"{self.thoughts} thoughts of {self.queries} queries; {self.selection.report()}"


def build_bank(
    traces: Sequence[str | Path],
    corpus: str,
    output: str | Path,
    *,
    split: str | None = None,
    min_ndcg: float = 0.0,
    max_candidates: int | None = None,
    announce: bool = False,
) -> BuiltBank:
    """Does what `r1ranker thoughts build` does: keeps unrepaired thoughts whose outcome fits a corpus's judgments.

    What fits is what `select_steps` says; of several tries at a question the best one is kept. Thoughts about more
    than `max_candidates` candidates are left out, since they take much of a prompt.
    """
    if not traces:
        raise InputError("no trace is given: name at least one file that r1ranker rerank --save-traces wrote")
    inputs = [*(NamedFile("--traces", path) for path in traces), *corpus_inputs("--corpus", corpus)]
    check_outputs([NamedFile("--output", output)], inputs, announce=announce)
    opened = open_training_corpus(corpus, split)
    steps = (step for path in traces for step in read_traces(path))
    short = (s for s in steps if max_candidates is None or len(s.request.candidates) <= max_candidates)
    selection = select_steps(short, gains_of(opened.qrels()), min_ndcg=min_ndcg, source=opened.name)
    examples = [_example(each) for each in selection.completed]
    if not examples:
        raise InputError(f"nothing fits the judgments, so {str(output)!r} is not written: {selection.report()}")
    about = {
        "traces": [Path(path).name for path in traces],
        "corpus": opened.name,
        "min_ndcg": min_ndcg,
        "max_candidates": max_candidates,
        "counts": dict(selection.counts),
    }
    write_bank(output, examples, about)
    return BuiltBank(len(examples), len({each.query_id for each in examples}), selection)


def _example(completed: CompletedSample) -> WorkedExample:
    sample = completed.sample
    request = sample.record.request
    thought, _, said = completed.completion.removeprefix("<think>").partition("</think>")
    answer = said.strip().removeprefix("<answer>").removesuffix("</answer>")
    names = identifiers(len(request.candidates))
    places = tuple(names.index(name) for name in answer.split(" > "))
    texts = tuple(candidate.text for candidate in request.candidates)
    return WorkedExample(request.query_id, request.query, request.task, sample.asks, texts, thought.strip(), places)
