"""The report in a browser: by mouse and keyboard, in both themes, with hostile texts, and with 1,000 queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, watched
from commands import r1ranker
from made import HOSTILE, drawn, eliminated, write_all

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def report_of(folder: Path, rankings: list[Any]) -> str:
    write_all(folder, rankings)
    runs, page = [folder / "first.trec", folder / "ranked.trec"], folder / "report.html"
    r1ranker("report", *runs, "--traces", folder / "trace.jsonl", "--corpus", folder / "corpus", "--output", page)
    return page.as_uri()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_queries_are_sorted_by_keyboard_and_opened(browser: Any, tmp_path: Path, theme: str) -> None:
    url = report_of(tmp_path, list(drawn(4, 6, 30)))
    with watched(browser, url, color_scheme=theme) as found:
        page = found.page
        assert len(found.texts("#table tbody tr")) == 4
        page.locator("#table thead button", has_text="gain").focus()
        page.keyboard.press("Enter")
        assert page.locator('#table th[aria-sort="descending"]').inner_text() == "gain ↓"
        gains = [float(each) for each in found.texts("#table tbody td:nth-child(4)")]
        assert gains == sorted(gains, reverse=True)
        page.keyboard.press("Enter")  # the focus has stayed
        assert [float(each) for each in found.texts("#table tbody td:nth-child(4)")] == sorted(gains)
        first = page.locator("#table tbody a").first
        name = first.inner_text()
        first.focus()
        page.keyboard.press("Enter")
        assert page.locator("#query h2").inner_text() == f"Query {name}"
        assert page.evaluate("document.activeElement.tagName") == "H2"
        assert page.locator("svg .line").count() == 6 and page.locator("svg .exit").count() == 5
        page.locator("details.step summary").first.focus()
        page.keyboard.press("Enter")
        page.locator("details.step[open] table").wait_for()  # the event comes a moment later
        assert page.locator("details.step[open] mark").count() == 1
        assert page.locator(".line.relevant").count() == 1 and page.locator(".line.unjudged").count() == 1
        page.get_by_role("link", name="Next query").click()
        page.wait_for_function("name => document.querySelector('#query h2')?.innerText !== name", arg=f"Query {name}")
        page.get_by_role("link", name="All queries").click()
        assert page.locator("#overview").is_visible() and page.locator("#query").is_hidden()
        page.locator("#controls input").fill("q2")
        assert len(found.texts("#table tbody tr")) == 1
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(255, 255, 255)" if theme == "light" else "rgb(20, 24, 29)")


def test_passages_are_in_view_where_the_window_is_narrow(browser: Any, tmp_path: Path) -> None:
    url = report_of(tmp_path, list(drawn(2, 5, 30)))
    with watched(browser, f"{url}#query-0", viewport={"width": 390, "height": 800}) as found:
        found.page.locator("details.step summary").first.click()
        for passage in (found.page.locator("details.step .passage").first, found.page.locator(".passage").last):
            box = passage.bounding_box()
            assert box["x"] >= 0 and box["width"] > 250 and box["x"] + box["width"] <= 390
        headings = "getComputedStyle(document.querySelector('tr:has(.passage) > .figure'), '::before').content"
        assert '"probability' in found.page.evaluate(headings)
        for place in ("#query-0", "#queries"):
            found.page.goto(url + place)
            assert found.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_hostile_texts_stay_text(browser: Any, tmp_path: Path) -> None:
    texts = {f"d{number}": text for number, text in enumerate(HOSTILE)}
    url = report_of(tmp_path, [eliminated("q", HOSTILE[0], texts, list(texts))])
    with watched(browser, f"{url}#query-0") as found:
        found.page.get_by_role("button", name="Open all calls").click()
        found.page.locator("details.step[open] table").first.wait_for()
        assert found.page.locator("p.asked").inner_text() == HOSTILE[0]
        assert found.page.locator("img, iframe, [onerror]").count() == 0
        assert any("\\u202egnitirw" in text for text in found.texts(".text"))
        # What a page could do, the policy forbids.
        found.page.evaluate(
            "document.body.append(Object.assign(document.createElement('img'), {src: 'http://a.invalid/'}))"
        )
        found.page.wait_for_timeout(100)
        assert any("Content Security Policy" in each for each in found.said)
        found.said.clear()
        found.asked.clear()


@pytest.mark.slow
def test_a_thousand_queries_stay_usable(browser: Any, tmp_path: Path) -> None:
    url = report_of(tmp_path, list(drawn(1000, 20, 60)))
    assert (tmp_path / "report.html").stat().st_size < 30_000_000
    with watched(browser, url) as found:
        painted = found.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert painted < 1000, f"the first paint took {painted} ms"
        assert found.texts("#count") == ["100 of 1000 queries shown"]
        found.page.get_by_role("button", name="Show more queries").click()
        assert len(found.texts("#table tbody tr")) == 200
        found.page.goto(f"{url}#query-999")
        found.page.locator("svg .line").first.wait_for()
        assert found.page.locator("svg .line").count() == 20
