"""The verb `r1ranker data passages`: ranking requests of a corpus, its judgments and a first-stage run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from r1ranker_ir.adapters.passage_protocol import PassageProtocol
from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import ON_ERROR
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.option_fields import option
from r1ranker_ir.runs.run_source import CORPUS, RUN


@with_fields
def passages(
    *,
    corpus: str = CORPUS,
    run: str = RUN,
    output: Path = option(..., "JSON Lines file of ranking requests to write."),
    protocol: PassageProtocol,
    split: str | None = option(None, "Whose judgments a folder gives; ids carry their split.", unset="test"),
    on_error: Literal["fail", "skip"] = ON_ERROR,
    messages: Messages = MESSAGES,
) -> None:
    """Make ranking requests of passages: one relevant passage among others that a first stage found.

    r1ranker suite measures on the file, and r1ranker data --requests makes training samples of it.
    """
    messages.start()
    from r1ranker_ir.adapters.passages import passage_requests
    from r1ranker_ir.adapters.problems import Problems
    from r1ranker_ir.data.corpora import open_corpus
    from r1ranker_ir.data.request_files import write_requests
    from r1ranker_ir.data.trec_runs import read_run
    from r1ranker_ir.errors import InputError
    from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs

    check_outputs((NamedFile("--output", output),), (*corpus_inputs("--corpus", corpus), NamedFile("--run", run)))
    problems, counts = Problems(on_error), Counter[str]()
    requests = list(passage_requests(open_corpus(corpus, split), read_run(run), protocol, problems, counts))
    if not requests:
        raise InputError(
            f"no request could be made of corpus {corpus!r} and run {run!r}: {_line(counts)}; {problems.line()}"
        )
    write_requests(output, requests)
    messages.say(
        f"{output}: {len(requests)} requests with {protocol.candidates} passages each; {_line(counts)}; "
        f"{problems.line()}"
    )


def _line(counts: Counter[str]) -> str:
    reasons = ", ".join(f"{count} × {reason}" for reason, count in counts.most_common())
    return f"{counts.total()} queries passed over" + (f" ({reasons})" if reasons else "")
