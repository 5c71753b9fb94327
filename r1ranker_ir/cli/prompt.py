"""The verb `r1ranker prompt show`: a template with a query and candidates filled in."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from r1ranker_ir.cli.console import MESSAGES
from r1ranker_ir.cli.options import SectionName, listed
from r1ranker_ir.cli.parameters import GroupedCommand, StatedOf, with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.terminal_text import echo_data, echo_json
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.prompts.sections import JUDGE, find_section, known_sections
from r1ranker_ir.rankers.settings import SETTINGS, RankerSettings
from r1ranker_ir.rankers.systems import FAMILY, family_options, wording_notes

Limits = Annotated[
    Mapping[str, Any],
    StatedOf(
        RankerSettings,
        only=("max_passage_tokens", "max_passage_words", "max_query_tokens", "max_thought_tokens", "repair_text"),
    ),
]

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
        None, "A template: this project's TOML, Rank-R1's, ReasonRank's, or rank_llm's YAML.", unset="the project's own"
    ),
    section: SectionName | None = option(None, "What is asked for.", unset="the system's, else the template's first"),
    query: str = option(_QUERY, "The query to fill in."),
    document: list[str] | None = option(None, "A candidate to fill in; repeatable.", unset="three short ones"),
    task: Literal["passage", "item", "model"] = option("passage", "What the candidates are."),
    published: bool = option(False, "As its own system sends it, with brackets and line breaks in passages."),
    system: str | None = option(
        None, f"A published system, for its limits and its template: {listed(FAMILY)}.", unset="none"
    ),
    model: str | None = option(
        None,
        "Folder or Hugging Face name of the model, whose tokenizer, context and r1ranker.json count.",
        unset="tokens are estimated, and no context is known",
    ),
    context_length: int | None = option(None, "Tokens that prompt and answer may take.", unset="the model's", least=1),
    limits: Limits,
    score: list[float] | None = option(
        None, "The first stage's score of each candidate, for templates that show it.", unset="N, and down to 1"
    ),
    aim: str = option("", "What is asked of the best candidate.", unset="none"),
    format_: Literal["text", "json"] = option("text", "Text to read, or messages as JSON.", flags=("--format",)),
) -> None:
    """Show a prompt's turns and hashes; with --model also what its chat template makes of them.

    Query and passages are cut as they would be for the model: to the limits given here, those of the system or those
    in the model's r1ranker.json, and to its context. The prompt's hash is the one that traces hold.
    """
    MESSAGES.start()
    from r1ranker_ir.backends.limits import UnloadedLimits
    from r1ranker_ir.models.checkpoints import CheckpointSettings, read_settings
    from r1ranker_ir.prompts.digest import digest_of_messages
    from r1ranker_ir.prompts.prompt import Prompt
    from r1ranker_ir.prompts.template import MARK_SECTION
    from r1ranker_ir.rankers.ranker import prompt_limits, template_of
    from r1ranker_ir.strategies.windows import PROMPT_HASH_DIGITS
    from r1ranker_ir.types import OF_ONE, Candidate, RankingRequest

    given = {**limits, **({} if template is None else {"template": template})}
    options = given if system is None else family_options(system.lower(), given)
    told = RankerSettings(**{name: value for name, value in options.items() if name in SETTINGS})
    settings = CheckpointSettings() if model is None else read_settings(model)
    chosen = template_of(told, settings)
    member = None if told.system is None else FAMILY[told.system]
    if member is not None:
        for note in wording_notes(told.system, told.template, model or member.checkpoint or "", settings, chosen):
            logger.warning("%s", note)
    wanted = [*([] if member is None else [member.strategy]), *known_sections()]
    asked = section or next((name for name in wanted if name in chosen.wordings), None)
    if asked is None:
        raise InputError(f"template {chosen.name!r} has no section that can be shown, but {', '.join(chosen.wordings)}")
    chosen.wording(asked, task)

    texts = list(document or _DOCUMENTS)
    scores = score or [float(len(texts) - place) for place in range(len(texts))]
    if len(scores) != len(texts):
        raise InputError(f"{len(scores)} scores for {len(texts)} candidates: give --score once for each, or never")
    pairs = enumerate(zip(texts, scores, strict=True))
    candidates = tuple(Candidate(str(place), text, gain) for place, (text, gain) in pairs)
    request = RankingRequest(query, candidates, task=task, aim=aim)
    thought = settings.max_thought_tokens if told.max_thought_tokens is None else told.max_thought_tokens
    read = UnloadedLimits(model, context_length=context_length, max_thought_tokens=thought)
    filled = Prompt(chosen, read, published=published, **prompt_limits(told, settings))
    found, shown = find_section(asked), range(len(candidates))
    if found.names_excluded and len(shown) < 2:
        raise InputError(f"section {asked} names excluded candidates: give at least two --document")
    shown = shown[:1] if found.asks in OF_ONE else shown
    # Where thoughts are compared, what is given stands for these too.
    about = texts if found.judges else ()
    call = filled.ask(found, request, shown, shown[-1:] if found.names_excluded else (), about=about)

    rendered = read.render(call.messages, None if published else call.thinks)
    facts: dict[str, Any] = {
        "template": chosen.name,
        "template_hash": chosen.digest(mark=asked == MARK_SECTION, judge=asked == JUDGE.name),
        "section": asked,
        "prompt_hash": digest_of_messages(call.messages)[:PROMPT_HASH_DIGITS],
        "identifiers": list(call.identifiers),
        "thinks": chosen.thinks,
        "answer_tags": chosen.tagged,
        "tokens": read.count_prompt_tokens(call.messages),
        "counted": read.name,
        "cut_passages": call.cut_passages,
        "cut_query": call.cut_query,
        **({} if rendered is None else {"rendered": rendered}),
        **({"continuation": call.continuation} if call.continuation else {}),
        "messages": [{"role": message.role, "content": message.content} for message in call.messages],
    }
    if format_ == "json":
        echo_json(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    echo_data(f"template {chosen.name} {facts['template_hash']} · {asked} · prompt {facts['prompt_hash']}")
    passages = "1 passage cut" if call.cut_passages == 1 else f"{call.cut_passages} passages cut"
    cut = [passages] * bool(call.cut_passages) + ["the query cut"] * call.cut_query
    echo_data(", ".join([f"{facts['tokens']} tokens ({read.name})", *cut]))
    for message in call.messages:
        echo_data(f"\n[{message.role}]\n{message.content}")
    if call.continuation:
        echo_data(f"\n[assistant, whose log-likelihood is the score]\n{call.continuation}")
    if rendered is not None:
        echo_data(f"\n[as the model gets it]\n{rendered}")
