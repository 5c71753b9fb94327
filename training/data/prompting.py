"""From samples to training rows, with exactly the prompt that the model will get when it ranks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import ContextLengthError, InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import Template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import OF_ONE, Call, Candidate, Message

from .graded import due_of, rows_of_questions
from .records import TAGS, Sample, judged, sample_strategies

logger = logging.getLogger(__name__)

OPENING = "<think>\n"
"""What of the assistant's turn the prompt holds already: a completion goes on from here."""


class PromptRenderer:
    """Renders samples as the backends render calls: the same template, the same cuts, the same tokens."""

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        *,
        max_passage_tokens: int | None = None,
        max_query_tokens: int | None = None,
        context_length: int | None = None,
        completion_tokens: int = 1024,
    ) -> None:
        self._chat = ChatTokenizer(tokenizer)
        self._name = str(tokenizer.name_or_path)
        tags = "".join(TAGS)
        decoded = str(tokenizer.decode(tokenizer.encode(tags, add_special_tokens=False), skip_special_tokens=True))
        if "".join(decoded.split()) != tags:
            raise InputError(
                f"the tokenizer of {self._name!r} decodes {tags!r} to {decoded!r}: its tags are special "
                "tokens, which training leaves out of completions. Add them as ordinary tokens instead"
            )
        self.control_tokens = self._chat.control_tokens
        self.context_length = context_length
        self.answer_reserve = completion_tokens
        self.template = template
        self.max_passage_tokens = max_passage_tokens
        self.max_query_tokens = max_query_tokens
        self.prompt = Prompt(template, self, max_passage_tokens=max_passage_tokens, max_query_tokens=max_query_tokens)
        self._ids = lru_cache(maxsize=4096)(self._chat.prompt_ids)

    def count_tokens(self, text: str) -> int:
        """Counts the tokens of plain text, without special ones."""
        return self._chat.count(text)

    def cut_text(self, text: str, max_tokens: int) -> str:
        """Returns the longest beginning that takes at most `max_tokens` tokens, in whole words if one fits."""
        return self._chat.cut(text, max_tokens)

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Counts the tokens of a whole prompt, the opened thought included."""
        return len(self._chat.prompt_ids(messages))

    def render(self, sample: Sample) -> Call:
        """Renders a sample."""
        request = sample.record.request
        if sample.strategy not in sample_strategies():
            known = ", ".join(sample_strategies())
            raise InputError(f"request {request.query_id!r}: strategy is {sample.strategy!r}: use one of {known}")
        if sample.asks in OF_ONE and (count := len(request.candidates)) != 1:
            raise InputError(
                f"request {request.query_id!r}: {sample.strategy} shows one candidate and not {count}: make a question "
                "of each of them (questions_of)"
            )
        return self.prompt.ask(STRATEGIES[sample.strategy].section, request, range(len(request.candidates)))

    def scored_ids(self, record: JudgedRequest) -> list[tuple[list[int], list[int]]]:
        """Tokenizes what the strategy `likelihood` scores: for each candidate the prompt, and the query behind it."""
        section = STRATEGIES["likelihood"].section
        calls = [self.prompt.ask(section, record.request, (place,)) for place in range(len(record.gains))]
        return [
            (self._chat.prompt_ids(call.messages, thinks=False), list(self._chat.said_ids(call.continuation)))
            for call in calls
        ]

    def digest(self) -> str:
        """A hash of what the prompts of a sample depend on: 16 hexadecimal digits of SHA-256."""
        limits = (self.max_passage_tokens, self.max_query_tokens, self.context_length, self.answer_reserve)
        of_prompts = (self.template.digest(), self._name, self.control_tokens, limits)
        return hashlib.sha256(repr(of_prompts).encode()).hexdigest()[:16]

    def prompt_ids(
        self, messages: Sequence[Message] | Sequence[Mapping[str, str]], *, thinks: bool = True
    ) -> list[int]:
        """Tokenizes a prompt, the assistant's turn opened with its thought."""
        turns = tuple(
            turn if isinstance(turn, Message) else Message(turn["role"], turn["content"])  # type: ignore[arg-type]
            for turn in messages
        )
        return list(self._ids(turns, thinks=thinks))


def turns_of(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as transformers and TRL have them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Builds the sample of a row of a sample file, or of one of its questions."""
    ids, texts = row["candidate_ids"], row["candidates"]
    if len(ids) != len(texts):
        raise InputError(f"request {row['id']!r}: {len(ids)} candidate_ids for {len(texts)} candidates: give one each")
    candidates = tuple(Candidate(identity, text) for identity, text in zip(ids, texts, strict=True))
    names = row["task"], row["id"], row["source"], row.get("aim") or ""
    due = due_of(row)
    return Sample(row["strategy"], judged(row["context"], candidates, row["gains"] if due is None else [due], *names))


def training_rows(samples: Any, renderer: PromptRenderer) -> Any:
    """Adds prompts to samples, of which lists to be graded become a row for each candidate."""
    from datasets import Features, Value

    samples = rows_of_questions(samples)
    left_out: set[int] = set()

    def add_prompt(row: dict[str, Any], place: int) -> dict[str, Any]:
        turns: list[dict[str, str]] = []
        try:
            turns = turns_of(renderer.render(sample_of(row)).messages)
        except ContextLengthError as error:
            logger.info("left out: %s", error)
            left_out.add(place)
        return {"prompt": turns, "opening": OPENING}

    # The type is said: rows that are left out have no turns that would show it.
    turn = {"role": Value("string"), "content": Value("string")}
    features = Features({**samples.features, "prompt": [turn], "opening": Value("string")})
    # A fingerprint of our own, which names the file of the rows: hashing the function would pickle the tokenizer.
    fingerprint = f"{samples._fingerprint[:40]}-{renderer.digest()}"
    options = {"with_indices": True, "load_from_cache_file": False, "new_fingerprint": fingerprint}
    rows = samples.map(add_prompt, features=features, **options)
    if len(left_out) == len(rows):
        raise InputError(f"none of the {len(rows)} samples fits into {renderer.context_length} tokens: raise it")
    if not left_out:
        return rows
    logger.warning("%d of %d samples are left out: their query leaves no room for passages", len(left_out), len(rows))
    return rows.select([place for place in range(len(rows)) if place not in left_out])
