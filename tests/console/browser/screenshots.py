"""Take the pictures of docs/console.md: `python -m tests.console.browser.screenshots`."""

from __future__ import annotations

import asyncio
import os
import shutil
from io import BytesIO
from typing import Any, Final, NamedTuple

from PIL import Image

from tests.console.browser.made_up_console import filled, served
from tests.docs.pages import ROOT

FOLDER: Final = ROOT / "docs/images"


class Picture(NamedTuple):
    """A picture of a view."""

    query: str
    scheme: str = "light"
    width: int = 1200
    height: int = 800


PICTURES: Final = {
    "now": Picture("?view=now"),
    "now-dark": Picture("?view=now", "dark"),
    "now-phone": Picture("?view=now&status=refused", "light", 390, 844),
    "response": Picture("?view=response&id=resp_001_6686a7d460e4a395f43be33ef5a96d73", height=1150),
    "alerts": Picture("?view=alerts&outcome=undelivered"),
    "rates": Picture("?view=rates"),
    "health": Picture("?view=health", "dark", height=1000),
}


async def take() -> None:
    """Write all pictures, with few colours, so that they are small."""
    from playwright.async_api import async_playwright  # noqa: PLC0415 - only `make prove` installs it

    FOLDER.mkdir(exist_ok=True)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        with served(filled(24)) as console:
            for name, picture in PICTURES.items():
                size: Any = {"width": picture.width, "height": picture.height}
                scheme: Any = picture.scheme
                page = await browser.new_page(viewport=size, color_scheme=scheme)
                await page.goto(console.address + picture.query)
                await page.locator(".card, .alert, .plot canvas, .finding").first.wait_for()
                await page.wait_for_load_state("load")
                await page.evaluate("new Promise((done) => setTimeout(done, 500))")
                few = (
                    Image.open(BytesIO(await page.screenshot()))
                    .convert("RGB")
                    .quantize(200, dither=Image.Dither.NONE)
                )
                few.save(FOLDER / f"console-{name}.png", optimize=True)
                await page.close()
        await browser.close()


if __name__ == "__main__":
    asyncio.run(take())
