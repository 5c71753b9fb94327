"""Requests from Ranking-bench, the data of R1-Ranker (arXiv 2506.21638): `ulab-ai/Ranking-bench` on the hub.

A row has `problem` (a whole prompt, with instructions and candidates), `gt` (the one right candidate), `candidates` and
`task_name`. What a request needs is cut out of `problem`. Our prompts have instructions of their own; a template in
IRanker's form can show those of `problem` (`RankingRequest.given`). Configuration `direct` holds whole lists,
`iterative` the step samples that the authors drew of them.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from r1ranker_ir.adapters.domains import RECOMMENDATION_DOMAINS, ROUTING_WEIGHTS, aim_of
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import DataFileError, InputError, missing_extra
from r1ranker_ir.files.digests import text_digest
from r1ranker_ir.types import Candidate, GivenPrompt, RankingRequest, Task

HUB_NAME = "ulab-ai/Ranking-bench"
STEPS = "iterative"
"""The configuration whose rows are single steps of an elimination."""
CONFIGURATIONS = (STEPS, "direct")
COLUMNS = ("problem", "gt", "candidates", "task_name")
_FORMATS: dict[str, Literal["json", "parquet"]] = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}

# What a query or a history begins and ends with. What it ends with may also stand in it, or in a candidate.
_QUERY_BEGINS = re.compile(r"Here is a query:")
_PASSAGES_BEGIN = re.compile(r"and candidate passages:")
_BEFORE_CANDIDATES = re.compile(r"\W*(?:passage \d+)?\W*")
_PASSAGE_LABEL = re.compile(r"(passage \d+):\s*\Z")
_HISTORY_BEGINS = re.compile(r"in order:")
_ITEMS_BEGIN = re.compile(r"Now there are(?:\s+(\d{1,6})\b)?")
_LIST_ENDS = re.compile(r"""['"]\s*\][\s.,;]*\Z""")
_HISTORY_ITEM = re.compile(r"""(?:^\[|,\s+)['"](\d+)\. """)
_HISTORY_END = re.compile(r"""['"]\s*\][\s.,;]*\Z|['"]\Z""")
# The misspelling is the data's own.
_MODELS_BEGIN = re.compile(r"(?<=\s)and LLM (?:condidates|candidates):")
_MODEL_LINE = re.compile(r"^\s*# ([^:\n]+): (.+?)\s*$", re.MULTILINE)
_LIST_LINE = re.compile(r"^\[(.*)\][.\s]*$", re.MULTILINE)


@dataclass(frozen=True)
class Unusable:
    """Why no request can be made of a row."""

    reason: str


class _UnusableError(Exception):
    """No request can be made of a row."""


def ranking_bench_requests(
    where: str | Path,
    dropped: Counter[str],
    *,
    split: str = "train",
    queries: int | None = None,
    source: str | None = None,
    task_name: str | None = None,
) -> Iterator[JudgedRequest]:
    """Reads Ranking-bench from the hub (`iterative` or `direct`), or a `.json`, `.jsonl` or `.parquet` file.

    `queries` takes the first N rows, `task_name` only those of a task, whatever the case. `dropped` is told how many
    rows were dropped, by reason. A request's id is made of the query or history alone; the right candidate has gain 1.
    """
    read = used = 0
    others: set[str] = set()
    for row in _rows(where, split):
        if read == queries:
            break
        if task_name is not None and str(row.get("task_name")).lower() != task_name.lower():
            others.add(str(row.get("task_name")))
            continue
        read += 1
        made = request_of_row(row)
        if isinstance(made, Unusable):
            dropped[made.reason] += 1
            continue
        used += 1
        yield made if source is None else replace(made, source=source)
    if not read and others:
        raise DataFileError(f"{where}: no row is of task {task_name!r}: its tasks are {', '.join(sorted(others))}")
    if read and not used:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in dropped.most_common())
        raise DataFileError(
            f"{where}: none of {read} rows could be used ({reasons}): do they have Ranking-bench's form?"
        )


def request_of_row(row: Mapping[str, Any]) -> JudgedRequest | Unusable:
    """Turns one row into a request, or says why it can't be."""
    try:
        return _request(row)
    except _UnusableError as error:
        return Unusable(str(error))


def _request(row: Mapping[str, Any]) -> JudgedRequest:
    problem, gt, task_name = (row.get(column) for column in ("problem", "gt", "task_name"))
    if not (isinstance(problem, str) and isinstance(gt, str) and isinstance(task_name, str)):
        raise _UnusableError("problem, gt or task_name is no text")
    texts = _candidates(row.get("candidates"))
    readers = {"passage": _read_passages, "rec": _read_items, "router": _read_models}
    kind, _, domain = task_name.lower().partition("-")
    if kind not in readers:
        raise _UnusableError(f"unknown task_name {task_name!r}")
    context, candidates, task = readers[kind](problem, texts)
    if not context.strip():
        raise _UnusableError("the query or history is blank")
    names = [candidate.id for candidate in candidates]
    # The right answer is the candidate of that text, or else of that name.
    right = [place for place, text in enumerate(texts) if text.strip() == gt.strip()]
    right = right or [place for place, name in enumerate(names) if name == gt.strip()]
    if len(right) != 1:
        raise _UnusableError("gt fits several candidates" if right else "gt is not among the candidates")
    # The three routing tasks share their questions and, by the authors' own script, their wording; only labels differ.
    aim = aim_of(domain) if domain in (*RECOMMENDATION_DOMAINS, *ROUTING_WEIGHTS) else ""
    query_id, given = text_digest(context)[:16], _given_prompt(problem, names, texts)
    request = RankingRequest(context, candidates, task, query_id, aim, given)
    gains = tuple(float(place in right) for place in range(len(texts)))
    return JudgedRequest(request, gains, f"ranking-bench/{task_name}")


_Reading = tuple[str, tuple[Candidate, ...], Task]
"""The query or history, its candidates and what they are."""


class _Cut(NamedTuple):
    text: str
    start: int
    behind: int


def _cut_out(
    problem: str, what: str, begins: re.Pattern[str], ends: re.Pattern[str], fits: Callable[[str, re.Match[str]], bool]
) -> _Cut:
    """Cuts the query or the history out of a prompt.

    Where the words that end it stand more than once, as in a title or a question that holds them, the place counts
    that fits what stands around it; without exactly one such place the row is left out and not cut short.
    """
    beginning = begins.search(problem)
    start = 0 if beginning is None else beginning.end()
    places = list(ends.finditer(problem, start))
    if beginning is None or not places:
        raise _UnusableError(f"the {what} is not to be found in the problem")
    if len(places) > 1:
        places = [end for end in places if fits(problem[start : end.start()].strip(), end)]
    if len(places) != 1:
        raise _UnusableError(f"where the {what} ends can't be told")
    return _Cut(problem[start : places[0].start()].strip(), beginning.start(), places[0].end())


def _query_of(problem: str, ends: re.Pattern[str], texts: Sequence[str]) -> _Cut:
    """Cuts out the query, behind which the candidates stand: nothing but a label and signs before the first."""

    def fits(_: str, end: re.Match[str]) -> bool:
        found = _find_all(problem, end.end(), texts)
        return bool(found) and _BEFORE_CANDIDATES.fullmatch(problem, end.end(), found[0]) is not None

    return _cut_out(problem, "query", _QUERY_BEGINS, ends, fits)


def _find_all(problem: str, at: int, texts: Sequence[str]) -> list[int]:
    """The places of some texts that follow each other from a place on; none where one is missing."""
    places = []
    for text in texts:
        place = problem.find(text, at)
        if place < 0:
            return []
        places.append(place)
        at = place + len(text)
    return places


def _read_passages(problem: str, texts: Sequence[str]) -> _Reading:
    """Passages stand in the prompt as `passage 3: text`; only there it is said which text has which name."""
    found = _query_of(problem, _PASSAGES_BEGIN, texts)
    candidates, at = [], found.behind
    for text, start in zip(texts, _find_all(problem, at, texts) or [-1] * len(texts), strict=True):
        label = None if start < 0 else _PASSAGE_LABEL.search(problem, at, start)
        if label is None:
            raise _UnusableError("a candidate is not to be found in the problem")
        candidates.append(Candidate(label[1], text))
        at = start + len(text)
    return found.text, tuple(candidates), "passage"


def _read_items(problem: str, texts: Sequence[str]) -> _Reading:
    def fits(text: str, end: re.Match[str]) -> bool:
        counts = end[1] is None or int(end[1]) == len(texts)
        closed = not text.startswith("[") or _LIST_ENDS.search(text) is not None
        return counts and closed and bool(_find_all(problem, end.end(), texts))

    found = _cut_out(problem, "history", _HISTORY_BEGINS, _ITEMS_BEGIN, fits)
    return _history(found.text), tuple(Candidate(text, text) for text in texts), "item"


def _history(text: str) -> str:
    """The choices of a history that is printed as a list, a line each; the text on one line where none can be told.

    The list is not Python's: titles hold quotation marks of the kind that encloses them.
    """
    items = list(_HISTORY_ITEM.finditer(text))
    numbers = [int(item[1]) for item in items]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return " ".join(text.split())
    ends = [*(item.start() for item in items[1:]), len(text)]
    titles = [_HISTORY_END.sub("", text[item.end() : end]) for item, end in zip(items, ends, strict=True)]
    return "\n".join(" ".join(title.split()) for title in titles)


def _read_models(problem: str, texts: Sequence[str]) -> _Reading:
    found = _query_of(problem, _MODELS_BEGIN, texts)
    described = dict(_MODEL_LINE.findall(problem[: found.start]))
    named = [(text, f"{text}: {described[text]}" if text in described else text) for text in texts]
    return found.text, tuple(Candidate(name, text) for name, text in named), "model"


def _given_prompt(problem: str, names: Sequence[str], texts: Sequence[str]) -> GivenPrompt | None:
    """Parts a row's prompt at its list of candidates, so that they can be listed anew.

    They stand on lines with labels, as Python prints a list, or as `'3. text'` between brackets, whatever the numbers.
    """
    labelled = "\n".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))
    for block in (labelled, repr(list(texts))[1:-1]):
        if (start := problem.rfind(block)) >= 0:
            return GivenPrompt(problem[:start], block, problem[start + len(block) :])
    pattern = ", ".join(rf"'\d+\. {re.escape(text)}'" for text in texts)
    spans = [line.span(1) for line in _LIST_LINE.finditer(problem) if re.fullmatch(pattern, line[1])]
    if not spans:
        return None
    start, end = spans[-1]
    return GivenPrompt(problem[:start], problem[start:end], problem[end:])


def _candidates(value: Any) -> list[str]:
    """The candidates of a row: a list, or the text of one in JSON or Python."""
    for read in (json.loads, ast.literal_eval):
        if isinstance(value, str):
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                value = read(value)
    listed = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    texts = list(value) if listed else []
    if not listed or not all(isinstance(text, str) and text.strip() for text in texts):
        raise _UnusableError("candidates are no list of texts")
    if len(texts) < 2:
        raise _UnusableError("fewer than 2 candidates")
    return texts


def _rows(where: str | Path, split: str) -> Iterator[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("Ranking-bench", "train", error) from error
    path, row = Path(where), None
    if str(where) not in CONFIGURATIONS and not path.is_file():
        raise InputError(
            f"Ranking-bench {str(path)!r} is neither {' nor '.join(map(repr, CONFIGURATIONS))}, which come from the "
            "hub, nor a file that exists"
        )
    if str(where) not in CONFIGURATIONS and path.suffix not in _FORMATS:
        raise InputError(f"{str(path)!r} ends in none of {', '.join(_FORMATS)}: convert it")
    try:
        if str(where) in CONFIGURATIONS:
            # Not streamed: a copy on the disk serves the second reading that held-out lists take.
            rows = datasets.load_dataset(HUB_NAME, str(where), split=split)
        else:
            rows = datasets.load_dataset(_FORMATS[path.suffix], data_files=str(where), split="train", streaming=True)
        for number, row in enumerate(rows, start=1):
            if lacking := [column for column in COLUMNS if column not in row]:
                raise DataFileError(
                    f"{where}:{number}: column {lacking[0]!r} is missing (there are {', '.join(row)}): Ranking-bench "
                    f"has {', '.join(COLUMNS)}"
                )
            yield row
    except InputError:
        raise
    except Exception as error:  # datasets raises what its readers, the hub's client and Arrow raise
        raise DataFileError(
            f"can't load Ranking-bench from {str(where)!r} ({type(error).__name__}: {error}): check the network, or "
            "give a .jsonl or .parquet file with its columns"
        ) from error
    if row is None:
        raise DataFileError(f"{where}: no row: a file with the columns {', '.join(COLUMNS)} is needed")
