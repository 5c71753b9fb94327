"""The verb `r1ranker data routing`: ranking requests of what language models' answers were worth and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from r1ranker_ir.adapters.routing.protocol import RoutingProtocol
from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import ON_ERROR
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option


@with_fields
def routing(
    *,
    source: Path = option(
        ...,
        "What each language model's answers were worth: JSON Lines (query, effect), or CSV with a column for each "
        "language model, or with query, llm, effect, cost.",
    ),
    output: Path = option(..., "JSON Lines file of ranking requests to write."),
    llms: Path | None = option(
        None, "The models' prices, sizes and descriptions: JSON or CSV.", unset="llms.* beside the source"
    ),
    objective: str = option(
        "performance", "performance, balance or cost; or the weights of effect and cost, such as 0.7,0.3."
    ),
    fit: Path | None = option(
        None, "Further observations, to find the best single language model on.", unset="the source, in hindsight"
    ),
    protocol: RoutingProtocol,
    on_error: Literal["fail", "skip"] = ON_ERROR,
    messages: Messages = MESSAGES,
) -> None:
    """Make ranking requests for routing: which language model should get the question.

    A request's gains are utilities: effect × its weight − cost × its weight, cost in [0, 1]. r1ranker suite measures on
    the file, and r1ranker data --requests makes training samples of it.
    """
    messages.start()
    from r1ranker_ir.adapters.problems import Problems
    from r1ranker_ir.adapters.routing.llms import LLMProfile
    from r1ranker_ir.adapters.routing.objectives import objective_of
    from r1ranker_ir.adapters.routing.observations import read_observations
    from r1ranker_ir.adapters.routing.profiles import read_profiles
    from r1ranker_ir.adapters.routing.requests import assumed_tokens, observed_llms, routing_requests
    from r1ranker_ir.data.request_files import write_requests
    from r1ranker_ir.files.paths import NamedFile, check_outputs

    try:
        wanted = objective_of(objective)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--objective") from error
    described = llms or next(
        (file for ending in ("json", "csv") if (file := source.with_name(f"llms.{ending}")).is_file()), None
    )
    check_outputs(
        (NamedFile("--output", output),),
        (NamedFile("--source", source), NamedFile("--fit", fit), NamedFile("--llms", described)),
    )
    problems = Problems(on_error)
    observations = read_observations(source, problems)
    if described is None:
        profiles = tuple(LLMProfile(name) for name in observations[0].effects)
    else:
        profiles = read_profiles(described)
    chosen = observed_llms(observations, profiles)
    same = fit is None or (fit.exists() and fit.samefile(source))
    name = source.name.removesuffix(".gz").rpartition(".")[0]
    requests = list(
        routing_requests(
            observations,
            chosen,
            wanted,
            protocol,
            fit=None if same or fit is None else read_observations(fit, problems),
            source=f"{name}-{objective}",
        )
    )
    write_requests(output, requests)
    alike, count = sum(not judged.best for judged in requests), len(requests)
    messages.say(f"all language models are worth the same on {alike} of {count} questions ({alike / count:.1%})")
    if "cost" in requests[0].values and (assumed := sum(map(assumed_tokens, observations))):
        messages.say(
            f"tokens were not counted for {assumed} questions, and assumed: a fourth of the question's bytes in, "
            f"{protocol.output_tokens} out"
        )
    messages.say(f"profiles: {'names alone' if described is None else described}")
    if unsized := [llm.name for llm in chosen if llm.parameters is None]:
        messages.say(f"no baseline 'largest': no size is known of {', '.join(unsized)}")
    messages.say(
        f"utility: {wanted}, cost 1 being the dearest of the {protocol.cost_scale}",
        f"{output}: {len(observations)} questions, {len(chosen)} language models, {problems.line()}",
    )
