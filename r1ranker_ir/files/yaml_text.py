"""YAML as plain data; what reads it is an optional dependency."""

from __future__ import annotations

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
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_aliases(node)
            _check_keys(node)
            content = _construct(loader, node)
        finally:
            loader.dispose()
        check_plain(content)
    except yaml.YAMLError as error:
        problem = _problem(error)
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as error:
        problem = str(error)
    else:
        return content
    # Outside of the clause: the parser's own error would stay its context, and shows the line, which may hold a key.
    raise DataFileError(f"{where} is not valid YAML: {problem}")


def _construct(loader: Any, root: Any) -> Any:
    """Makes the data, scalar by scalar first, so that one that does not fit its tag is named with its line."""
    for node in _nodes(root):
        if not isinstance(node.value, str) or node.tag == _MERGE:
            continue
        try:
            loader.construct_object(node, deep=True)
        # Constructors of dates, numbers and truth values raise what int(), datetime() and dictionaries raise.
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            kind, shown = node.tag.rpartition(":")[2], described(node.value, shows_words=True)
            raise ValueError(f"line {node.start_mark.line + 1}: {shown} is not a value of type {kind}") from error
    try:
        return loader.construct_document(root)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"a value does not fit its tag ({type(error).__name__})") from error


def _nodes(root: Any) -> list[Any]:
    """All nodes, each once, however many aliases name it."""
    found: dict[int, Any] = {}
    left = [root]
    while left:
        node = left.pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        left.extend(_inner(node))
    return list(found.values())


def _inner(node: Any) -> list[Any]:
    """The nodes inside a node; a mapping's keys and values."""
    if isinstance(node.value, str):
        return []
    return [each for entry in node.value for each in (entry if isinstance(entry, tuple) else (entry,))]


def _check_aliases(root: Any) -> None:
    """Refuses a document that its aliases make endless, or larger than any settings are."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def measure(node: Any, depth: int) -> int:
        key = id(node)
        line = node.start_mark.line + 1
        if key in open_nodes:
            raise ValueError(f"line {line}: an alias stands inside what it names, so it has no end")
        if depth > DEEPEST:
            raise ValueError(f"line {line}: nested too deeply")
        if key not in sizes:
            open_nodes.add(key)
            sizes[key] = 1 + (len(node.value) if isinstance(node.value, str) else 0)
            sizes[key] += sum(measure(each, depth + 1) for each in _inner(node))
            open_nodes.discard(key)
            if sizes[key] > _MOST_UNFOLDED:
                raise ValueError(f"line {line}: its aliases unfold to more than {_MOST_UNFOLDED:,} characters")
        return sizes[key]

    measure(root, 0)


def _check_keys(root: Any) -> None:
    """Refuses a mapping that gives a key twice, of which only the last one would count."""
    for node in _nodes(root):
        seen: set[tuple[str, str]] = set()
        for entry in node.value if not isinstance(node.value, str) else ():
            if not isinstance(entry, tuple) or not isinstance(entry[0].value, str):
                continue
            if entry[0].tag == _MERGE:
                continue
            key = entry[0].tag, entry[0].value
            if key in seen:
                line = entry[0].start_mark.line + 1
                raise ValueError(f"line {line}: the key {entry[0].value[:60]!r} is given twice: keep one")
            seen.add(key)


def _problem(error: Any) -> str:
    """What the parser says, and where, without the text that it stands at."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    told = [getattr(error, name, None) for name in ("context", "problem")]
    words = ", ".join(" ".join(each.split()) for each in told if each) or type(error).__name__
    return place + _QUOTED.sub("'…'", words)
