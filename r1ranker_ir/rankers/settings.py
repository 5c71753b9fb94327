"""What a ranker is told besides its model, its strategy and how it ranks: limits, prompt, cache, and what runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from r1ranker_ir.backends import BACKENDS, DEFAULT_BACKEND, Capabilities, DeclaredBackend, declared_backend
from r1ranker_ir.backends.base import Backend
from r1ranker_ir.backends.declared.openai import Api
from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.byte_sizes import parse_bytes
from r1ranker_ir.option_fields import (
    backend_option,
    engine_option,
    limit_option,
    model_option,
    number_or_none,
    offers_of,
    ranking_option,
    stated,
)
from r1ranker_ir.prompts.prompt import PromptTemplate
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.strategies import Strategy
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.thoughts.choosing import ExampleKind

Answers = Literal["constrained", "published"]
ANSWERS: tuple[Answers, ...] = ("constrained", "published")
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(
            f"the extra body is {quoted(text)}: give a JSON object, such as "
            '\'{"chat_template_kwargs": {"enable_thinking": false}}\''
        )
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for word in text.split(",") if (name := word.strip()))


def _offered_backends() -> Iterator[str]:
    return (name for name, each in BACKENDS.items() if each.offered)


def _backends_help() -> str:
    said = [each.summary for each in BACKENDS.values() if each.offered and each.summary]
    text = f"{', '.join(said[:-1])}, or {said[-1]}."
    return text[0].upper() + text[1:]


def _repairing_systems() -> str:
    names = [name for name, system in FAMILY.items() if system.settings.get("repair_text")]
    return f"only for the systems {', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class RankerSettings:
    """The arguments of a `Ranker` that are not its strategy's options; each field says what it is for.

    Those of the backend count only where they differ from the defaults here, which are the backends' own. `system`
    names the published system whose settings these are; `more` holds arguments that a backend alone knows.
    """

    template: PromptTemplate | str | Path | None = ranking_option(
        None,
        "Prompt template: this project's TOML, also in IRanker's form, or Rank-R1's, ReasonRank's or rank_llm's file.",
        unset="the checkpoint's or the system's",
        parse=str,
    )
    answers: Answers = ranking_option(
        "constrained",
        "Have answers chosen among the candidates; or written freely, and read as the template's system does.",
    )
    thoughts: str | os.PathLike[str] | None = ranking_option(
        None,
        "Bank of thoughts (r1ranker thoughts build) from which prompts get worked examples.",
        unset="no examples",
        parse=str,
    )
    examples: int = ranking_option(3, "Most worked examples in a prompt, as far as there is room.", least=1)
    example_kind: ExampleKind = ranking_option(
        "nearest", "Examples of the nearest queries, random ones, or the nearest ones' answers without their thoughts."
    )
    example_encoder: str | None = ranking_option(
        None, "Sentence encoder (a folder or Hugging Face name) that says which queries are near.", unset="BM25"
    )
    window_size: int | None = limit_option(
        None, "Most documents in one prompt.", unset="the checkpoint's, usually 20", least=2
    )
    stride: int | None = limit_option(
        None, "Documents by which a window moves on.", unset="the checkpoint's, usually 10", least=1
    )
    max_passage_tokens: int | None = limit_option(
        None, "Cut each passage to N of the model's tokens.", unset="as the context asks for", least=1
    )
    max_passage_words: int | None = limit_option(
        None,
        "Cut each passage to N words before its tokens are counted.",
        unset="no limit; 300 for the systems listwise, first and rankgpt",
        least=1,
    )
    repair_text: bool | None = limit_option(
        None,
        "Repair the characters of queries and passages (mojibake, HTML entities) with ftfy.",
        unset=_repairing_systems,
        flags=("--repair-text/--no-repair-text",),
    )
    max_query_tokens: int | None = limit_option(
        None,
        "Cut each query to N of the model's tokens; of a user's choices, the latest are kept.",
        unset="the checkpoint's, usually no limit",
        least=1,
    )
    max_thought_tokens: int | None = limit_option(
        None, "Close a thought after N tokens.", unset="the checkpoint's, usually 1024", least=0
    )
    max_repair_rate: float = limit_option(
        0.2, "Stop when more than this share of the answers (of at least 50) can't be used.", least=0, most=1
    )
    settings_from: str | os.PathLike[str] | None = model_option(
        None,
        "Folder or Hugging Face name whose r1ranker.json (template, window, limits) counts.",
        unset="the model's own",
        parse=str,
    )
    backend: str | Backend | DeclaredBackend = engine_option(DEFAULT_BACKEND, _backends_help, choices=_offered_backends)
    base_url: str | None = backend_option(
        None,
        "Address of the server, such as http://localhost:8000/v1; its key is read from OPENAI_API_KEY only.",
        unset="the environment variable OPENAI_BASE_URL, else OpenAI's",
    )
    batch_size: int | None = engine_option(
        None, "Calls at once, in a batch or at a server.", unset="the checkpoint's, usually 16", least=1
    )
    temperature: float | None = backend_option(
        0.0,
        "Sampling temperature; 0 is greedy, none leaves the field out for a server that refuses it.",
        metavar="FLOAT|none",
        parse=number_or_none(float, "the temperature", 0),
    )
    seed: int | None = backend_option(
        0,
        "Seed of the sampling; none leaves the field out for a server that refuses it.",
        metavar="INTEGER|none",
        parse=number_or_none(int, "the seed"),
    )
    api: Api = backend_option(
        "chat",
        "How a server is asked: chat leaves prompt and answer to it; completions renders the prompt here, closes the "
        "thought, and has the answer chosen among the candidates, as far as the server can.",
    )
    tokenizer: str | None = backend_option(
        None,
        "Folder or Hugging Face name of the served model's tokenizer and chat template, for exact counts; --api "
        "completions needs it.",
        unset="the model's or --settings-from's, if that is a folder; else tokens are estimated",
    )
    timeout: float = backend_option(
        120.0, "Seconds that a server may stay silent before a request counts as lost.", least=0
    )
    request_timeout: float = backend_option(1800.0, "Seconds that a request to a server may take in all.", least=0)
    max_retries: int = backend_option(5, "How often a request to a server is tried again.", least=0)
    wait: float | None = backend_option(
        None,
        "Seconds for which a server that can't be reached is waited for, beyond --max-retries.",
        unset="90 where it has answered before, else none",
        least=0,
    )
    max_reply_bytes: int | str = backend_option(
        "16MiB",
        "Longest reply of a server that is read: bytes, or a size such as 16MiB.",
        metavar="SIZE",
        parse=lambda text: parse_bytes(text, "the size"),
    )
    leave_out: Sequence[str] = backend_option(
        (),
        "Fields that a server is never sent, with commas between them: response_format, logprobs, system (its turn "
        "becomes part of the user's), temperature, seed, max_tokens, max_completion_tokens. What a server refuses is "
        "left out from then on without this option.",
        unset="none",
        metavar="NAMES",
        parse=_names,
    )
    extra_body: Mapping[str, object] | None = backend_option(
        None, "Further fields of a server's requests (JSON).", unset="none", metavar="JSON", parse=_json_object
    )
    device: str | None = backend_option(
        None, "Device of the transformers backend, such as cpu, cuda, cuda:1 or mps.", unset="the best there is"
    )
    dtype: Dtype = backend_option(
        "auto",
        "Numbers that the transformers backend computes in. auto is the checkpoint's own; on a CPU, bfloat16 from 50 "
        "million parameters on where the CPU has instructions for it, else float32.",
    )
    cache_memory: int | str | None = backend_option(
        None,
        "Memory, of each worker, for what a prompt shares with the one before in its ranking: bytes, or a size such as "
        "4GiB or 512MB; 0 for none.",
        unset="4GiB",
        metavar="SIZE",
        parse=lambda text: parse_bytes(text, "the size"),
    )
    revision: str | None = model_option(
        None, "Branch, tag or commit of the model on the Hugging Face hub.", unset="main", of_backend=True
    )
    trust_remote_code: bool = model_option(
        False, "Run the Python code that comes with a model; only if you trust its authors.", of_backend=True
    )
    cache: CompletionsCache | str | os.PathLike[str] | None = None
    system: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def declared_backend(self) -> DeclaredBackend:
        return declared_backend(self.backend)

    @property
    def capabilities(self) -> Capabilities:
        return self.declared_backend.capabilities_with(self.of_backend())

    def of_backend(self) -> dict[str, Any]:
        """The backend's own arguments, as far as they are not its defaults."""
        offered = offers_of(type(self))
        given = {name: value for name, value in stated(self).items() if name in offered and offered[name].of_backend}
        return {**given, **self.more}

    def stated(self) -> dict[str, Any]:
        given = stated(self)
        return {**{name: value for name, value in given.items() if name != "more"}, **self.more}

    def get(self, name: str) -> Any:
        """An argument by name, whether it is a field or a backend's alone; `None` if it is not given."""
        return getattr(self, name) if name in SETTINGS else self.more.get(name)

    def having(self, **changes: Any) -> RankerSettings:
        """The same with other arguments, fields or a backend's alone."""
        own = {name: value for name, value in changes.items() if name in SETTINGS}
        more = {name: value for name, value in changes.items() if name not in SETTINGS}
        return replace(self, **own, more={**self.more, **more})


SETTINGS = frozenset(each.name for each in fields(RankerSettings)) - {"more"}
"""The names of all settings."""


def sorted_arguments(
    strategy: Strategy,
    given: Mapping[str, Any],
    options: RankingOptions | None = None,
    settings: RankerSettings | None = None,
) -> tuple[RankingOptions, RankerSettings]:
    """Puts the arguments of a `Ranker` into the options of its strategy and the settings, which they replace."""
    own = {each.name: given[each.name] for each in fields(strategy.options) if each.name in given}
    ranking = strategy.options(**{**({} if options is None else stated(options)), **own})
    others = {name: value for name, value in given.items() if name not in own}
    return ranking, (settings or RankerSettings()).having(**others)
