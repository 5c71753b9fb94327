"""The page to try the service, in a browser: the elimination as it happens, hostile texts, refusals, the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, watched
from loopback import NumbersBackend, Running, wait_until

pytestmark = pytest.mark.browser
HOSTILE = ("number 1 <script>alert(1)</script>", 'number 2 "><img src=x onerror="alert(1)">', "number 3 \u202egnitirw")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_the_elimination_is_shown_as_it_happens(browser: Any, numbers: Running, backend: NumbersBackend) -> None:
    with watched(browser, f"{numbers.url}/") as found:
        page = found.page
        page.get_by_label("Query").fill("the smallest")
        page.get_by_label("Passages").fill("number 5\nnumber 1\nnumber 9")
        backend.may_go_on.clear()
        page.get_by_role("button", name="Rank").focus()
        page.keyboard.press("Enter")
        wait_until(lambda: bool(backend.batches))
        assert len(found.texts("#kept li")) == 3 and found.texts("#left li") == []
        backend.may_go_on.set()
        page.get_by_text("Done with 2 calls").wait_for()
        assert [text.split("\n")[0] for text in found.texts("#kept li")] == ["1number 1", "2number 5", "3number 9"]
        page.locator("#kept li details summary").first.click()
        assert page.locator("#kept li details[open] div").first.inner_text() == "1"  # the stand-in's whole thought
        page.get_by_label("Ranker").fill("nowhere")
        page.keyboard.press("Enter")
        page.get_by_text("Error: model is 'nowhere'").wait_for()
        [refused] = found.said
        assert "404" in refused
        found.said.clear()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hostile_texts_stay_text(browser: Any, numbers: Running, tmp_path: Path, theme: str) -> None:
    passages = [*HOSTILE, "number 4 " + "ab " * 350_000]
    (tmp_path / "passages.txt").write_text("\n".join(passages))
    with watched(browser, f"{numbers.url}/", color_scheme=theme) as found:
        page = found.page
        page.get_by_label("Query").fill("<script>alert(1)</script>")
        page.get_by_label("From a file").set_input_files(tmp_path / "passages.txt")
        page.wait_for_function("() => document.getElementById('passages').value.includes('number 4')")
        page.get_by_role("button", name="Rank").click()
        page.get_by_text("Done with 3 calls").wait_for()
        assert found.texts("#kept li")[0].startswith("1number 1 <script>alert(1)</script>")
        assert page.locator("#kept img, #kept script").count() == 0
