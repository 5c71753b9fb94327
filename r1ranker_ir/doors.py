"""Open doors: what the package offers by name, one declaration each, and what installed packages add to it."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, TypeVar

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

logger = logging.getLogger(__name__)


class Declared(Protocol):
    """What can be declared, under a name; the lowest `listed` comes first in lists, equals by name."""

    @property
    def name(self) -> str: ...

    @property
    def listed(self) -> int: ...


T = TypeVar("T", bound=Declared)
V = TypeVar("V")


class Derived(Mapping[str, V]):
    """What is made of declarations, by name; made anew each time, since more may have been added."""

    def __init__(self, make: Callable[[], Mapping[str, V]]) -> None:
        self._make = make

    def __getitem__(self, name: str) -> V:
        return self._make()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make())

    def __len__(self) -> int:
        return len(self._make())


class Door(Mapping[str, T]):
    """Declarations by name, found when the first one is asked for.

    The package's own are values of class `kind` in the modules of the package `within`; an installed package names its
    own as entry points of `group`; and a program may `add` some for itself. Errors call them by `noun`.
    """

    def __init__(self, kind: type[T], group: str, within: str, noun: str) -> None:
        self._kind = kind
        self._group = group
        self._within = within
        self._noun = noun
        self._found: dict[str, T] = {}
        self._added: set[str] = set()
        self._complete = False
        self._loading = False
        self._changes = 0
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __contains__(self, name: object) -> bool:
        # Whatever was read from a file: a list is not a name, and can't be looked up.
        return isinstance(name, str) and name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def find(self, name: object) -> T:
        """Finds a declaration; an InputError says which there are."""
        if name not in self or not isinstance(name, str):
            raise InputError(f"{self._noun} is {quoted(name)}: use one of {', '.join(self)}")
        return self[name]

    def resolve(self, given: str | T) -> T:
        """As `find`; a declaration is added, so that it has its name from now on."""
        if isinstance(given, self._kind):
            self.add(given)
            return given
        return self.find(given)

    def add(self, declared: T) -> None:
        """Makes a declaration known in this process, in place of one of that name that was added before.

        An InputError if the package or an installed one has another declaration of that name.
        """
        with self._lock:
            taken = self._all().get(declared.name)
            if taken == declared:
                return
            if taken is not None and declared.name not in self._added:
                raise InputError(f"{self._noun} {declared.name!r}: the name is taken, give it another one")
            self._added.add(declared.name)
            self._changes += 1
            self._found = self._sorted({**self._found, declared.name: declared})

    def forget(self, name: str) -> None:
        """Takes back what was added under a name."""
        with self._lock:
            if name in self._added:
                self._added.remove(name)
                self._changes += 1
                self._found = {known: each for known, each in self._found.items() if known != name}

    @property
    def changes(self) -> int:
        """How often something was added or taken back, for those who remember what they made of the declarations."""
        return self._changes

    def _all(self) -> Mapping[str, T]:
        if not self._complete:
            # Other threads wait here. What is being loaded may ask for what there is: it finds the declarations so far.
            with self._lock:
                if not (self._loading or self._complete):
                    self._load()
        return self._found

    def _load(self) -> None:
        self._loading = True
        try:
            own = self._own()
            self._found = self._sorted(own)
            self._found = self._sorted({**self._from_entry_points(own), **own})
            self._complete = True
        finally:
            self._loading = False

    def _own(self) -> dict[str, T]:
        package = importlib.import_module(self._within)
        names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
        modules = [importlib.import_module(f"{self._within}.{name}") for name in names]
        values = [value for module in modules for value in vars(module).values()]
        return {value.name: value for value in values if isinstance(value, self._kind)}

    def _from_entry_points(self, own: Mapping[str, T]) -> dict[str, T]:
        found: dict[str, T] = {}
        for point in sorted(entry_points(group=self._group), key=lambda point: (point.name, point.value)):
            try:
                declared = self._loaded(point)
                if declared.name in own or declared.name in found:
                    raise InputError("the name is taken")
            except Exception as error:
                # Whatever another package raises when it is imported must not end what does not need it.
                told = f"is left out: {error}"
                if not isinstance(error, InputError):
                    told = f"can't be loaded: {type(error).__name__}: {error}"
                logger.warning("the %s %r (%s) %s", self._noun, point.name, point.value, told)
            else:
                found[declared.name] = declared
        return found

    def _loaded(self, point: EntryPoint) -> T:
        """What an entry point names."""
        declared = point.load()
        if not isinstance(declared, self._kind):
            raise InputError(f"it must be a {self._kind.__name__}, and is a {type(declared).__name__}")
        return declared

    @staticmethod
    def _sorted(found: Mapping[str, T]) -> dict[str, T]:
        return dict(sorted(found.items(), key=lambda entry: (entry[1].listed, entry[0])))
