"""The OpenAPI description as a page that needs neither a script nor the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.3rem; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1rem 0 .2rem; }
p { margin: .3rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { text-align: start; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8886; }
th { font-weight: 400; }
code { font-size: .95em; }
"""
_NAMES = {"string": "text", "integer": "whole number", "boolean": "true or false"}


def api_page(described: Mapping[str, Any]) -> tuple[str, str]:
    """The page, and its style, which a policy may allow."""
    info = described["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('summary', ''))}</p>",
        '<p><a href="./">Try it</a> · <a href="openapi.json">openapi.json</a>, for Swagger UI, Postman and generators '
        "of clients. Fields with * are needed; others that are not listed are ignored.</p>",
    ]
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(told['description'])}</p>")
            parts.extend(_fields(form, described) for form in _forms(told, described))
            statuses = [
                f"<code>{status}</code> {escape(each['description'])}" for status, each in told["responses"].items()
            ]
            parts.append(f"<p>{' · '.join(statuses)}</p>")
    whole = "\n".join(parts)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = f"<title>{escape(info['title'])}: API</title>"
    page = (
        f'<!doctype html>\n<html lang="en"><head>{head}{title}<style>{_STYLE}</style></head><body>{whole}</body></html>'
    )
    return page, _STYLE


def _forms(told: Mapping[str, Any], described: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a request's body may be."""
    body = told.get("requestBody")
    if body is not None:
        schema = body["content"]["application/json"]["schema"]
        for each in schema.get("oneOf") or schema.get("anyOf") or [schema]:
            yield _resolved(each, described)


def _resolved(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Any = described
    for part in str(schema["$ref"]).removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _fields(form: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    needed = form.get("required", [])
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code>{" *" if name in needed else ""}</th>'
        f"<td>{escape(_kind(field))}</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in form.get("properties", {}).items()
    )
    heading = escape(form.get("description") or form.get("title", ""))
    return f'<h3>{heading}</h3><div class="wide"><table><tbody>{rows}</tbody></table></div>'


def _kind(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    named = str(schema.get("type", "any value"))
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    bound = "" if least is None else f"{' above' if 'exclusiveMinimum' in schema else ' from'} {least:g}"
    return _NAMES.get(named, named) + bound
