"""Renders a chat template in a process of its own, which can be stopped: run as a script, never imported.

It reads JSON from standard input: `path` (where modules are found), `template`, `special` (the tokenizer's named
tokens), `conversations`, and the limits `bytes`, `cpu_seconds` and `characters`. It prints `ends`, or what the template
does instead. Errors of the template do not matter here: they are met again, and reported, where prompts are rendered.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any


def _limit(given: dict[str, Any]) -> None:
    try:
        import resource
    except ImportError:  # not on Windows: there, the time is all that is limited
        return
    for what, most in ((resource.RLIMIT_AS, given["bytes"]), (resource.RLIMIT_CPU, given["cpu_seconds"])):
        _, hard = resource.getrlimit(what)
        if hard == resource.RLIM_INFINITY or most <= hard:
            resource.setrlimit(what, (most, hard))


def _environment() -> Any:
    """What transformers renders chat templates with, as far as it matters for how long they take."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}`, which marks what an assistant has written."""

        tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _try(given: dict[str, Any]) -> str:
    try:
        template = _environment().from_string(given["template"])
    except MemoryError:
        return "needs too much memory"
    except Exception:
        return "ends"
    for conversation in given["conversations"]:
        written = 0
        try:
            for piece in template.generate(messages=conversation, add_generation_prompt=True, **given["special"]):
                written += len(piece)
                if written > given["characters"]:
                    return f"writes more than {given['characters']:,} characters"
        except MemoryError:
            return "needs too much memory"
        except Exception:
            continue
    return "ends"


if __name__ == "__main__":
    given = json.load(sys.stdin)
    _limit(given)
    sys.path[:] = given["path"]
    print(_try(given))
