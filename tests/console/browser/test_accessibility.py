"""Test the pages with axe: light, dark, full, with a dialog, and at 200 %."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.console.browser import made_up_data as data
from tests.node.packages import add_packages

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

    from tests.console.browser.conftest import Visit
    from tests.console.browser.made_up_console import MadeUpConsole

pytestmark = [pytest.mark.prove, pytest.mark.asyncio(loop_scope="session")]

VIEWS = ("now", "response", "alerts", "rates", "health", "search")
RUN = """async () => (await axe.run(document, {
  runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
})).violations.map(({id, nodes}) => [
  id, nodes.slice(0, 3).map(({html, failureSummary}) => `${html}: ${failureSummary}`),
])"""


@pytest.fixture
def axe(tmp_path: Path) -> str:
    """Return the source of axe."""
    add_packages(tmp_path)
    return tmp_path.joinpath("node_modules/axe-core/axe.min.js").read_text("utf-8")


async def found(page: Page, axe: str) -> list[Any]:
    """Return what axe finds. The browser's debugger runs it, which no policy of a page refuses."""
    await page.evaluate(axe + ";undefined")
    findings: list[Any] = await page.evaluate(RUN)
    await page.evaluate("window.violations.splice(0)")  # axe measures with elements that have styles
    return findings


async def drawn(visit: Visit, view: str) -> Page:
    """Return the page with a view, drawn."""
    page = await visit.to(f"?view={view}&id=resp_1&q=device")
    if view == "now":
        await page.locator(".card").first.wait_for()
    return page


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.context(color_scheme="light")
async def test_axe_finds_nothing_in_light(visit: Visit, axe: str, view: str) -> None:
    """Pass axe, with the contrast of every text."""
    assert await found(await drawn(visit, view), axe) == []


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.context(color_scheme="dark")
async def test_axe_finds_nothing_in_dark(visit: Visit, axe: str, view: str) -> None:
    """Pass axe in the dark too."""
    assert await found(await drawn(visit, view), axe) == []


async def test_axe_finds_nothing_in_200_rows(visit: Visit, console: MadeUpConsole, axe: str) -> None:
    """Pass axe with as many responses as a page shows."""
    console.responses = [data.response(n, 1_796_000_000_000) for n in range(200)]
    page = await drawn(visit, "now")
    assert await page.locator(".card").count() == 200
    assert await found(page, axe) == []


async def test_axe_finds_nothing_in_dialogs(visit: Visit, axe: str) -> None:
    """Pass axe with a dialog open: the keys, and the question before an alert is sent again."""
    page = await drawn(visit, "alerts")
    await page.keyboard.press("?")
    await page.locator("dialog[open]").wait_for()
    assert await found(page, axe) == []
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Send again …").first.click()
    assert await found(page, axe) == []


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.context(viewport={"width": 640, "height": 400}, device_scale_factor=2)
async def test_a_page_at_200_per_cent_needs_no_scrolling_sideways(visit: Visit, axe: str, view: str) -> None:
    """Fit into the width at 200 %, and at the width of a phone."""
    page = await drawn(visit, view)
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not await page.evaluate(wide)
    assert await found(page, axe) == []
    await page.set_viewport_size({"width": 360, "height": 740})
    assert not await page.evaluate(wide)
