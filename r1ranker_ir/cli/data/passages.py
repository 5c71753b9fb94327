"""The verb `r1ranker data passages`: ranking requests of a corpus, its judgments and a first-stage run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import CORPUS, ON_ERROR, RUN
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.option_fields import option


@with_fields
def passages(
    corpus: str = CORPUS,
    run: str = RUN,
    output: Path = option(..., "JSON Lines file of ranking requests to write."),
    candidates: int = option(5, "Passages of a request: one relevant, the others of the run.", least=2),
    negatives: Literal["random", "top"] = option(
        "random", "Random ones of the run's top, or those that it ranks highest."
    ),
    depth: int = option(100, "Documents of the run that count as its top.", least=1),
    min_gain: int = option(1, "Least grade of a relevant passage.", least=1),
    split: str | None = option(None, "Whose judgments a folder gives; ids carry their split.", unset="test"),
    queries: int | None = option(None, "Only the first N queries.", unset="all", least=1),
    seed: int = option(0, "Seed of every draw."),
    on_error: Literal["fail", "skip"] = ON_ERROR,
    messages: Messages = MESSAGES,
) -> None:
    """Make ranking requests of passages: one relevant passage among others that a first stage found.

    r1ranker suite measures on the file, and r1ranker data --requests makes training samples of it.
    """
    messages.start()
    from r1ranker_ir.adapters.passages import PassageProtocol, passage_requests
    from r1ranker_ir.adapters.problems import Problems
    from r1ranker_ir.data.corpora import open_corpus
    from r1ranker_ir.data.request_files import write_requests
    from r1ranker_ir.data.trec_runs import read_run
    from r1ranker_ir.errors import InputError
    from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs

    check_outputs((NamedFile("--output", output),), (*corpus_inputs("--corpus", corpus), NamedFile("--run", run)))
    protocol = PassageProtocol(candidates, negatives, depth, min_gain, queries, seed)
    problems, counts = Problems(on_error), Counter[str]()
    requests = list(passage_requests(open_corpus(corpus, split), read_run(run), protocol, problems, counts))
    if not requests:
        raise InputError(
            f"no request could be made of corpus {corpus!r} and run {run!r}: {_line(counts)}; {problems.line()}"
        )
    write_requests(output, requests)
    messages.say(
        f"{output}: {len(requests)} requests with {candidates} passages each; {_line(counts)}; {problems.line()}"
    )


def _line(counts: Counter[str]) -> str:
    reasons = ", ".join(f"{count} × {reason}" for reason, count in counts.most_common())
    return f"{counts.total()} queries passed over" + (f" ({reasons})" if reasons else "")
