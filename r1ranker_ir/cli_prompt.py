"""The verb `r1ranker prompt show`: a template with a query and candidates filled in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from r1ranker_ir.errors import InputError

if TYPE_CHECKING:
    from r1ranker_ir.prompts.prompt import Prompt, PromptTemplate
    from r1ranker_ir.types import Call, Message, RankingRequest

prompt = typer.Typer(help="Look at prompts and their templates.", no_args_is_help=True, rich_markup_mode=None)

_QUERY = "how high can a flea jump"
_DOCUMENTS = (
    "Most fleas clear about eighteen centimetres from a standing start.",
    "A kettle boils earlier on a mountain than by the sea.",
    "Cats pick up fleas in long grass.",
)


@dataclass
class _NoLimits:
    """A model of which nothing is known: any length, and no control tokens."""

    context_length: int | None = None
    answer_reserve: int = 0
    control_tokens: tuple[str, ...] = ()

    def count_tokens(self, text: str) -> int:
        """Counts words."""
        return len(text.split())

    def cut_text(self, text: str, max_tokens: int) -> str:
        """Cuts to words."""
        return " ".join(text.split()[:max_tokens])

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Counts words."""
        return sum(self.count_tokens(message.content) for message in messages)


class _OfTokenizer(_NoLimits):
    """A model of which the tokenizer is known, with its chat template and the marks that no text may hold.

    Args:
        tokenizer: name or folder.
    """

    def __init__(self, tokenizer: str) -> None:
        from r1ranker_ir.backends.tokens import TokenizerCounts

        self._counts = TokenizerCounts(tokenizer)
        super().__init__(control_tokens=self._counts.control_tokens)

    def rendered(self, call: Call, *, published: bool) -> str:
        """The prompt as the model gets it."""
        return self._counts.rendered(call.messages, thinks=None if published else call.thinks)


@prompt.callback()
def about_prompts() -> None:
    """Keeps `show` a word of its own while it is the only verb."""


@prompt.command()
def show(
    template: Annotated[
        Path | None,
        typer.Argument(
            help="Template file: the project's own TOML, Rank-R1's or ReasonRank's, or rank_llm's YAML.",
            show_default="the project's own template",
        ),
    ] = None,
    section: Annotated[
        Literal["iterative", "mark", "direct", "setwise", "pointwise"] | None,
        typer.Option(help="What is asked for, of a template that has several.", show_default="the first it has"),
    ] = None,
    query: Annotated[str, typer.Option(help="The query to fill in.")] = _QUERY,
    document: Annotated[
        list[str] | None,
        typer.Option("--document", help="A candidate to fill in; may be given again.", show_default="three short ones"),
    ] = None,
    task: Annotated[Literal["passage", "item", "model"], typer.Option(help="What the candidates are.")] = "passage",
    published: Annotated[
        bool,
        typer.Option("--published", help="As its own system sends it, brackets in passages included."),
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Show what the chat template of this model, by name or folder, makes of it, too."),
    ] = None,
    format_: Annotated[
        Literal["text", "json"], typer.Option("--format", help="Text to read, or messages as JSON.")
    ] = "text",
) -> None:
    """Show a prompt as the model gets it, before its chat template, with the template's hash and the prompt's.

    The prompt's hash is the one that a trace holds of its calls.
    """
    from r1ranker_ir.cli import start

    start(verbose=False, quiet=False)
    from r1ranker_ir.prompts.digest import digest_of_messages
    from r1ranker_ir.prompts.files import open_template
    from r1ranker_ir.prompts.prompt import Prompt
    from r1ranker_ir.prompts.template import MARK_SECTION, load_template
    from r1ranker_ir.strategies.windows import PROMPT_HASH_DIGITS
    from r1ranker_ir.types import Candidate, RankingRequest

    chosen: PromptTemplate = load_template() if template is None else open_template(template)
    asked = section or _first_section(chosen)
    chosen.wording(asked, task)
    documents = document or list(_DOCUMENTS)
    request = RankingRequest(
        query, tuple(Candidate(str(place), text) for place, text in enumerate(documents)), task=task
    )
    limits = _NoLimits() if tokenizer is None else _OfTokenizer(tokenizer)
    call = _call(Prompt(chosen, limits, published=published), asked, request)
    rendered = limits.rendered(call, published=published) if isinstance(limits, _OfTokenizer) else None
    facts = {
        "template": chosen.name,
        "template_hash": chosen.digest(mark=asked == MARK_SECTION),
        "section": asked,
        "prompt_hash": digest_of_messages(call.messages)[:PROMPT_HASH_DIGITS],
        "identifiers": list(call.identifiers),
        "thinks": chosen.thinks,
        "answer_tags": chosen.tagged,
    }
    if format_ == "json":
        turns = [{"role": message.role, "content": message.content} for message in call.messages]
        facts |= {} if rendered is None else {"rendered": rendered}
        _echo(json.dumps({**facts, "messages": turns}, indent=2, ensure_ascii=False))
        return
    _echo(f"template {facts['template']} {facts['template_hash']} · {asked} · prompt {facts['prompt_hash']}")
    for message in call.messages:
        _echo(f"\n[{message.role}]\n{message.content}")
    if rendered is not None:
        _echo(f"\n[as the model gets it]\n{rendered}")


def _first_section(template: PromptTemplate) -> str:
    named = [name for name in ("iterative", "direct", "setwise", "pointwise") if name in template.wordings]
    if not named:
        raise InputError(
            f"template {template.name!r} has no section that can be shown, but {', '.join(template.wordings)}"
        )
    return named[0]


def _call(prompt: Prompt, section: str, request: RankingRequest) -> Call:
    shown = range(len(request.candidates))
    if section == "mark":
        if len(shown) < 2:
            raise InputError("layout mark names excluded candidates: give at least two --document")
        return prompt.exclude_unmarked(request, shown, shown[-1:])
    if section == "pointwise":
        return prompt.grade_one(request, 0)
    asks = {"iterative": prompt.exclude_one, "direct": prompt.order_all, "setwise": prompt.choose_best}
    return asks[section](request, shown)


def _echo(text: str) -> None:
    # Half a surrogate pair can't be printed; as an escape it can.
    typer.echo(text.encode("utf-8", "backslashreplace").decode())
