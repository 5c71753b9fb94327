"""A model, a strategy, a prompt and an engine put together: what every caller uses."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from r1ranker_ir.backends import BACKENDS, DeclaredBackend, check_options, open_backend
from r1ranker_ir.cache.completions import CompletionsCache, open_cache
from r1ranker_ir.engine.engine import Engine, RunSummary
from r1ranker_ir.engine.outcomes import FailedRanking, Outcome, ranked_in_order, ranked_or_failed
from r1ranker_ir.engine.signs import warnings_of
from r1ranker_ir.errors import CheckpointError, InputError, R1RankerError
from r1ranker_ir.models.checkpoints import CheckpointSettings, read_settings
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.prompts.judging import judging_template
from r1ranker_ir.prompts.prompt import Prompt, PromptTemplate
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.conditions import conditions_of
from r1ranker_ir.rankers.names import is_registered, refuse_unknown
from r1ranker_ir.rankers.settings import ANSWERS, SETTINGS, RankerSettings, sorted_arguments
from r1ranker_ir.rankers.systems import wording_notes
from r1ranker_ir.strategies import STRATEGIES, Strategy
from r1ranker_ir.strategies.checks import check_options_of
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.strategies.windows import check_window
from r1ranker_ir.thoughts.bank import read_bank
from r1ranker_ir.thoughts.choosing import EXAMPLE_KINDS, ExampleChooser
from r1ranker_ir.types import Condition, Program, Ranking, RankingRequest

logger = logging.getLogger(__name__)


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
            # The hub would say so only after many retries.
            refuse_unknown(model)
            if is_registered(os.fspath(model)) and not os.path.isdir(model):
                raise InputError(
                    f"model is {model!r}, which is a reranker's name: use it with Reranker, or give what "
                    "r1ranker_ir.rankers.names.resolve says of it, a checkpoint and a strategy"
                )
        own = told.of_backend()
        check_options(backend, own, (*(each.name for each in fields(declared.options)), *sorted(SETTINGS)))
        if told.answers not in ANSWERS:
            raise InputError(f"answers is {told.answers!r}: use {' or '.join(ANSWERS)}")
        self.model = os.fspath(model)
        self.strategy = declared.name
        self.settings = told
        _check_options(self.options, declared, runs_on, told)
        checkpoint = settings_of(self.model, told)
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
        self.examples = None if told.thoughts is None else _examples(told, declared)
        self.system = told.system
        self.notes = wording_notes(told.system, told.template, self.model, checkpoint, self.template)
        for note in self.notes:
            logger.warning("%s", note)
        _check_wording(self.options, declared, self.template)
        self._checkpoint = checkpoint
        if unlike := self._take_calibration():
            logger.warning(
                "the calibration of %r in %s was fitted under other conditions and is not used: %s. Calibrate again "
                "with a trace made under these (r1ranker calibrate), or rank under those",
                *(declared.name, quoted(os.fspath(told.settings_from or self.model)), "; ".join(unlike)),
            )
        if isinstance(backend, str | DeclaredBackend):
            known = os.fspath(told.settings_from or self.model)
            sizes = runs_on.options_of(known, told.batch_size, checkpoint.batch_size)
            thought = _thought_tokens(told, checkpoint, self.template)
            self.backend = open_backend(backend, self.model, **{"max_thought_tokens": thought, **sizes, **own})
        else:
            self.backend = backend
        limits = prompt_limits(told, checkpoint)
        published = told.answers == "published"
        self.prompt = Prompt(self.template, self.backend, published=published, examples=self.examples, **limits)
        self._said: set[str] = set()
        self.engine = Engine(self.backend, max_repair_rate=told.max_repair_rate, progress=progress, cache=kept)

    def __repr__(self) -> str:
        # Without where and what a server is sent beside a prompt, which may hold secrets.
        given = {**self.options.stated(), **self.settings.stated()}
        shown = [f"{name}={_shown(value)}" for name, value in given.items() if name not in ("base_url", "extra_body")]
        return f"{type(self).__name__}({', '.join([quoted(self.model), f'strategy={self.strategy!r}', *shown])})"

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
        requests = list(requests)
        try:
            return ranked_in_order(self.outcomes(requests), len(requests))
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
        try:
            yield from ranked_or_failed(self.outcomes(requests))
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

        def programs() -> Iterator[Program]:
            for index, request in enumerate(requests):
                names[index] = request.query_id
                yield self.program(request)

        total = len(requests) if isinstance(requests, Sized) else None
        for index, outcome in self.engine.outcomes(programs(), total):
            query_id = names.pop(index, "")
            yield index, replace(outcome, query_id=query_id) if isinstance(outcome, FailedRanking) else outcome

    def relevance(self, ranking: Ranking) -> tuple[float, ...] | None:
        """How probable it is that each candidate of a ranking is relevant, by the checkpoint's calibration.

        Args:
            ranking: one that this ranker made.

        Returns:
            Beside each of `ranking.best_first` a probability from 0 to 1, never rising; `None` where the checkpoint has
            no calibration of the strategy (see `r1ranker calibrate`) or one that was fitted under other `conditions`,
            or the ranking was not made to its end.
        """
        asks = STRATEGIES[self.strategy].asks
        return None if self.calibration is None else self.calibration.relevance_of(ranking, asks)

    def having(self, **changes: Any) -> Ranker:
        """A ranker with other options, windows or worked examples, on the same model, engine, cache and counters.

        Args:
            changes: fields of the strategy's options, such as `schedule="halving"`; `window_size`; `stride`;
                `thoughts`, `examples`, `example_kind`, `example_encoder`.

        Raises:
            InputError: if an option is unknown or makes no sense.
        """
        declared, worked = STRATEGIES[self.strategy], ("thoughts", "examples", "example_kind", "example_encoder")
        window = ("window_size", "stride", *worked)
        known = (*(each.name for each in fields(self.options)), *window)
        if unknown := [name for name in changes if name not in known]:
            raise InputError(f"{unknown[0]!r} can't be changed of an open ranker: use one of {', '.join(known)}")
        again = copy.copy(self)
        own = {name: value for name, value in changes.items() if name not in window}
        again.options = replace(self.options, **own)
        again.settings = self.settings.having(**{name: changes[name] for name in window if name in changes})
        _check_options(again.options, declared, again.settings.declared_backend, again.settings)
        _check_wording(again.options, declared, again.template)
        if again.settings != self.settings:
            again.window_size, again.stride = _window(again.settings, self._checkpoint)
        if any(name in changes for name in worked):
            again.examples = None if again.settings.thoughts is None else _examples(again.settings, declared)
            again.prompt = replace(self.prompt, examples=again.examples)
        again._take_calibration()
        return again

    def _take_calibration(self) -> tuple[str, ...]:
        """Takes the checkpoint's calibration if it holds under the conditions here; else returns what is different."""
        told, checkpoint = self.settings, self._checkpoint
        bank = None if self.examples is None else self.examples.bank.digest
        given = (self.model, STRATEGIES[self.strategy], self.options, told)
        self.conditions = resolved_conditions(*given, checkpoint, self.template, bank)
        fitted = checkpoint.calibration.get(self.strategy)
        # What lies with the weights is theirs, whatever their folder is called by now.
        moved = os.fspath(told.settings_from or self.model) == self.model
        unlike = () if fitted is None else fitted.differences(self.conditions, but="model" if moved else "")
        self.calibration = None if unlike else fitted
        return unlike

    def program(self, request: RankingRequest) -> Program:
        """The ranking program of a request, for callers with an engine of their own."""
        return STRATEGIES[self.strategy](
            request, self.prompt, window_size=self.window_size, stride=self.stride, options=self.options
        )


def _shown(value: object) -> str:
    plain = value is None or isinstance(value, str | int | float | Path)
    return quoted(value) if plain else f"<{type(value).__name__}>"


def prompt_limits(given: RankerSettings, checkpoint: CheckpointSettings) -> dict[str, Any]:
    """What a `Prompt` makes of passages and queries: the caller's limits, else the checkpoint's."""
    passage, query = given.max_passage_tokens, given.max_query_tokens
    return {
        "max_passage_tokens": checkpoint.max_passage_tokens if passage is None else passage,
        "max_query_tokens": checkpoint.max_query_tokens if query is None else query,
        "max_passage_words": given.max_passage_words,
        "repair_text": bool(given.repair_text),
    }


def resolved_conditions(
    model: str,
    strategy: Strategy,
    options: RankingOptions,
    given: RankerSettings,
    checkpoint: CheckpointSettings,
    template: PromptTemplate,
    bank: str | None,
) -> dict[str, Condition]:
    """The conditions of a ranker, opened or not, with the checkpoint's limits where the caller gives none."""
    window_size, stride = _window(given, checkpoint)
    limits = {
        "window_size": window_size,
        "stride": stride,
        **prompt_limits(given, checkpoint),
        "max_thought_tokens": _thought_tokens(given, checkpoint, template),
    }
    return conditions_of(model, strategy, options, given, template, limits, bank)


def _window(given: RankerSettings, checkpoint: CheckpointSettings) -> tuple[int, int]:
    """Window size and stride: a window smaller than the checkpoint's own still has to overlap with the next one."""
    size = checkpoint.window_size if given.window_size is None else given.window_size
    stride = checkpoint.stride if given.stride is None else given.stride
    if given.stride is None and (size < checkpoint.window_size or stride >= size):
        stride = min(stride, max(1, size // 2))
    check_window(size, stride)
    return size, stride


def template_of(given: RankerSettings, checkpoint: CheckpointSettings) -> PromptTemplate:
    """The given template, else the checkpoint's, else the project's."""
    if given.template is None:
        return checkpoint.template or load_template()
    return open_template(given.template) if isinstance(given.template, str | Path) else given.template


def _examples(given: RankerSettings, strategy: Strategy) -> ExampleChooser:
    """What chooses worked examples from the bank of thoughts."""
    assert given.thoughts is not None
    if given.example_kind not in EXAMPLE_KINDS:
        raise InputError(f"example_kind is {given.example_kind!r}: use one of {', '.join(EXAMPLE_KINDS)}")
    if given.examples < 1:
        raise InputError(f"examples is {given.examples}: give at least 1, or leave thoughts out")
    bank = read_bank(given.thoughts)
    if not any(example.asks == strategy.asks for example in bank.examples):
        raise InputError(
            f"bank {bank.path!r} holds no thoughts that fit the strategy {strategy.name!r}: build one of traces of "
            "that strategy, or leave thoughts out"
        )
    return ExampleChooser(bank, given.examples, given.example_kind, given.example_encoder)


def _thought_tokens(given: RankerSettings, checkpoint: CheckpointSettings, template: PromptTemplate) -> int:
    if given.max_thought_tokens is not None:
        return given.max_thought_tokens
    # What does not think needs no room for it, where the answer's form is ours to say.
    can = given.capabilities
    straight = not template.thinks and given.answers == "constrained" and can.constrains and can.reads_checkpoint
    return 0 if straight else checkpoint.max_thought_tokens


def settings_of(model: str, given: RankerSettings) -> CheckpointSettings:
    """The settings of a checkpoint, or of the one whose settings are to count."""
    reads = given.declared_backend.capabilities.reads_checkpoint
    if not reads and given.settings_from is None and not Path(model).is_dir():
        # A server's name for its model is not a hub name, and nobody's business but the server's.
        return CheckpointSettings()
    return read_settings(given.settings_from or model, given.revision)


def _check_options(
    options: RankingOptions, strategy: Strategy, backend: DeclaredBackend, given: RankerSettings
) -> None:
    """Says before a model is loaded that the strategy or the backend can't do what is asked of it."""
    check_options_of(strategy, options)
    needing = strategy.by_probabilities(options)
    for needed, capability, said, way_out in (
        (
            options.think != "always",
            "takes_thought",
            f"think={options.think!r} needs a backend that can be given a thought, and {backend.name!r} can't",
            "tell what it asks itself not to think (extra_body)",
        ),
        (
            options.judge_think != "always",
            "takes_thought",
            f"judge_think={options.judge_think!r} needs a backend that can be given a thought, and {backend.name!r} "
            "can't",
            "leave the option out",
        ),
        (
            strategy.asks == "likelihood",
            "scores",
            f"{strategy.name} goes by the log-probabilities of a given text, which {backend.name!r} does not tell",
            "another strategy",
        ),
        (
            needing,
            "probabilities",
            f"{needing} goes by the probabilities of the identifiers, which {backend.name!r} does not give",
            "leave the option out",
        ),
    ):
        if needed and not getattr(given.capabilities, capability):
            raise InputError(f"{said}: use the backend {_able(capability)}, or {way_out}")
    differs = given.capabilities.samples_differ or not isinstance(given.backend, str | DeclaredBackend)
    if not differs and not given.temperature and options.votes > 1 and options.vote_among == "thoughts":
        raise InputError(
            "vote_among='thoughts' needs thoughts that differ: give a temperature above 0, such as 0.7, or use "
            "vote_among='permutations'"
        )


def _check_wording(options: RankingOptions, strategy: Strategy, template: PromptTemplate) -> None:
    """Raises an InputError if a template has no words for what is asked with these options."""
    template.wording(strategy.asked_with(options).name, "passage")
    if options.vote_by == "judged":
        judging_template(template)


def _able(capability: str) -> str:
    able = []
    for each in BACKENDS.values():
        ways = [f" with {name}={value!r}" for (name, value), can in each.able_with.items() if getattr(can, capability)]
        if each.offered and (getattr(each.capabilities, capability) or ways):
            able.append(f"{each.name!r}{'' if getattr(each.capabilities, capability) else ways[0]}")
    return " or ".join(able)


def _warn_of_other_template(model: str, settings: CheckpointSettings, template: PromptTemplate, section: str) -> None:
    """Says that a checkpoint is asked with another prompt than it was trained on, for what this strategy asks."""
    own = settings.template
    if own is not None and settings.training and own.only(section).digest() != template.only(section).digest():
        logger.warning(
            "checkpoint %r was trained with the template %r (%s) and is asked with %r (%s): what it learned may not "
            "show. Leave template out to use its own, or train it again with this one (--template)",
            *(model, own.name, own.digest(), template.name, template.digest()),
        )
