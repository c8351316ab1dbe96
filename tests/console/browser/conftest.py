"""Fixtures: Debian's Chromium, and a page on a console with made-up data."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from tests.console.browser.made_up_console import filled, served
from tests.tiers import need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, ConsoleMessage, Page

    from tests.console.browser.made_up_console import MadeUpConsole

LISTEN: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""
"""A script that runs before those of the page, and remembers what its policy refused."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Yield Chromium, for all tests of this process."""
    program = need("chromium", what="Chromium", package="chromium")
    from playwright.async_api import async_playwright  # noqa: PLC0415 - only `make prove` has it

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        await chromium.close()


@pytest.fixture
def console() -> Iterator[MadeUpConsole]:
    """Yield a console with twelve responses and ten alerts, served on loopback."""
    with served(filled()) as made_up:
        yield made_up


class Visit:
    """A page, and what went wrong on it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.expected: tuple[str, ...] = ()
        """Beginnings of errors that the test provokes."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    async def to(self, query: str = "") -> Page:
        """Go to a view; wait until it is drawn."""
        await self.page.goto(self.address + query)
        await self.page.locator("#main h1").first.wait_for()
        await self.page.locator(".loading:not(.plot-empty)").first.wait_for(state="detached")
        return self.page


@asynccontextmanager
async def visiting(browser: Browser, address: str, **options: Any) -> AsyncIterator[Visit]:
    """Yield a page on a console; fail if it broke its policy, or threw, or wrote an error."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(30_000)
    await context.add_init_script(LISTEN)
    visit = Visit(await context.new_page(), address)
    yield visit
    violations = await visit.page.evaluate("window.violations")
    errors = [error for error in visit.errors if not visit.expected or not error.startswith(visit.expected)]
    await context.close()
    assert (violations, errors) == ([], [])


@pytest_asyncio.fixture(loop_scope="session")
async def visit(
    browser: Browser, console: MadeUpConsole, request: pytest.FixtureRequest
) -> AsyncIterator[Visit]:
    """Yield a page on the made-up console. `@pytest.mark.context(...)` gives options of the browser."""
    marker = request.node.get_closest_marker("context")
    async with visiting(browser, console.address, **(marker.kwargs if marker else {})) as visit:
        yield visit
