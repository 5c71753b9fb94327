"""Options that several verbs take and that are not a dataclass's fields, and choices that are declared elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.option_fields import option
from r1ranker_ir.prompts.sections import known_sections
from r1ranker_ir.retrieval.first_stages import FIRST_STAGES, form_of
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import COMPARED

CACHE_PLACE = "the environment variable R1RANKER_CACHE, else r1ranker-ir/completions.sqlite in the user's cache folder"
CORPUS = option(
    ...,
    "A folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv or qrels.trec), demo-collection, or an "
    "ir_datasets id.",
    group="What",
)
JUDGED_CORPUS = option(
    ...,
    "Whose judgments count: an ir_datasets id; a BEIR folder; or ranking requests (.jsonl) with their gains.",
    group="What",
)
ONLY_RUN_QUERIES = option(
    False, "Count only the judged queries that all runs have; else one that a run lacks counts as 0.", group="What"
)
RUN_OUTPUT = option(..., "Run file to write, gzip if it ends in .gz; - for standard output.", group="Output")
RUN = option(..., "First-stage TREC run, gzip if it ends in .gz; - for standard input.", group="What")
RERANK_DEPTH = option(100, "Documents to rerank and write per query, from the top.", group="What", least=1)
MISSING = option("error", "What to do about documents that the corpus lacks; they are named.", group="What")
ON_ERROR = option("fail", "What to do about what can't be used: stop with an error, or leave out and count it.")
SHUFFLE = option(
    None, "Shuffle each query's documents, cut at --depth.", unset="keep their order", group="What", metavar="SEED"
)


def _one_of(names: Iterable[str]) -> Any:
    """The type of an argument that takes these names alone."""
    return Literal.__getitem__(tuple(names))


if TYPE_CHECKING:
    SamplingName = str
    SectionName = str
else:
    SamplingName = _one_of([*(name for name, each in STRATEGIES.items() if each.asks in COMPARED), "windows"])
    """What training samples are made for: a strategy that compares candidates, or windows over a run."""
    SectionName = _one_of(known_sections())
    """A section of a template."""


def strategies_help() -> str:
    """What the strategies do, as one sentence."""
    text = listed([strategy.summary for strategy in STRATEGIES.values() if strategy.summary], "; ")
    return f"{text[0].upper()}{text[1:]}."


def first_stages_help() -> str:
    """What searches, as the end of a sentence."""
    return listed([f"{form_of(kind)}, {kind.summary}" for kind in FIRST_STAGES.values()], "; ") + "."


def listed(names: Iterable[str], comma: str = ", ") -> str:
    """Names or phrases in a sentence."""
    each = list(names)
    return f"{comma.join(each[:-1])}{';' if comma == '; ' else ''} or {each[-1]}"


def measures_option(default: str | None, **offer: Any) -> Any:
    said = "Measures as ir_measures writes them, split by spaces: RR(rel=2)@10, P@5, R@100, …"
    return option(default, said, group="What", **offer)
