"""A model, a strategy, a prompt and an engine put together: what every caller uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from r1ranker_ir.backends import BACKENDS, DeclaredBackend, check_options, open_backend
from r1ranker_ir.cache.completions import CompletionsCache, open_cache
from r1ranker_ir.engine.engine import Engine, RunSummary
from r1ranker_ir.engine.outcomes import FailedRanking, Outcome
from r1ranker_ir.engine.signs import warnings_of
from r1ranker_ir.errors import CheckpointError, InputError, R1RankerError
from r1ranker_ir.models.checkpoints import CheckpointSettings, read_settings
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.prompts.prompt import Prompt, PromptTemplate
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.names import is_registered, refuse_unknown
from r1ranker_ir.rankers.settings import ANSWERS, SETTINGS, RankerSettings, sorted_arguments
from r1ranker_ir.rankers.systems import FAMILY, wording_notes
from r1ranker_ir.strategies import STRATEGIES, Strategy
from r1ranker_ir.strategies.checks import check_options_of
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.strategies.windows import check_window
from r1ranker_ir.types import Program, Ranking, RankingRequest

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")


class Ranker:
    """Ranks requests with one model and one strategy.

    What is left at `None` is taken from the checkpoint's `r1ranker.json`, or from the project's defaults.

    Args:
        model: a checkpoint: folder or hub name; for the `openai` backend the name that the server knows.
        strategy: a name, such as `iterative`, `direct`, `setwise`, `pointwise` or `likelihood`; or a `Strategy`.
        options: how the ranking goes about its calls; `None` for the strategy's defaults, as published.
        settings: limits, prompt, cache, and what runs the model; `None` for the defaults.
        progress: show a progress bar on a terminal.
        given: single fields of `RankingOptions` (or of the strategy's own options) and of `RankerSettings`, such as
            `top_k=10`, `template="mine.toml"`, `backend="openai"`, `device="cpu"` or `cache="answers.sqlite"`, which
            win over those above; and arguments that the backend alone knows, such as `tokenizer`.

    Raises:
        InputError: if an argument makes no sense.
        CheckpointError: if the model can't be loaded or does not offer the strategy.
        MissingExtraError: if the backend's dependencies are not installed.
        StorageError: if the cache can't be used.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        strategy: str | Strategy,
        options: RankingOptions | None = None,
        settings: RankerSettings | None = None,
        progress: bool = False,
        **given: Any,
    ) -> None:
        declared = STRATEGIES.resolve(strategy)
        self.options, told = sorted_arguments(declared, given, options, settings)
        backend, runs_on = told.backend, told.declared_backend
        if runs_on.capabilities.reads_checkpoint:
            _refuse_name(os.fspath(model))
        own = told.of_backend()
        check_options(backend, own, (*(each.name for each in fields(declared.options)), *sorted(SETTINGS)))
        if told.answers not in ANSWERS:
            raise InputError(f"answers is {told.answers!r}: use {' or '.join(ANSWERS)}")
        self.model = os.fspath(model)
        self.strategy = declared.name
        self.settings = told
        _check_options(self.options, declared, runs_on, told)
        checkpoint = _settings_of(self.model, told)
        if told.template is None and declared.name not in checkpoint.strategies and not declared.section.user:
            raise CheckpointError(
                f"checkpoint {self.model!r} does not follow the strategy {declared.name!r}: its r1ranker.json names "
                f"{', '.join(checkpoint.strategies)}. Choose one of these, or pass a template of your own"
            )
        # Before the model: a cache that can't be used is said without having to wait for the weights.
        cache = told.cache
        kept = cache if cache is None or isinstance(cache, CompletionsCache) else open_cache(cache)
        self.window_size, self.stride = _window(told, checkpoint)
        self.template = template_of(told, checkpoint)
        if told.template is not None:
            if not declared.is_worded_by(self.template):
                raise InputError(
                    f"template {self.template.name!r} has no section [{declared.section.name}]: add one, or use the "
                    f"strategy {' or '.join(self.template.wordings)}"
                )
            _warn_of_other_template(self.model, checkpoint, self.template, declared.section.name)
        self.system = told.system
        self.notes = wording_notes(
            told.system, self.model, self.template, own=is_own_wording(told.template, checkpoint)
        )
        for note in self.notes:
            logger.warning("%s", note)
        self.template.wording(declared.asked_with(self.options).name, "passage")
        if isinstance(backend, str | DeclaredBackend):
            known = os.fspath(told.settings_from or self.model)
            sizes = runs_on.options_of(known, told.batch_size, checkpoint.batch_size)
            thought = _thought_tokens(told, checkpoint, self.template)
            self.backend = open_backend(backend, self.model, **{"max_thought_tokens": thought, **sizes, **own})
        else:
            self.backend = backend
        self.prompt = Prompt(
            self.template,
            self.backend,
            max_passage_tokens=_first(told.max_passage_tokens, checkpoint.max_passage_tokens),
            max_query_tokens=_first(told.max_query_tokens, checkpoint.max_query_tokens),
            published=told.answers == "published",
            max_passage_words=told.max_passage_words,
            repair_text=bool(told.repair_text),
        )
        self._said: set[str] = set()
        self.engine = Engine(self.backend, max_repair_rate=told.max_repair_rate, progress=progress, cache=kept)

    @property
    def summary(self) -> RunSummary:
        """Queries, calls, tokens, repairs and seconds so far."""
        return self.engine.summary

    def rank(self, requests: Iterable[RankingRequest]) -> list[Ranking]:
        """Ranks requests, all of them through the engine together.

        Args:
            requests: queries with their candidates.

        Returns:
            One ranking per request, in the requests' order.

        Raises:
            FailedRankingsError: if some of several requests could not be ranked: what the server refuses, or what does
                not fit the context. A request that is alone fails with its own error.
            R1RankerError: what ended the work early, such as a `BackendError` for a server that can't be reached. In
                each of these errors, `rankings` are those that were finished.
        """
        try:
            return self.engine.run([self.program(request) for request in requests])
        finally:
            self.warn_of_signs()

    async def rank_async(self, request: RankingRequest) -> Ranking:
        """Ranks one request while the event loop goes on; see `rank`.

        Any number of tasks may wait at once. A task that is cancelled makes no further calls.
        """
        try:
            return await self.engine.rank_async(self.program(request))
        finally:
            self.warn_of_signs()

    def stream(self, requests: Iterable[RankingRequest]) -> Iterator[tuple[int, Ranking]]:
        """Ranks requests and yields each as it finishes.

        Args:
            requests: queries with their candidates; taken one by one as places become free.

        Yields:
            The request's index and its ranking.

        Raises:
            FailedRankingsError: if some requests could not be ranked, once all others are finished.
            R1RankerError: what ended the work early.
        """
        return self._watched(self.engine.stream(self._programs(requests)))

    def _watched(self, finished: Iterator[tuple[int, Ranking]]) -> Iterator[tuple[int, Ranking]]:
        try:
            yield from finished
        except R1RankerError:
            self.warn_of_signs()
            raise
        self.warn_of_signs()

    def warn_of_signs(self) -> None:
        """Logs each sign that the model does not rank once, as `rank` and `stream` do at their end."""
        for kind, line in warnings_of(self.summary.signs, self.model, self.strategy).items():
            if kind not in self._said:
                self._said.add(kind)
                logger.warning("%s", line)

    def outcomes(self, requests: Iterable[RankingRequest]) -> Iterator[tuple[int, Outcome]]:
        """As `stream`, but a request that fails alone is yielded too, as a `FailedRanking` that says why.

        What speaks against the model's ranking anything is left for the caller to ask for: see `warn_of_signs`.

        Args:
            requests: queries with their candidates; taken one by one as places become free.

        Yields:
            The request's index and its ranking, or why it has none.

        Raises:
            R1RankerError: what ended the work early.
        """
        names: dict[int, str] = {}

        def named(requests: Iterable[RankingRequest]) -> Iterator[RankingRequest]:
            for index, request in enumerate(requests):
                names[index] = request.query_id
                yield request

        counted = _Counted(named(requests), len(requests)) if isinstance(requests, Sized) else named(requests)
        for index, outcome in self.engine.outcomes(self._programs(counted)):
            query_id = names.pop(index, "")
            yield index, replace(outcome, query_id=query_id) if isinstance(outcome, FailedRanking) else outcome

    def _programs(self, requests: Iterable[RankingRequest]) -> Iterable[Program]:
        if isinstance(requests, Sized):
            return _Counted(map(self.program, requests), len(requests))
        return map(self.program, requests)

    def program(self, request: RankingRequest) -> Program:
        """The ranking program of a request, for callers with an engine of their own."""
        return STRATEGIES[self.strategy](
            request, self.prompt, window_size=self.window_size, stride=self.stride, options=self.options
        )


def _refuse_name(model: str) -> None:
    """Says at once that a reranker's name is not a model, which the hub says only after many retries."""
    refuse_unknown(model)
    if is_registered(model) and not os.path.isdir(model):
        raise InputError(
            f"model is {model!r}, which is a reranker's name: use it with Reranker, or give what "
            "r1ranker_ir.rankers.names.resolve says of it, a checkpoint and a strategy"
        )


def _first(given: int | None, default: int | None) -> int | None:
    return default if given is None else given


def _window(given: RankerSettings, checkpoint: CheckpointSettings) -> tuple[int, int]:
    """Window size and stride: a window smaller than the checkpoint's own still has to overlap with the next one."""
    size = checkpoint.window_size if given.window_size is None else given.window_size
    stride = given.stride
    if stride is None:
        stride = checkpoint.stride
        if size < checkpoint.window_size or stride >= size:
            stride = min(stride, max(1, size // 2))
    check_window(size, stride)
    return size, stride


def template_of(given: RankerSettings, checkpoint: CheckpointSettings) -> PromptTemplate:
    """The given template, else the checkpoint's, else the project's."""
    if given.template is None:
        return checkpoint.template or load_template()
    return open_template(given.template) if isinstance(given.template, str | Path) else given.template


def _thought_tokens(given: RankerSettings, checkpoint: CheckpointSettings, template: PromptTemplate) -> int:
    if given.max_thought_tokens is not None:
        return given.max_thought_tokens
    # What does not think needs no room for it, where the answer's form is ours to say.
    can = given.capabilities
    straight = not template.thinks and given.answers == "constrained" and can.constrains and can.reads_checkpoint
    return 0 if straight else checkpoint.max_thought_tokens


@dataclass(frozen=True)
class _Counted(Generic[_Item]):
    """Things that are made one by one, and how many there will be: what the engine's progress bar needs."""

    items: Iterable[_Item]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[_Item]:
        return iter(self.items)


def notes_unopened(model: str, given: RankerSettings) -> tuple[str, ...]:
    """What `Ranker.notes` would say, without a model in memory."""
    if given.system is None:
        return ()
    checkpoint = _settings_of(model, given)
    own = is_own_wording(given.template, checkpoint)
    return wording_notes(given.system, model, template_of(given, checkpoint), own=own)


def _settings_of(model: str, given: RankerSettings) -> CheckpointSettings:
    reads = given.declared_backend.capabilities.reads_checkpoint
    if not reads and given.settings_from is None and not Path(model).is_dir():
        # A server's name for its model is not a hub name, and nobody's business but the server's.
        return CheckpointSettings()
    return read_settings(given.settings_from or model, given.revision)


def is_own_wording(template: PromptTemplate | str | Path | None, settings: CheckpointSettings) -> bool:
    """Whether a wording is the checkpoint's or the caller's: not the default one, nor one that stands in for it."""
    if template is None:
        own = settings.template
        return bool(settings.training) or (own is not None and own.digest() != load_template().digest())
    stand_ins = [each.template for each in FAMILY.values() if each.template]
    return not (isinstance(template, str | Path) and Path(template) in stand_ins)


def _check_options(
    options: RankingOptions, strategy: Strategy, backend: DeclaredBackend, given: RankerSettings
) -> None:
    """Says before a model is loaded that the strategy or the backend can't do what is asked of it."""
    check_options_of(strategy, options)
    can = given.capabilities
    if not can.takes_thought and options.think != "always":
        raise InputError(
            f"think={options.think!r} needs a backend that can be given a thought, and {backend.name!r} can't: use the "
            f"backend {_able('takes_thought')}, or tell what it asks itself not to think (extra_body)"
        )
    if strategy.asks == "likelihood" and not can.scores:
        raise InputError(
            f"{strategy.name} goes by the log-probabilities of a given text, which {backend.name!r} does not tell: use "
            f"the backend {_able('scores')}, or another strategy"
        )
    if not can.probabilities and (needing := strategy.by_probabilities(options)):
        raise InputError(
            f"{needing} goes by the probabilities of the identifiers, which {backend.name!r} does not give: use the "
            f"backend {_able('probabilities')}, or leave the option out"
        )
    same = not can.samples_differ and isinstance(given.backend, str | DeclaredBackend) and not given.temperature
    if same and options.votes > 1 and options.vote_among == "thoughts":
        raise InputError(
            "vote_among='thoughts' needs thoughts that differ: give a temperature above 0, such as 0.7, or use "
            "vote_among='permutations'"
        )


def _able(capability: str) -> str:
    able = []
    for each in BACKENDS.values():
        ways = [f" with {name}={value!r}" for (name, value), can in each.able_with.items() if getattr(can, capability)]
        if each.offered and (getattr(each.capabilities, capability) or ways):
            able.append(f"{each.name!r}{'' if getattr(each.capabilities, capability) else ways[0]}")
    return " or ".join(able)


def _warn_of_other_template(model: str, settings: CheckpointSettings, template: PromptTemplate, section: str) -> None:
    """Says that a checkpoint is asked with another prompt than it was trained on."""
    own = settings.template
    if own is None or not settings.training:
        return
    # What a template holds for other strategies changes nothing for this one.
    asked, trained = (each.only(section).digest() for each in (template, own))
    if asked != trained:
        logger.warning(
            "checkpoint %r was trained with the template %r (%s) and is asked with %r (%s): what it learned may not "
            "show. Leave template out to use its own, or train it again with this one (--template)",
            model,
            own.name,
            own.digest(),
            template.name,
            template.digest(),
        )
