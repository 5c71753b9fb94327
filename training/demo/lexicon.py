"""The words of the embedded model's generated data, read from the Python installation's own documentation."""

from __future__ import annotations

import ast
import pydoc_data.topics
import re
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# Words that carry no topic: the thoughts skip them when they walk through a query. `doe` is what is left of `does`.
STOP_WORDS = frozenset(
    "a about all also am an and any are as at be been being between but by can could define definition describe did "
    "difference do does doing each every find for from get give had has have having how i if in into is it its just "
    "know like long make many may me mean meaning most much my near need no not of often on one or other our should "
    "doe show so some such take tell than that the their them then there these they thing this those to up us use used "
    "using very was we were what when where which who whom whose why will with would you your".split()
)

COMMON_WORDS = 1000


@dataclass(frozen=True)
class Lexicon:
    """Words to write lists with."""

    prose: tuple[str, ...]
    vocabulary: tuple[str, ...]

    @property
    def common(self) -> frozenset[str]:
        """The thousand most frequent content words: to find one of them says less."""
        return frozenset(self.vocabulary[:COMMON_WORDS])


def docstrings(path: Path) -> list[str]:
    """The docstrings of a Python file; none of one that can't be parsed."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError):
        return []
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [doc for node in ast.walk(tree) if isinstance(node, nodes) and (doc := ast.get_docstring(node))]


def read_documentation() -> str:
    """Collects the language reference that `help()` shows and the docstrings of the standard library's modules."""
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        texts.extend(docstrings(path))
    return "\n".join(texts)


def words_of(text: str) -> list[str]:
    """The words of a text, without the `s` of plurals."""
    return [strip_plural(word) for word in re.findall(r"[a-z0-9]+", text.lower())]


def build_lexicon(text: str) -> Lexicon:
    """Turns running text into words as the embedded model's tokenizer normalises them."""
    prose = tuple(words_of(text))
    counts = Counter(word for word in prose if word not in STOP_WORDS and len(word) > 2 and not word.isdigit())
    return Lexicon(prose, tuple(sorted(counts, key=lambda word: (-counts[word], word))))


PLURAL = r"(?<=[a-z][a-z][^ius\W\d_])s\b"
"""A plural's last letter, as a pattern: the tokenizer drops it, so that `fleas` matches `flea`."""


def strip_plural(word: str) -> str:
    """Drops a plural's `s` from a lower-case word, as the tokenizer's normaliser does."""
    return re.sub(PLURAL, "", word)
