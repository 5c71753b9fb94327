"""What the engine, the programs and the prompts take themselves: no model, but a backend that answers at once.

    python tests/benchmarks/engine.py --queries 1000 --candidates 100

ranks passages of about 100 words by elimination, with the embedded model's tokenizer, and prints what a call costs
beside its model. With `--memory` it prints the largest memory of the process as the queries stream through.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.errors import InputError, R1RankerError
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Answer, Call, Candidate, Message, Program, RankingRequest, Usage

if TYPE_CHECKING:
    from r1ranker_ir.backends.texts import ChatTokenizer

ANSWER_RESERVE = 1224
"""Tokens that the transformers backend keeps for a thought of its default length and the answer."""

_PARTS_OF_PASSAGE = 3


@dataclass
class _Stopwatch:
    """Seconds spent inside its `with` blocks."""

    clock: Callable[[], float] = time.perf_counter  # not the processor's where it is called often: a system call
    seconds: float = 0.0

    def __enter__(self) -> None:
        self._began = self.clock()

    def __exit__(self, *_: object) -> None:
        self.seconds += self.clock() - self._began


class InstantBackend:
    """Answers at once, or after a fixed time a call: the candidate in the middle is the worst."""

    name = "instant"
    answer_reserve = ANSWER_RESERVE

    def __init__(
        self, texts: ChatTokenizer, *, context_length: int | None, batch_size: int, call_seconds: float = 0.0
    ) -> None:
        self.context_length = context_length
        self.batch_size = batch_size
        self.control_tokens = texts.control_tokens
        self.tokenizing, self.answering = _Stopwatch(), _Stopwatch()
        self._texts = texts
        self._call_seconds = call_seconds
        self._answers: dict[tuple[str, ...], Answer] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """As of any backend; nothing is cached here."""
        return {"backend": self.name}

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers the calls."""
        with self.answering:
            if self._call_seconds:
                time.sleep(self._call_seconds * len(calls))
            return [self._answer(call.identifiers) for call in calls]

    def _answer(self, identifiers: tuple[str, ...]) -> Answer:
        if identifiers not in self._answers:
            worst = identifiers[len(identifiers) // 2]
            chances = {identifier: (1 + (identifier == worst)) / (len(identifiers) + 1) for identifier in identifiers}
            text = f"A thought.\n</think>\n<answer>{worst}</answer>"
            self._answers[identifiers] = Answer(text, "A thought.", (worst,), chances, usage=Usage(1, 1, 1))
        return self._answers[identifiers]

    def count_tokens(self, text: str) -> int:
        """Counts the tokens of plain text."""
        with self.tokenizing:
            return self._texts.count(text)

    def cut_text(self, text: str, max_tokens: int) -> str:
        """Returns the longest beginning that takes at most `max_tokens` tokens, in whole words if one fits."""
        with self.tokenizing:
            return self._texts.cut(text, max_tokens)

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Counts the tokens of a whole prompt."""
        with self.tokenizing:
            return len(self._texts.prompt_ids(messages))


@dataclass(frozen=True)
class _Requests:
    """Requests made as they are taken, of new passages each; two clocks have the time that this takes."""

    queries: int
    candidates: int
    making: _Stopwatch = field(default_factory=_Stopwatch)
    making_processor: _Stopwatch = field(default_factory=lambda: _Stopwatch(time.process_time))

    def __iter__(self) -> Iterator[RankingRequest]:
        with (
            self.making,
            self.making_processor,
            resources.as_file(resources.files("r1ranker_ir") / "demo_collection") as folder,
        ):
            corpus = open_corpus(folder)
            texts = [text for _, text in corpus.iterate_documents()]
            topics = list(corpus.queries().values())
        choose = random.Random(0)
        for number in range(self.queries):
            with self.making, self.making_processor:
                request = RankingRequest(
                    topics[number % len(topics)],
                    tuple(
                        Candidate(f"d{place}", " ".join(choose.sample(texts, _PARTS_OF_PASSAGE)))
                        for place in range(self.candidates)
                    ),
                    query_id=f"q{number}",
                )
            yield request


@dataclass(frozen=True)
class EngineFigures:
    """What one way of ranking took beside the backend's answers; times are microseconds a call."""

    schedule: str  # how many candidates leave at a step
    max_passage_tokens: int | None  # what is shown of a passage
    queries: int  # how many were ranked
    calls: int  # how many calls that took
    answering: float  # time that the backend had for a call
    own: float  # all other time, making the requests not included; the sum of the next three
    tokenizing: float  # counting tokens and cutting passages, which the backend's tokenizer does for the prompts
    prompting: float  # programs and prompts
    bookkeeping: float  # the engine
    own_processor: float  # own as processor time; a little of it is the backend's


@dataclass(frozen=True)
class EngineBenchmark:
    """What is ranked."""

    candidates: int = 100  # per query
    window_size: int = 20  # how many a prompt holds
    stride: int = 10  # how many leave a window
    batch_size: int = 16  # how many queries are under way at once
    context_length: int | None = 32_768  # the model's; None for no limit

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise InputError(f"candidates is {self.candidates}: no call is made for fewer than 2")

    def backend(self, call_seconds: float = 0.0) -> InstantBackend:
        """Opens the backend."""
        from transformers import AutoTokenizer

        from r1ranker_ir.backends.texts import ChatTokenizer

        texts = ChatTokenizer(AutoTokenizer.from_pretrained(TINY_CHECKPOINT, trust_remote_code=False))
        return InstantBackend(
            texts, context_length=self.context_length, batch_size=self.batch_size, call_seconds=call_seconds
        )

    def _programs(
        self, requests: _Requests, backend: InstantBackend, schedule: str, max_passage_tokens: int | None
    ) -> Iterator[Program]:
        prompt = Prompt(load_template(), backend, max_passage_tokens=max_passage_tokens)
        options = RankingOptions(schedule)
        for request in requests:
            yield eliminate(request, prompt, window_size=self.window_size, stride=self.stride, options=options)

    def measure(
        self, queries: int, schedule: str = "one", max_passage_tokens: int | None = None, call_seconds: float = 0.0
    ) -> EngineFigures:
        """Ranks queries and takes the time."""
        if queries < 1:
            raise InputError(f"queries is {queries}: rank at least 1")
        backend = self.backend(call_seconds)
        engine, requests = Engine(backend), _Requests(queries, self.candidates)
        whole, processor = _Stopwatch(), _Stopwatch(time.process_time)
        with whole, processor:
            for _ in engine.stream(self._programs(requests, backend, schedule, max_passage_tokens)):
                pass
        calls = engine.summary.usage.calls
        answering, tokenizing = backend.answering.seconds, backend.tokenizing.seconds
        own = whole.seconds - requests.making.seconds - answering
        prompting = engine.summary.seconds - answering - tokenizing
        parts = (answering, own, tokenizing, prompting, own - tokenizing - prompting)
        own_processor = processor.seconds - requests.making_processor.seconds
        figures = (1e6 * seconds / calls for seconds in (*parts, own_processor))
        return EngineFigures(schedule, max_passage_tokens, queries, calls, *figures)

    def memory(
        self, queries: Sequence[int], schedule: str = "one", max_passage_tokens: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Streams queries through the engine and looks at the memory in between."""
        backend = self.backend()
        programs = self._programs(_Requests(queries[-1], self.candidates), backend, schedule, max_passage_tokens)
        for number, _ in enumerate(Engine(backend).stream(programs), start=1):
            if number in queries:
                yield number, _largest_memory()


def _largest_memory() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _print_times(benchmark: EngineBenchmark, given: argparse.Namespace) -> list[EngineFigures]:
    measured = []
    print("                       passage            microseconds a call:        of which   programs,")
    print(
        "schedule    queries     tokens     calls    backend    own (processor)  tokenizer    prompts   engine   share"
    )
    runs = [(given.queries, 0.0)] + ([(given.sleep_queries, given.call_ms / 1000)] if given.sleep_queries else [])
    for queries, seconds in runs:
        for schedule in given.schedules:
            for limit in given.max_passage_tokens:
                found = benchmark.measure(queries, schedule, limit, seconds)
                measured.append(found)
                # Of a backend that answers at once, what the time would be a share of is the one that was named.
                whole = found.answering if seconds else 1000 * given.call_ms
                print(
                    f"{schedule:<10}{queries:>9}{limit or 'all':>11}{found.calls:>10}{found.answering:>11.1f}"
                    f"{found.own:>7.0f}{f'({found.own_processor:.0f})':>12}{found.tokenizing:>11.0f}"
                    f"{found.prompting:>11.0f}{found.bookkeeping:>9.0f}{found.own / whole:>8.1%}",
                    flush=True,
                )
    print(f"own time is all but the backend's; the share is that of a backend of {given.call_ms:g} ms a call")
    return measured


def _run(given: argparse.Namespace) -> tuple[EngineBenchmark, list[dict[str, Any]]]:
    benchmark = EngineBenchmark(**{each: getattr(given, each) for each in asdict(EngineBenchmark())})
    if not given.memory:
        return benchmark, [asdict(each) for each in _print_times(benchmark, given)]
    print("queries  largest memory, MB")
    found = list[dict[str, Any]]()
    for queries, peak in benchmark.memory(sorted(given.memory), given.schedules[0], given.max_passage_tokens[0]):
        found.append({"queries": queries, "peak_bytes": peak})
        print(f"{queries:>7}{peak / 1e6:>20.1f}", flush=True)
    return benchmark, found


def _limit(text: str) -> int | None:
    return None if text == "all" else int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/engine.py",
        description="Measure what engine, programs and prompts take beside a backend.",
    )
    defaults = EngineBenchmark()
    shown = "(default %(default)s)"
    parser.add_argument("--queries", type=int, default=1000, help=f"ranked {shown}")
    for name, what in (
        ("candidates", "per query"),
        ("window_size", "candidates per prompt"),
        ("stride", "candidates that leave a window"),
        ("batch_size", "queries under way at once"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(defaults, name), help=f"{what} {shown}")
    parser.add_argument(
        "--context-length", type=int, default=defaults.context_length, help=f"of the model, in tokens {shown}"
    )
    parser.add_argument("--schedules", nargs="+", default=["one", "halving:5"], help=f"to compare {shown}")
    parser.add_argument(
        "--max-passage-tokens", nargs="+", type=_limit, default=[None, 64], help="to compare (default: all 64)"
    )
    parser.add_argument("--call-ms", type=float, default=10, help=f"what the share is of {shown}")
    parser.add_argument(
        "--sleep-queries", type=int, default=0, help=f"ranked against a backend that takes that long, too {shown}"
    )
    parser.add_argument(
        "--memory",
        nargs="+",
        type=int,
        metavar="QUERIES",
        help="print memory after these counts, no times",
    )
    parser.add_argument("--output", help="JSON file for the figures")
    given = parser.parse_args(arguments)
    # Threads of the tokenizer would only make the clocks differ.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        benchmark, found = _run(given)
    except R1RankerError as error:
        parser.error(str(error))
    if given.output:
        figures = {"benchmark": asdict(benchmark), "call_ms": given.call_ms, "figures": found}
        write_whole(given.output, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
