"""The one resolver: what a name, a model, a strategy and arguments come to, whole and fit for another process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from r1ranker_ir.models.checkpoints import is_router
from r1ranker_ir.rankers.names import (
    NameChoiceError,
    given_model,
    is_family,
    is_registered,
    refuse_unknown,
    resolve,
    unknown_name,
)
from r1ranker_ir.rankers.settings import RankerSettings, sorted_arguments
from r1ranker_ir.rankers.systems import FAMILY, family_options, wording_notes
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.options import PUBLISHED, RankingOptions
from r1ranker_ir.types import Condition

if TYPE_CHECKING:
    from r1ranker_ir.rankers.ranker import Ranker


@dataclass(frozen=True)
class RankerSource:
    """A ranker that is not opened yet: a checkpoint or a server's name for it, and all that `Ranker` is told."""

    model: str
    strategy: str
    options: RankingOptions = PUBLISHED
    settings: RankerSettings = field(default_factory=RankerSettings)

    def open(self, *, progress: bool = False) -> Ranker:
        from r1ranker_ir.rankers.ranker import Ranker

        return Ranker(
            self.model, strategy=self.strategy, options=self.options, settings=self.settings, progress=progress
        )

    def notes(self) -> tuple[str, ...]:
        """What an opened ranker's `notes` say, without its model."""
        from r1ranker_ir.rankers.ranker import settings_of, template_of

        told = self.settings
        if told.system is None:
            return ()
        checkpoint = settings_of(self.model, told)
        return wording_notes(told.system, told.template, self.model, checkpoint, template_of(told, checkpoint))

    def conditions(self) -> dict[str, Condition]:
        """What an opened ranker's `conditions` say, without its model."""
        from r1ranker_ir.rankers.ranker import resolved_conditions, settings_of, template_of
        from r1ranker_ir.thoughts.bank import read_bank

        told = self.settings
        checkpoint = settings_of(self.model, told)
        bank = None if told.thoughts is None else read_bank(told.thoughts).digest
        declared, template = STRATEGIES[self.strategy], template_of(told, checkpoint)
        return resolved_conditions(self.model, declared, self.options, told, checkpoint, template, bank)

    def stated(self) -> dict[str, Any]:
        return {**self.options.stated(), **self.settings.stated()}


def ranker_source(
    model: str | os.PathLike[str], strategy: str, given: Mapping[str, Any] = MappingProxyType({})
) -> RankerSource:
    """The source of a ranker with arguments as `Ranker` takes them."""
    return RankerSource(os.fspath(model), strategy, *sorted_arguments(STRATEGIES.find(strategy), given))


def find_ranker(
    name: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    strategy: str | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> RankerSource:
    """Finds what to run for a name: a registered one, a published system's, or with `strategy` any model.

    `model` is a checkpoint in place of the name's own; `given`, further arguments of `Ranker`, win over a system's
    settings. A NameChoiceError if name, model and strategy do not go together.
    """
    said = os.fspath(name)
    if is_registered(said):
        checkpoint, own = resolve(said, model)
    elif is_family(said):
        member = FAMILY[said.lower()]
        if model is None and member.checkpoint is None:
            raise NameChoiceError(f"{said!r} works with any chat model: name one as model", "model")
        checkpoint, own = given_model(model) or str(member.checkpoint), member.strategy
        given = family_options(said.lower(), given)
    elif is_router(said):
        checkpoint, own, given = said, strategy or "direct", {"backend": "router", **given}
    else:
        checkpoint, own = said, _strategy_of(said, model, strategy)
    if strategy not in (None, own):
        raise NameChoiceError(f"{said!r} is the {own} strategy: leave strategy={strategy!r} out", "strategy")
    return ranker_source(checkpoint, own, given)


def _strategy_of(said: str, model: str | os.PathLike[str] | None, strategy: str | None) -> str:
    """How to use a model that is named itself."""
    if not said.strip():
        raise NameChoiceError("the model's name is blank: give a registered name, a Hugging Face name or a folder")
    refuse_unknown(said)
    if strategy is None:
        raise NameChoiceError(
            f"{unknown_name(said)}. To use a model of that name, add a strategy: {', '.join(STRATEGIES)}"
        )
    if model is not None and os.fspath(model) != said:
        raise NameChoiceError(
            f"two models were given: reranker {said!r} names one already, so leave model={os.fspath(model)!r} out, or "
            f"use it with the name 'r1ranker-{strategy}'",
            "model",
        )
    return strategy


def checkpoint_of(name: str) -> str:
    """The checkpoint of a registered name or a published system; other names are checkpoints themselves."""
    known = not os.path.isdir(name) and (is_registered(name) or is_family(name))
    return find_ranker(name).model if known else name


def open_ranker(
    name: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    strategy: str | None = None,
    **given: Any,
) -> Ranker:
    """Finds what to run for a name, as `find_ranker` does, and loads its model."""
    return find_ranker(name, model, strategy, given).open()
