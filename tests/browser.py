"""Chromium, headless, by Playwright for Python: tests that need it are skipped where one of them is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

SWITCHES = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@dataclass
class Watched:
    """A page, and what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.page.locator(selector).all_inner_texts()
        return found


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; Playwright makes a fresh profile for it."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if executable is None:
        pytest.skip("there is no chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=executable, args=SWITCHES)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Any, url: str, **given: Any) -> Iterator[Watched]:
    """Opens an address in a context of its own, and fails if the page has said anything or asked elsewhere."""
    context = browser.new_context(**given)
    context.set_default_timeout(60_000)
    page = context.new_page()
    found = Watched(page)
    page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.on("dialog", lambda dialog: (found.said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: found.asked.append(request.url))
    page.goto(url)
    yield found
    assert found.said == []
    origin = url.partition("#")[0]
    assert [each for each in found.asked if not each.startswith(origin)] == []
    context.close()
