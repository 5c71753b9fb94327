"""The verb `r1ranker prompt show`: a template with a query and candidates filled in."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from r1ranker_ir.cli.choices import SectionName, listed
from r1ranker_ir.cli.console import start
from r1ranker_ir.cli.parameters import GroupedCommand, stated_of, with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.terminal_text import echo_data, echo_json
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.prompts.sections import find_section, known_sections
from r1ranker_ir.rankers.settings import SETTINGS, RankerSettings
from r1ranker_ir.rankers.systems import FAMILY, family_options, wording_notes

if TYPE_CHECKING:
    from r1ranker_ir.backends.limits import UnloadedLimits
    from r1ranker_ir.models.checkpoints import CheckpointSettings
    from r1ranker_ir.prompts.prompt import Prompt, PromptTemplate
    from r1ranker_ir.types import Call, RankingRequest

    Limits = Mapping[str, Any]
else:
    Limits = stated_of(
        RankerSettings,
        only=("max_passage_tokens", "max_passage_words", "max_query_tokens", "max_thought_tokens", "repair_text"),
    )

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


@prompt.command(cls=GroupedCommand)
@with_fields
def show(
    *,
    template: Path | None = argument(
        None,
        "Template file: the project's own TOML, Rank-R1's or ReasonRank's, or rank_llm's YAML.",
        unset="the project's own template",
    ),
    section: SectionName | None = option(
        None, "What is asked for, of a template that has several.", unset="the system's, else the first it has"
    ),
    query: str = option(_QUERY, "The query to fill in."),
    document: list[str] | None = option(
        None, "A candidate to fill in; may be given again.", unset="three short ones", flags=("--document",)
    ),
    task: Literal["passage", "item", "model"] = option("passage", "What the candidates are."),
    published: bool = option(
        False, "As its own system sends it, with the brackets and line breaks that it leaves in passages."
    ),
    system: str | None = option(
        None,
        f"A published system whose limits count, and whose template where none is given: {listed(FAMILY)}.",
        unset="none",
    ),
    model: str | None = option(
        None,
        "Folder or Hugging Face name of the model: its tokenizer counts and cuts, and its context and "
        "r1ranker.json set limits. Its weights are not loaded.",
        unset="tokens are estimated, and no context is known",
    ),
    context_length: int | None = option(None, "Tokens that prompt and answer may take.", unset="the model's", least=1),
    limits: Limits,
    score: list[float] | None = option(
        None,
        "What the first stage gave a candidate, in the candidates' order, for templates that show it.",
        unset="the number of candidates, and down to 1",
        flags=("--score",),
    ),
    aim: str = option("", "What is asked of the best candidate.", unset="none"),
    format_: Literal["text", "json"] = option("text", "Text to read, or messages as JSON.", flags=("--format",)),
) -> None:
    """Show a prompt's turns and hashes; with --model also what its chat template makes of them.

    Query and passages are cut as they would be for the model: to the limits given here, those of the system or those
    in the model's r1ranker.json, and to its context. The prompt's hash is the one that traces hold.
    """
    start()
    from r1ranker_ir.backends.limits import UnloadedLimits
    from r1ranker_ir.models.checkpoints import CheckpointSettings, read_settings
    from r1ranker_ir.prompts.prompt import Prompt

    given = {**limits, **({} if template is None else {"template": template})}
    options = given if system is None else family_options(system.lower(), given)
    told = RankerSettings(**{name: value for name, value in options.items() if name in SETTINGS})
    settings = CheckpointSettings() if model is None else read_settings(model)
    chosen = _chosen(told, settings, model)
    asked = section or _first_section(chosen, None if told.system is None else FAMILY[told.system].strategy)
    chosen.wording(asked, task)
    request = _request(query, document or _DOCUMENTS, score or (), task, aim)
    thought = settings.max_thought_tokens if told.max_thought_tokens is None else told.max_thought_tokens
    read = UnloadedLimits(model, context_length=context_length, max_thought_tokens=thought)
    passage, longest = told.max_passage_tokens, told.max_query_tokens
    filled = Prompt(
        chosen,
        read,
        published=published,
        max_passage_tokens=settings.max_passage_tokens if passage is None else passage,
        max_query_tokens=settings.max_query_tokens if longest is None else longest,
        max_passage_words=told.max_passage_words,
        repair_text=bool(told.repair_text),
    )
    call = _call(filled, asked, request)
    rendered = read.render(call.messages, None if published else call.thinks)
    facts = _facts(chosen, asked, call, read)
    if format_ == "json":
        turns = [{"role": message.role, "content": message.content} for message in call.messages]
        facts |= {} if rendered is None else {"rendered": rendered}
        facts |= {"continuation": call.continuation} if call.continuation else {}
        echo_json(json.dumps({**facts, "messages": turns}, indent=2, ensure_ascii=False))
        return
    echo_data(f"template {facts['template']} {facts['template_hash']} · {asked} · prompt {facts['prompt_hash']}")
    passages = "1 passage cut" if call.cut_passages == 1 else f"{call.cut_passages} passages cut"
    cut = [passages] * bool(call.cut_passages) + ["the query cut"] * call.cut_query
    echo_data(", ".join([f"{facts['tokens']} tokens ({read.name})", *cut]))
    for message in call.messages:
        echo_data(f"\n[{message.role}]\n{message.content}")
    if call.continuation:
        echo_data(f"\n[assistant, whose log-likelihood is the score]\n{call.continuation}")
    if rendered is not None:
        echo_data(f"\n[as the model gets it]\n{rendered}")


def _chosen(told: RankerSettings, settings: CheckpointSettings, model: str | None) -> PromptTemplate:
    """The template that is shown; logs where it is not the published system's own."""
    from r1ranker_ir.rankers.ranker import is_own_wording, template_of

    chosen = template_of(told, settings)
    if told.system is not None:
        asked_model = model or FAMILY[told.system].checkpoint or ""
        own = is_own_wording(told.template, settings)
        for note in wording_notes(told.system, asked_model, chosen, own=own):
            logger.warning("%s", note)
    return chosen


def _request(query: str, texts: Sequence[str], given: Sequence[float], task: Any, aim: str) -> RankingRequest:
    from r1ranker_ir.types import Candidate, RankingRequest

    documents = list(texts)
    scores = given or [float(len(documents) - place) for place in range(len(documents))]
    if len(scores) != len(documents):
        raise InputError(f"{len(scores)} scores for {len(documents)} candidates: give --score once for each, or never")
    pairs = enumerate(zip(documents, scores, strict=True))
    candidates = tuple(Candidate(str(place), text, score) for place, (text, score) in pairs)
    return RankingRequest(query, candidates, task=task, aim=aim)


def _facts(template: PromptTemplate, section: str, call: Call, limits: UnloadedLimits) -> dict[str, Any]:
    from r1ranker_ir.prompts.digest import digest_of_messages
    from r1ranker_ir.prompts.template import MARK_SECTION
    from r1ranker_ir.strategies.windows import PROMPT_HASH_DIGITS

    return {
        "template": template.name,
        "template_hash": template.digest(mark=section == MARK_SECTION),
        "section": section,
        "prompt_hash": digest_of_messages(call.messages)[:PROMPT_HASH_DIGITS],
        "identifiers": list(call.identifiers),
        "thinks": template.thinks,
        "answer_tags": template.tagged,
        "tokens": limits.count_prompt_tokens(call.messages),
        "counted": limits.name,
        "cut_passages": call.cut_passages,
        "cut_query": call.cut_query,
    }


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
