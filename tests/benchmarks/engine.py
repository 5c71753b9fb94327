"""What the engine, the programs and the prompts take themselves: no model, but a backend that answers at once.

    python tests/benchmarks/engine.py --queries 1000 --candidates 100

ranks passages of about 100 words by elimination, with the embedded model's tokenizer, and prints what a call costs
beside its model. With `--memory` it prints the largest memory of the process as the queries stream through.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import typer

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Answer, Call, Candidate, Message, Program, RankingRequest, Usage

ANSWER_RESERVE = 1224
"""Tokens that the transformers backend keeps for a thought of its default length and the answer."""

_PARTS_OF_PASSAGE = 3


class _Stopwatch:
    """Seconds spent inside its `with` blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


class InstantBackend:
    """Answers at once: the candidate in the middle is the worst."""

    name = "instant"
    identity: Mapping[str, Any] = {"backend": name}
    answer_reserve = ANSWER_RESERVE

    def __init__(self, *, context_length: int | None, batch_size: int) -> None:
        from transformers import AutoTokenizer

        from r1ranker_ir.backends.texts import ChatTokenizer

        self.context_length = context_length
        self.batch_size = batch_size
        self._texts = ChatTokenizer(AutoTokenizer.from_pretrained(TINY_CHECKPOINT, trust_remote_code=False))
        self.control_tokens = self._texts.control_tokens
        self.tokenizing, self.answering = _Stopwatch(), _Stopwatch()
        self._answers: dict[tuple[str, ...], Answer] = {}

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        with self.answering:
            return [self._answer(call.identifiers) for call in calls]

    def _answer(self, identifiers: tuple[str, ...]) -> Answer:
        if identifiers not in self._answers:
            worst = identifiers[len(identifiers) // 2]
            chances = {identifier: (1 + (identifier == worst)) / (len(identifiers) + 1) for identifier in identifiers}
            text = f"A thought.\n</think>\n<answer>{worst}</answer>"
            self._answers[identifiers] = Answer(text, "A thought.", (worst,), chances, usage=Usage(1, 1, 1))
        return self._answers[identifiers]

    def count_tokens(self, text: str) -> int:
        with self.tokenizing:
            return self._texts.count(text)

    def cut_text(self, text: str, max_tokens: int) -> str:
        with self.tokenizing:
            return self._texts.cut(text, max_tokens)

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        with self.tokenizing:
            return len(self._texts.prompt_ids(messages))


@dataclass(frozen=True)
class EngineBenchmark:
    """What is ranked."""

    candidates: int = 100  # per query
    window_size: int = 20  # how many a prompt holds
    stride: int = 10  # how many leave a window
    batch_size: int = 16  # how many queries are under way at once
    context_length: int = 32_768  # the model's

    def backend(self) -> InstantBackend:
        return InstantBackend(context_length=self.context_length, batch_size=self.batch_size)

    def _requests(self, queries: int, making: _Stopwatch) -> Iterator[RankingRequest]:
        """Requests made as they are taken, of new passages each."""
        with making, resources.as_file(resources.files("r1ranker_ir") / "demo_collection") as folder:
            corpus = open_corpus(folder)
            texts = [text for _, text in corpus.iterate_documents()]
            topics = list(corpus.queries().values())
        choose = random.Random(0)
        for number in range(queries):
            with making:
                passages = [" ".join(choose.sample(texts, _PARTS_OF_PASSAGE)) for _ in range(self.candidates)]
                candidates = tuple(Candidate(f"d{place}", text) for place, text in enumerate(passages))
                request = RankingRequest(topics[number % len(topics)], candidates, query_id=f"q{number}")
            yield request

    def _programs(
        self, queries: int, making: _Stopwatch, backend: InstantBackend, schedule: str, max_passage_tokens: int | None
    ) -> Iterator[Program]:
        prompt = Prompt(load_template(), backend, max_passage_tokens=max_passage_tokens)
        options = RankingOptions(schedule)
        for request in self._requests(queries, making):
            yield eliminate(request, prompt, window_size=self.window_size, stride=self.stride, options=options)

    def measure(self, queries: int, schedule: str = "one", max_passage_tokens: int | None = None) -> dict[str, Any]:
        """Ranks queries and takes the time, in microseconds per call: all but answers and making requests is `own`."""
        backend, making, whole = self.backend(), _Stopwatch(), _Stopwatch()
        engine = Engine(backend)
        with whole:
            for _ in engine.stream(self._programs(queries, making, backend, schedule, max_passage_tokens)):
                pass
        calls = engine.summary.usage.calls
        own = whole.seconds - making.seconds - backend.answering.seconds
        tokenizing = backend.tokenizing.seconds
        prompting = engine.summary.seconds - backend.answering.seconds - tokenizing
        parts = {"own": own, "tokenizing": tokenizing, "prompting": prompting}
        parts["bookkeeping"] = own - tokenizing - prompting
        asked = {"schedule": schedule, "max_passage_tokens": max_passage_tokens, "queries": queries, "calls": calls}
        return asked | {name: 1e6 * part / calls for name, part in parts.items()}

    def memory(self, queries: Sequence[int]) -> Iterator[dict[str, int]]:
        """Streams queries through the engine and looks at the largest memory in between."""
        backend = self.backend()
        programs = self._programs(max(queries), _Stopwatch(), backend, "one", None)
        for number, _ in enumerate(Engine(backend).stream(programs), start=1):
            if number in queries:
                unit = 1 if sys.platform == "darwin" else 1024
                yield {"queries": number, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def main(
    *,
    candidates: int = typer.Option(100, min=2, help="Per query."),
    queries: int = typer.Option(1000, min=1, help="Ranked."),
    schedule: list[str] = typer.Option(["one", "halving:5"], help="To compare."),  # noqa: B008
    passage_tokens: list[int] = typer.Option([0, 64], help="Limits to compare; 0 for whole passages."),  # noqa: B008
    memory: list[int] = typer.Option([], help="Print memory after these counts of queries, no times."),  # noqa: B008
    output: str = typer.Option("", help="JSON file for the figures."),
) -> None:
    """Measure what engine, programs and prompts take beside a backend, in microseconds per call."""
    # Threads of the tokenizer would only make the clocks differ.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    benchmark, found = EngineBenchmark(candidates), []
    compared = (benchmark.measure(queries, each, limit or None) for each in schedule for limit in passage_tokens)
    for figures in benchmark.memory(memory) if memory else compared:
        found.append(figures)
        told = {name: round(value) if isinstance(value, float) else value for name, value in figures.items()}
        print(", ".join(f"{name} {value}" for name, value in told.items()), flush=True)
    if output:
        write_whole(output, json.dumps({"benchmark": asdict(benchmark), "figures": found}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
