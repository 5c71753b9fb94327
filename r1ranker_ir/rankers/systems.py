"""The reranking systems that can be run side by side: under which names, and with which settings of their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from r1ranker_ir.doors import Door
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import CheckpointSettings
from r1ranker_ir.prompts.family_template import FamilyTemplate
from r1ranker_ir.prompts.prompt import PromptTemplate
from r1ranker_ir.prompts.template import load_template, parse_toml, read_template_text

logger = logging.getLogger(__name__)

SYSTEMS = Path(__file__).parents[1] / "prompts" / "systems"
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("strategy", "checkpoint", "source", "words", "summary", "reranker"), str),
    **{"settings": dict, "trained_on": dict, "listed": int, "template": (str, dict)},
}


@dataclass(frozen=True)
class FamilyMember:
    """How a published system ranks; its file, see `read_system`, has the same names.

    `checkpoint` is its best known one (`None` where it asks any model); `settings` are its authors' arguments of
    `Ranker`, which all can be overridden; `template` a file of its form in words of ours; `words` where its prompts
    stand, if not in a file that could be given as it is; `reranker` the name of its class of the `rerankers` package;
    `trained_on` what a checkpoint's name holds, to how candidates look in what it was trained on (the last one for
    names that hold none); `listed` its place in lists.
    """

    name: str
    strategy: str
    checkpoint: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    template: Path | None = None
    source: str = ""
    words: str = ""
    summary: str = ""
    reranker: str = ""
    trained_on: Mapping[str, str] = field(default_factory=dict, hash=False)
    listed: int = 100


def read_system(path: str | os.PathLike[str]) -> FamilyMember:
    """Reads a TOML file named after its system; `template` is a file beside it, or a section with a template itself.

    Raises:
        InputError: if the file can't be read, or a key is unknown, missing or of the wrong type.
    """
    file = Path(path)
    content = parse_toml(read_template_text(file, "TOML"), str(file))
    if "strategy" not in content:
        raise InputError(f"{file}: strategy is missing: a system ranks by one")
    for key, value in content.items():
        if key not in _KINDS:
            raise InputError(f"{file}: unknown key {key!r} of a system: use one of {', '.join(_KINDS)}")
        if not isinstance(value, kind := _KINDS[key]):
            wanted = kind.__name__ if isinstance(kind, type) else "file's name or a section"
            raise InputError(f"{file}: {key} is {value!r}: give a {wanted}")
    given = content.pop("template", None)
    template = None if given is None else (file.parent / given if isinstance(given, str) else file).resolve()
    return FamilyMember(name=file.stem, template=template, **content)


class _Systems(Door[FamilyMember]):
    """Systems by name: a file each; an entry point may name a file's path instead of a `FamilyMember`."""

    def _own(self) -> dict[str, FamilyMember]:
        return {path.stem: read_system(path) for path in sorted(SYSTEMS.glob("*.toml"))}

    def _loaded(self, point: EntryPoint) -> FamilyMember:
        named = point.load()
        return read_system(named) if isinstance(named, str | os.PathLike) else super()._loaded(point)


FAMILY: Door[FamilyMember] = _Systems(FamilyMember, "r1ranker_ir.systems", "r1ranker_ir.prompts.systems", "system")
"""Name to system: the files of `prompts/systems`, and entry points of installed packages."""


def family_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `Ranker` that ranks as a published system does: its settings, and what is given wins."""
    if name not in FAMILY:
        raise InputError(f"system {name!r} is not known: use one of {', '.join(FAMILY)}")
    member = FAMILY[name]
    options = {**member.settings, **given, "system": name}
    if options.get("template") is None and member.template is not None:
        options["template"] = member.template
    return options


def wording_notes(
    system: str | None,
    given: PromptTemplate | str | Path | None,
    model: str,
    checkpoint: CheckpointSettings,
    template: PromptTemplate,
) -> tuple[str, ...]:
    """Says where a published system is asked in other words than its checkpoints were trained on.

    `template` is the one in use, `given` what the caller gave: own words are the checkpoint's or the caller's.
    """
    if system is None:
        return ()
    member = FAMILY[system]
    if given is None:
        own, other = checkpoint.template, load_template().digest()
        published = bool(checkpoint.training) or (own is not None and own.digest() != other)
    else:
        stand_ins = [each.template for each in FAMILY.values() if each.template]
        published = not (isinstance(given, str | Path) and Path(given) in stand_ins)
    if published:
        return _form_notes(member, model, template) if isinstance(template, FamilyTemplate) else ()
    remedy = f"Give its project's template file (--template, template=; {member.source})"
    if member.words:
        remedy = (
            f"{member.words} ({member.source}): write them into a template file, as docs/templates.md says, and give "
            "that (--template, template=)"
        )
    return (
        f"{system!r} is asked in this project's own words (template {Path(template.name).name!r}), not in those of "
        f"the published system: figures may differ from the published ones, and checkpoints show what they learned "
        f"on the wording they were trained on. {remedy}",
    )


def _form_notes(member: FamilyMember, model: str, template: FamilyTemplate) -> tuple[str, ...]:
    """Says where candidates look otherwise than in what a version of the checkpoint was trained on."""
    if template.protocol != member.name or not member.trained_on:
        return ()
    version = next((each for each in member.trained_on if each in model.lower()), list(member.trained_on)[-1])
    trained, shown = member.trained_on[version], template.candidate.format(rank=1, candidate="text", score="").strip()
    if shown == trained or shown not in member.trained_on.values():
        return ()
    before = trained.replace("1", "{num}", 1).removesuffix("text")
    plain = before == "[{num}] "
    remedy = "take doc_prefix and doc_separator out of the file" if plain else f'give doc_prefix = "{before}"'
    return (
        f"checkpoints of {member.name}'s version {version.removeprefix('v')} were trained on candidates as "
        f"{trained!r}, and template {Path(template.name).name!r} shows them as {shown!r}: {remedy} for the form that "
        f"{model!r} knows",
    )
