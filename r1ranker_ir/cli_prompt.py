"""The verb `r1ranker prompt show`: a template with a query and candidates filled in."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from r1ranker_ir.cli_choices import SectionName, listed
from r1ranker_ir.cli_options import (
    MaxPassageTokensOption,
    MaxPassageWordsOption,
    MaxQueryTokensOption,
    MaxThoughtTokensOption,
    RepairTextOption,
)
from r1ranker_ir.errors import InputError
from r1ranker_ir.family import FAMILY
from r1ranker_ir.prompts.sections import find_section, known_sections
from r1ranker_ir.terminal_text import argument_text, echo_data, echo_json

if TYPE_CHECKING:
    from r1ranker_ir.prompts.prompt import Prompt, PromptTemplate
    from r1ranker_ir.types import Call, RankingRequest

logger = logging.getLogger(__name__)

prompt = typer.Typer(help="Look at prompts and their templates.", no_args_is_help=True, rich_markup_mode=None)

_QUERY = "how high can a flea jump"
_DOCUMENTS = (
    "Most fleas clear about eighteen centimetres from a standing start.",
    "A kettle boils earlier on a mountain than by the sea.",
    "Cats pick up fleas in long grass.",
)


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
        SectionName | None,
        typer.Option(
            help="What is asked for, of a template that has several.",
            show_default="the system's, else the first it has",
        ),
    ] = None,
    query: Annotated[str, typer.Option(help="The query to fill in.")] = _QUERY,
    document: Annotated[
        list[str] | None,
        typer.Option("--document", help="A candidate to fill in; may be given again.", show_default="three short ones"),
    ] = None,
    task: Annotated[Literal["passage", "item", "model"], typer.Option(help="What the candidates are.")] = "passage",
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="As its own system sends it, with the brackets and line breaks that it leaves in passages.",
        ),
    ] = False,
    system: Annotated[
        str | None,
        typer.Option(
            help=f"A published system whose limits count, and whose template where none is given: {listed(FAMILY)}.",
            show_default="none",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hugging Face name of the model: its tokenizer counts and cuts, and its context and "
            "r1ranker.json set limits. Its weights are not loaded.",
            show_default="tokens are estimated, and no context is known",
        ),
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens that prompt and answer may take.", show_default="the model's")
    ] = None,
    max_passage_tokens: MaxPassageTokensOption = None,
    max_passage_words: MaxPassageWordsOption = None,
    max_query_tokens: MaxQueryTokensOption = None,
    max_thought_tokens: MaxThoughtTokensOption = None,
    repair_text: RepairTextOption = None,
    score: Annotated[
        list[float] | None,
        typer.Option(
            "--score",
            help="What the first stage gave a candidate, in the candidates' order, for templates that show it.",
            show_default="the number of candidates, and down to 1",
        ),
    ] = None,
    aim: Annotated[str, typer.Option(help="What is asked of the best candidate.", show_default="none")] = "",
    format_: Annotated[
        Literal["text", "json"], typer.Option("--format", help="Text to read, or messages as JSON.")
    ] = "text",
) -> None:
    """Show a prompt's turns and hashes; with --model also what its chat template makes of them.

    Query and passages are cut as they would be for the model: to the limits given here, those of the system or those
    in the model's r1ranker.json, and to its context. The prompt's hash is the one that traces hold.
    """
    from r1ranker_ir.cli import start

    start(verbose=False, quiet=False)
    from r1ranker_ir.backends.unloaded import unloaded_limits
    from r1ranker_ir.checkpoints import CheckpointSettings, read_settings
    from r1ranker_ir.family import FAMILY, family_options, wording_notes
    from r1ranker_ir.prompts.digest import digest_of_messages
    from r1ranker_ir.prompts.files import open_template
    from r1ranker_ir.prompts.prompt import Prompt
    from r1ranker_ir.prompts.template import MARK_SECTION, load_template
    from r1ranker_ir.ranker import is_own_wording
    from r1ranker_ir.strategies.windows import PROMPT_HASH_DIGITS
    from r1ranker_ir.types import Candidate, RankingRequest

    given = {
        "template": template,
        "max_passage_tokens": max_passage_tokens,
        "max_passage_words": max_passage_words,
        "max_query_tokens": max_query_tokens,
        "max_thought_tokens": max_thought_tokens,
        "repair_text": repair_text,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if system is not None:
        system = system.lower()
        options = family_options(system, options)
    settings = CheckpointSettings() if model is None else read_settings(model)
    chosen: PromptTemplate = settings.template or load_template()
    if "template" in options:
        chosen = open_template(options["template"])
    asked = section or _first_section(chosen, None if system is None else FAMILY[system].strategy)
    chosen.wording(asked, task)
    if system is not None:
        asked_model = model or FAMILY[system].checkpoint or ""
        own = is_own_wording(options.get("template"), settings)
        for note in wording_notes(system, asked_model, chosen, own=own):
            logger.warning("%s", note)
    documents = [argument_text(text) for text in document or _DOCUMENTS]
    scores = score or [float(len(documents) - place) for place in range(len(documents))]
    if len(scores) != len(documents):
        raise InputError(f"{len(scores)} scores for {len(documents)} candidates: give --score once for each, or never")
    candidates = [
        Candidate(str(place), text, given) for place, (text, given) in enumerate(zip(documents, scores, strict=True))
    ]
    request = RankingRequest(argument_text(query), tuple(candidates), task=task, aim=argument_text(aim))
    limits = unloaded_limits(
        model,
        context_length=context_length,
        max_thought_tokens=options.get("max_thought_tokens", settings.max_thought_tokens),
    )
    filled = Prompt(
        chosen,
        limits,
        published=published,
        max_passage_tokens=options.get("max_passage_tokens", settings.max_passage_tokens),
        max_query_tokens=options.get("max_query_tokens", settings.max_query_tokens),
        max_passage_words=options.get("max_passage_words"),
        repair_text=options.get("repair_text", False),
    )
    call = _call(filled, asked, request)
    rendered = None if limits.render is None else limits.render(call.messages, None if published else call.thinks)
    facts = {
        "template": chosen.name,
        "template_hash": chosen.digest(mark=asked == MARK_SECTION),
        "section": asked,
        "prompt_hash": digest_of_messages(call.messages)[:PROMPT_HASH_DIGITS],
        "identifiers": list(call.identifiers),
        "thinks": chosen.thinks,
        "answer_tags": chosen.tagged,
        "tokens": limits.count_prompt_tokens(call.messages),
        "counted": limits.name,
        "cut_passages": call.cut_passages,
        "cut_query": call.cut_query,
    }
    if format_ == "json":
        turns = [{"role": message.role, "content": message.content} for message in call.messages]
        facts |= {} if rendered is None else {"rendered": rendered}
        facts |= {"continuation": call.continuation} if call.continuation else {}
        echo_json(json.dumps({**facts, "messages": turns}, indent=2, ensure_ascii=False))
        return
    echo_data(f"template {facts['template']} {facts['template_hash']} · {asked} · prompt {facts['prompt_hash']}")
    passages = "1 passage cut" if call.cut_passages == 1 else f"{call.cut_passages} passages cut"
    cut = [passages] * bool(call.cut_passages) + ["the query cut"] * call.cut_query
    echo_data(", ".join([f"{facts['tokens']} tokens ({limits.name})", *cut]))
    for message in call.messages:
        echo_data(f"\n[{message.role}]\n{message.content}")
    if call.continuation:
        echo_data(f"\n[assistant, whose log-likelihood is the score]\n{call.continuation}")
    if rendered is not None:
        echo_data(f"\n[as the model gets it]\n{rendered}")


def _first_section(template: PromptTemplate, wanted: str | None) -> str:
    """The wanted section where the template has it, else the first that it has."""
    named = [name for name in (wanted, *known_sections()) if name is not None and name in template.wordings]
    if not named:
        raise InputError(
            f"template {template.name!r} has no section that can be shown, but {', '.join(template.wordings)}"
        )
    return named[0]


def _call(prompt: Prompt, section: str, request: RankingRequest) -> Call:
    from r1ranker_ir.types import OF_ONE

    asked, shown = find_section(section), range(len(request.candidates))
    if asked.names_excluded and len(shown) < 2:
        raise InputError(f"section {section} names excluded candidates: give at least two --document")
    if asked.asks in OF_ONE:
        shown = shown[:1]
    return prompt.ask(asked, request, shown, shown[-1:] if asked.names_excluded else ())
