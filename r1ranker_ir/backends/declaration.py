"""What a backend says of itself, without what it imports: everything else that knows backends derives from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do; by default nothing but answer in text.

    Args:
        constrains: its answers are chosen among a call's identifiers.
        probabilities: its answers have probabilities.
        takes_thought: it can be given a thought, or none, in place of one of the model's own.
        reads_checkpoint: the model is a checkpoint, a folder or a hub's name, that it runs in this process; else it
            calls its models as it likes.
        samples_differ: calls that ask the same are answered differently without a temperature.
        samples: it takes a temperature and a seed.
        scores: it tells the log-probabilities of a call's `continuation`, where it has one.
        leaves_out: options that `None` leaves out of its requests.
    """

    constrains: bool = False
    probabilities: bool = False
    takes_thought: bool = False
    reads_checkpoint: bool = False
    samples_differ: bool = False
    samples: bool = False
    scores: bool = False
    leaves_out: tuple[str, ...] = ()


def _batch_size(checkpoint: str, given: int | None, of_checkpoint: int) -> dict[str, Any]:
    return {"batch_size": of_checkpoint if given is None else given}


@dataclass(frozen=True)
class DeclaredBackend:
    """A way to run a model, by name.

    Args:
        name: how it is asked for.
        opens: finds its class, whose dependencies are imported only then; called with the model and its options.
        capabilities: what it can do.
        able_with: what it can do in place of `capabilities` where an option has a value.
        summary: what it does, in a few words for `--help`.
        offered: the command line offers it.
        own: options that others do not take, and what they are for, as in "runs a model on a device".
        options_of: what it is told where the caller leaves it out, by checkpoint, batch size given, and batch size that
            the checkpoint likes.
        calls_at_once: how many calls it likes to get at once; `None` where the checkpoint says it.
        environment: options that are read from the environment where they are not given: option to variable.
        libraries: distributions whose versions count for its answers.
        listed: its place in lists of backends.
    """

    name: str
    opens: Callable[[], Any] = field(hash=False)
    capabilities: Capabilities = Capabilities()
    able_with: Mapping[tuple[str, Any], Capabilities] = field(default_factory=dict, hash=False)
    summary: str = ""
    offered: bool = True
    own: Mapping[str, str] = field(default_factory=dict, hash=False)
    options_of: Callable[[str, int | None, int], dict[str, Any]] = field(default=_batch_size, hash=False)
    calls_at_once: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    libraries: tuple[str, ...] = ()
    listed: int = 100

    def capabilities_with(self, options: Mapping[str, Any]) -> Capabilities:
        found = (able for (name, value), able in self.able_with.items() if options.get(name) == value)
        return next(found, self.capabilities)
