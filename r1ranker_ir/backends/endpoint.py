"""Where a hosted model is reached, and which secrets must not be seen on the way back."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from r1ranker_ir.errors import BackendError, InputError

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_PLACEHOLDER_KEY = "no-key-needed"
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
# A shorter "key" is a placeholder such as EMPTY or ollama, which may well be a word of a model's text.
_SHORTEST_REAL_SECRET = 8
# A longer secret is also hidden where a server cuts it short, from this many characters on.
_SHORTEST_BEGINNING = 12


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible API and the credentials for it; `base_url` is without any, fit for messages."""

    base_url: str
    key: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def is_openai(self) -> bool:
        return f".{urlsplit(self.base_url).hostname}".endswith(".api.openai.com")

    def scrub(self, text: str, *, shortest: int = _SHORTEST_REAL_SECRET) -> str:
        """Replaces secrets of at least `shortest` characters by `***`, and the beginnings of those cut short."""
        for secret in self.secrets:
            if len(secret) >= shortest:
                text = text.replace(secret, "***")
            if len(secret) > _SHORTEST_BEGINNING:
                head, tail = secret[:_SHORTEST_BEGINNING], secret[_SHORTEST_BEGINNING:]
                first, *rest = text.split(head)
                known = (len(os.path.commonprefix([tail, after])) for after in rest)  # noqa: RUF071 (as is wanted)
                text = first + "".join(f"***{after[length:]}" for after, length in zip(rest, known, strict=True))
        return text


def find_endpoint(base_url: str | None) -> Endpoint:
    """Reads the address from `base_url` or `OPENAI_BASE_URL`, else OpenAI's own, and the key from `OPENAI_API_KEY`.

    A user name and password in the address are sent as basic authentication, in place of the key.
    """
    address = (base_url or os.environ.get("OPENAI_BASE_URL") or "").strip()
    clean, basic, url_secrets = _split_address(address or DEFAULT_BASE_URL)
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError("OPENAI_API_KEY holds characters that can't stand in a request header: copy the key anew")
    if not address and not key:
        raise BackendError(
            "no base_url is given and OPENAI_API_KEY is not set: set it in the environment, or give the base_url of "
            "a server of your own, such as http://127.0.0.1:8000/v1"
        )
    secrets = {key, *url_secrets, os.environ.get("OPENAI_ADMIN_KEY", ""), *_secrets_of_custom_headers()} - {""}
    return Endpoint(
        base_url=clean,
        key=key or _PLACEHOLDER_KEY,
        headers={"Authorization": f"Basic {basic}"} if basic else {},
        secrets=tuple(sorted(secrets, key=lambda secret: (-len(secret), secret))),
    )


def _split_address(address: str) -> tuple[str, str, set[str]]:
    """Splits a URL into the part to show, the value for basic authentication, and the secrets it held."""
    # The address is not repeated in the error: until it is parsed, nobody knows where its password stands.
    wrong = "base_url must begin with http:// or https://, name a host and end at the API's root, without a query: "
    wrong += "give one such as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise InputError(wrong) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(wrong)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    clean = urlunsplit((parts.scheme, host if port is None else f"{host}:{port}", parts.path.rstrip("/"), "", ""))
    if parts.username is None and parts.password is None:
        return clean, "", set()
    raw = (parts.username or "", parts.password or "")
    user, password = map(unquote, raw)
    basic = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    # A token may stand in either place: https://token@host and https://user:password@host are both in use.
    return clean, basic, {*raw, user, password, basic}


def _secrets_of_custom_headers() -> set[str]:
    """The values in OPENAI_CUSTOM_HEADERS (which the SDK sends too) that look like credentials by their name."""
    pairs = (line.partition(":") for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines())
    values = [value.strip() for name, _, value in pairs if _SECRET_HEADER.search(name)]
    return {*values, *(value.split()[-1] for value in values if value)}
