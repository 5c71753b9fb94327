"""YAML as plain data; what reads it is an optional dependency."""

from __future__ import annotations

import functools
import re
from typing import Any

from r1ranker_ir.errors import DataFileError, missing_extra
from r1ranker_ir.files.described import described
from r1ranker_ir.files.plain_data import DEEPEST, check_plain

_MOST_UNFOLDED = 2**22
"""How many characters a document may hold once its aliases are written out; settings hold thousands."""

_MERGE = "tag:yaml.org,2002:merge"
# Longer than the characters and marks that the parser quotes of its own accord.
_QUOTED = re.compile(r"'[^']{9,}'|\"[^\"]{9,}\"")


def parse_yaml(text: str, where: str, *, feature: str, extra: str) -> Any:
    """Parses YAML; tags that would make anything but plain data are refused."""
    try:
        import yaml
    except ImportError as error:
        raise missing_extra(feature, extra, error) from error
    try:
        content = yaml.load(text, _loader())
        check_plain(content)
    except yaml.YAMLError as error:
        problem = _problem(error)
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as error:
        problem = str(error)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        problem = f"a value does not fit its tag ({type(error).__name__})"
    else:
        return content
    # Outside of the clause: the parser's own error would stay its context, and shows the line, which may hold a key.
    raise DataFileError(f"{where} is not valid YAML: {problem}")


@functools.cache
def _loader() -> Any:
    """The safe loader of PyYAML, with limits on aliases and depth, and with errors that name the line."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.depth = self.unfolded = 0
            self.sizes: dict[int, int] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            line = self.peek_event().start_mark.line + 1
            is_alias, before = self.check_event(yaml.AliasEvent), self.unfolded
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"line {line}: nested too deeply")
            node = super().compose_node(parent, index)
            self.depth -= 1
            if not is_alias:
                self.unfolded += 1 + (len(node.value) if isinstance(node.value, str) else 0)
                self.sizes[id(node)] = self.unfolded - before
            elif id(node) in self.sizes:
                self.unfolded += self.sizes[id(node)]
            else:
                raise ValueError(f"line {line}: an alias stands inside what it names, so it has no end")
            if self.unfolded > _MOST_UNFOLDED:
                raise ValueError(f"line {line}: its aliases unfold to more than {_MOST_UNFOLDED:,} characters")
            return node

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.tag != _MERGE:
                    if (key.tag, key.value) in seen:
                        line = key.start_mark.line + 1
                        raise ValueError(f"line {line}: the key {key.value[:60]!r} is given twice: keep one")
                    seen.add((key.tag, key.value))
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            # Constructors of dates, numbers and truth values raise what int(), datetime() and dictionaries raise.
            except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
                if isinstance(error, _NotOfItsTypeError):
                    raise
                kind, shown = node.tag.rpartition(":")[2], described(node.value, shows_words=True)
                line = node.start_mark.line + 1
                raise _NotOfItsTypeError(f"line {line}: {shown} is not a value of type {kind}") from error

    return Loader


class _NotOfItsTypeError(ValueError):
    """A value does not fit its tag."""


def _problem(error: Any) -> str:
    """What the parser says, and where, without the text that it stands at."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    told = [getattr(error, name, None) for name in ("context", "problem")]
    words = ", ".join(" ".join(each.split()) for each in told if each) or type(error).__name__
    return place + _QUOTED.sub("'…'", words)
