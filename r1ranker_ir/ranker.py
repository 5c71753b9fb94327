"""A model, a strategy, a prompt and an engine put together: what every caller uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from r1ranker_ir.backends import (
    BACKENDS,
    DEFAULT_BACKEND,
    DeclaredBackend,
    backend_in,
    check_options,
    declared_backend,
    open_backend,
)
from r1ranker_ir.backends.base import Backend
from r1ranker_ir.cache import CompletionsCache, open_cache
from r1ranker_ir.checkpoints import CheckpointSettings, read_settings
from r1ranker_ir.engine import Engine, RunSummary
from r1ranker_ir.errors import CheckpointError, InputError, R1RankerError
from r1ranker_ir.family import FAMILY, wording_notes
from r1ranker_ir.outcomes import FailedRanking, Outcome
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.prompts.prompt import Prompt, PromptTemplate
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.registry import is_registered, refuse_unknown
from r1ranker_ir.signs import warnings_of
from r1ranker_ir.strategies import STRATEGIES, Strategy
from r1ranker_ir.strategies.checks import check_options_of
from r1ranker_ir.strategies.options import Layout, RankingOptions, Sort, Think, VoteAmong, VoteBy
from r1ranker_ir.strategies.windows import check_window
from r1ranker_ir.types import Program, Ranking, RankingRequest

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")

Answers = Literal["constrained", "published"]
ANSWERS: tuple[Answers, ...] = ("constrained", "published")


class Ranker:
    """Ranks requests with one model and one strategy.

    What is left at `None` is taken from the checkpoint's `r1ranker.json`, or from the project's defaults.

    Args:
        model: a checkpoint: folder or hub name; for the `openai` backend the name that the server knows.
        strategy: `iterative`, `direct`, `setwise` or `pointwise`.
        backend: `transformers`, `openai` or `oracle`.
        template: a prompt template, or its file: the project's TOML, or that of Rank-R1, ReasonRank or rank_llm.
        answers: `constrained`: chosen among the candidates, where the backend can; or `published`: written freely, and
            read as the template's own system reads them.
        settings_from: the folder or hub name whose `r1ranker.json` counts, where `model` is only a server's name.
        window_size: how many candidates a prompt may hold.
        stride: how many candidates leave a window, or how far it moves.
        max_passage_tokens: what is shown of a passage, in the model's tokens.
        max_passage_words: what is shown of a passage, in words that white space separates; before its tokens count.
        repair_text: repair the characters of queries and passages (mojibake, HTML entities) with ftfy, as some systems
            do.
        max_query_tokens: what is shown of a query, in the model's tokens; of a user's choices, the latest.
        max_thought_tokens: how long the model may think, in tokens.
        batch_size: how many calls go to the backend at once; on a server, requests under way.
        max_repair_rate: the share of answers that may need repair before a run is stopped.
        progress: show a progress bar on a terminal.
        schedule: how many an elimination excludes at a step, `one` as published; see `schedules.parse_schedule`.
        layout: what an elimination's prompts show, `shrink` as published, or `mark`; see `RankingOptions`.
        think: `always` as published, `first` or `never`.
        top_k: how many of the best are ordered; those below keep the first stage's order. `None` for all.
        show_best_first: let an elimination's later prompts show the best first.
        sort: how answers become an order: of `direct`, sliding `windows` or a `tournament`; of `setwise`, a `heap` or
            `bubble` sort; `None` for the first. Each call shows `window_size` candidates at most.
        shuffle_seed: of the order in which a `setwise` call shows its candidates; `None` for no shuffling.
        votes: how many calls decide each answer together.
        vote_among: what differs between them: `permutations` of the candidates, or sampled `thoughts`.
        vote_by: how they are counted, by `majority` or by `borda` count.
        max_calls: how many calls a ranking may make; when they are used up, it is the best that is known by then.
        max_tokens: how many tokens the calls of a ranking may read and write together.
        cache: where answers are kept between runs and looked for before the model is asked: a `CompletionsCache`, or
            the file of one; `None` for none.
        system: the published system that is meant, one of `family.FAMILY`, whose settings the other arguments hold (see
            `family.family_options`): where its wording is not the published one, `notes` and a warning say so.
        backend_options: what else the backend takes, such as `device`, `dtype`, `base_url`, `temperature`, `seed`.

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
        backend: str | Backend | DeclaredBackend = DEFAULT_BACKEND,
        template: PromptTemplate | str | Path | None = None,
        answers: Answers = "constrained",
        settings_from: str | os.PathLike[str] | None = None,
        window_size: int | None = None,
        stride: int | None = None,
        max_passage_tokens: int | None = None,
        max_passage_words: int | None = None,
        repair_text: bool = False,
        max_query_tokens: int | None = None,
        max_thought_tokens: int | None = None,
        batch_size: int | None = None,
        max_repair_rate: float = 0.2,
        progress: bool = False,
        schedule: str | None = None,
        layout: Layout = "shrink",
        think: Think = "always",
        top_k: int | None = None,
        show_best_first: bool = False,
        sort: Sort | None = None,
        shuffle_seed: int | None = 0,
        votes: int = 1,
        vote_among: VoteAmong = "permutations",
        vote_by: VoteBy = "majority",
        max_calls: int | None = None,
        max_tokens: int | None = None,
        cache: CompletionsCache | str | os.PathLike[str] | None = None,
        system: str | None = None,
        **backend_options: Any,
    ) -> None:
        declared = STRATEGIES.resolve(strategy)
        runs_on = declared_backend(backend)
        can = runs_on.capabilities
        if can.reads_checkpoint:
            _refuse_name(os.fspath(model))
        own = {name: backend_options.pop(name) for name in declared.more_options if name in backend_options}
        check_options(backend, backend_options, Ranker.__init__.__annotations__)
        if answers not in ANSWERS:
            raise InputError(f"answers is {answers!r}: use {' or '.join(ANSWERS)}")
        self.model = os.fspath(model)
        self.strategy = declared.name
        self.options = declared.options(
            schedule=schedule,
            layout=layout,
            think=think,
            top_k=top_k,
            show_best_first=show_best_first,
            sort=sort,
            shuffle_seed=shuffle_seed,
            votes=votes,
            vote_among=vote_among,
            vote_by=vote_by,
            max_calls=max_calls,
            max_tokens=max_tokens,
            **own,
        )
        _check_options(self.options, declared, runs_on)
        sampled = can.samples_differ or not isinstance(backend, str | DeclaredBackend)
        if not sampled and votes > 1 and vote_among == "thoughts" and not backend_options.get("temperature"):
            raise InputError(
                "vote_among='thoughts' needs thoughts that differ: give a temperature above 0, such as 0.7, or use "
                "vote_among='permutations'"
            )
        settings = _settings_of(self.model, runs_on, {"settings_from": settings_from, **backend_options})
        if template is None and declared.name not in settings.strategies and not declared.section.user:
            raise CheckpointError(
                f"checkpoint {self.model!r} does not follow the strategy {declared.name!r}: its r1ranker.json names "
                f"{', '.join(settings.strategies)}. Choose one of these, or pass a template of your own"
            )
        # Before the model: a cache that can't be used is said without having to wait for the weights.
        kept = cache if cache is None or isinstance(cache, CompletionsCache) else open_cache(cache)
        self.window_size = window_size if window_size is not None else settings.window_size
        if stride is None:
            stride = settings.stride
            # A window smaller than the checkpoint's own still has to overlap with the next one.
            if self.window_size < settings.window_size or stride >= self.window_size:
                stride = min(stride, max(1, self.window_size // 2))
        self.stride = stride
        check_window(self.window_size, self.stride)
        self.template: PromptTemplate
        if template is None:
            self.template = settings.template or load_template()
        else:
            self.template = open_template(template) if isinstance(template, str | Path) else template
            if not declared.is_worded_by(self.template):
                raise InputError(
                    f"template {self.template.name!r} has no section [{declared.section.name}]: add one, or use the "
                    f"strategy {' or '.join(self.template.wordings)}"
                )
            _warn_of_other_template(self.model, settings, self.template, declared.section.name)
        self.system = system
        self.notes = wording_notes(system, self.model, self.template, own=is_own_wording(template, settings))
        for note in self.notes:
            logger.warning("%s", note)
        self.template.wording(declared.asked_with(self.options).name, "passage")
        if max_thought_tokens is None:
            # What does not think needs no room for it, where the answer's form is ours to say.
            straight = not self.template.thinks and answers == "constrained" and can.constrains and can.reads_checkpoint
            max_thought_tokens = 0 if straight else settings.max_thought_tokens
        if isinstance(backend, str | DeclaredBackend):
            known = os.fspath(settings_from or self.model)
            options = runs_on.options_of(known, batch_size, settings.batch_size) | backend_options
            self.backend = open_backend(backend, self.model, max_thought_tokens=max_thought_tokens, **options)
        else:
            self.backend = backend
        passage_tokens = settings.max_passage_tokens if max_passage_tokens is None else max_passage_tokens
        query_tokens = settings.max_query_tokens if max_query_tokens is None else max_query_tokens
        self.prompt = Prompt(
            self.template,
            self.backend,
            max_passage_tokens=passage_tokens,
            max_query_tokens=query_tokens,
            published=answers == "published",
            max_passage_words=max_passage_words,
            repair_text=repair_text,
        )
        self._said: set[str] = set()
        self.engine = Engine(self.backend, max_repair_rate=max_repair_rate, progress=progress, cache=kept)

    @property
    def summary(self) -> RunSummary:
        """Queries, calls, tokens, repairs and seconds so far."""
        return self.engine.summary

    def rank(self, requests: Iterable[RankingRequest]) -> list[Ranking]:
        """Ranks requests, all of them through the engine together.

        Args:
            requests: queries with their candidates.

        Returns:
            One ranking a request, in the requests' order.

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
        """Logs what speaks against the model's ranking anything, in all that it has ranked so far; each thing once.

        `rank` and `stream` do so at their end.
        """
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
            "r1ranker_ir.registry.resolve says of it, a checkpoint and a strategy"
        )


@dataclass(frozen=True)
class _Counted(Generic[_Item]):
    """Things that are made one by one, and how many there will be: what the engine's progress bar needs."""

    items: Iterable[_Item]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[_Item]:
        return iter(self.items)


def notes_unopened(model: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """What `Ranker.notes` would say, without a model in memory.

    Args:
        model: as for `Ranker`.
        options: further arguments of `Ranker`.

    Returns:
        Sentences; none where there is nothing to say.

    Raises:
        InputError: if the template can't be read.
        CheckpointError: if the checkpoint's settings can't be read.
    """
    system, given = options.get("system"), options.get("template")
    if system is None:
        return ()
    settings = _settings_of(model, backend_in(options), options)
    template = (settings.template or load_template()) if given is None else given
    opened = open_template(template) if isinstance(template, str | Path) else template
    return wording_notes(system, model, opened, own=is_own_wording(given, settings))


def _settings_of(model: str, backend: DeclaredBackend, options: Mapping[str, Any]) -> CheckpointSettings:
    settings_from = options.get("settings_from")
    if not backend.capabilities.reads_checkpoint and settings_from is None and not Path(model).is_dir():
        # A server's name for its model is no hub name, and nobody's business but the server's.
        return CheckpointSettings()
    return read_settings(settings_from or model, options.get("revision"))


def is_own_wording(template: PromptTemplate | str | Path | None, settings: CheckpointSettings) -> bool:
    """Whether a wording is the checkpoint's or the caller's: not the default one, nor one that stands in for it.

    Args:
        template: what the caller has given.
        settings: the checkpoint's.

    Returns:
        Whether it is.
    """
    if template is None:
        own = settings.template
        return bool(settings.training) or (own is not None and own.digest() != load_template().digest())
    stand_ins = [each.template for each in FAMILY.values() if each.template]
    return not (isinstance(template, str | Path) and Path(template) in stand_ins)


def _check_options(options: RankingOptions, strategy: Strategy, backend: DeclaredBackend) -> None:
    """Says before a model is loaded that the strategy or the backend can't do what is asked of it."""
    check_options_of(strategy, options)
    can = backend.capabilities
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


def _able(capability: str) -> str:
    able = [each.name for each in BACKENDS.values() if each.offered and getattr(each.capabilities, capability)]
    return " or ".join(map(repr, able))


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
