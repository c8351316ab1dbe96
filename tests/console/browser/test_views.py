"""Test each view in a browser: its policy, hostile texts, the keyboard, and words for what is missing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.console.browser import made_up_data as data
from tests.console.browser.made_up_console import filled, served

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from tests.console.browser.conftest import Visit
    from tests.console.browser.made_up_console import MadeUpConsole

pytestmark = [pytest.mark.prove, pytest.mark.asyncio(loop_scope="session")]

ID = "resp_001_6686a7d460e4a395f43be33ef5a96d73"
VIEWS = {
    "": "Now",
    f"?view=response&id={ID}": "Response",
    "?view=alerts": "Alerts",
    "?view=rates": "Rates",
    "?view=health": "Health",
    "?view=search&q=device": "Search",
}
LIVE = ".state:has-text('Live')"


async def text_of(page: Page, selector: str = "#app") -> str:
    """Return the text that is in the page."""
    text: str = await page.locator(selector).first.evaluate("(element) => element.textContent")
    return text


async def is_wider_than_screen(page: Page) -> bool:
    """Return whether one must scroll sideways."""
    wider: bool = await page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    return wider


@pytest.mark.parametrize("query", VIEWS)
async def test_each_view_keeps_its_policy(visit: Visit, query: str) -> None:
    """Draw each view, and each of its charts, without a violation or an error."""
    page = await visit.to(query)
    assert await page.title() == f"{VIEWS[query]} \N{EN DASH} deltaloom"
    assert VIEWS[query] in await text_of(page, "h1")
    if query in {"", "?view=rates", f"?view=response&id={ID}"}:
        await page.locator(".plot canvas").first.wait_for()
    assert not await is_wider_than_screen(page)


async def test_a_link_to_no_view_shows_the_first(visit: Visit) -> None:
    """Show the first view for a name of none, also for one that every JavaScript object has."""
    for name in ("nothing", "constructor", "__proto__"):
        page = await visit.to(f"?view={name}")
        assert "Now" in await text_of(page, "h1")


async def test_the_policy_is_in_force(visit: Visit) -> None:
    """Refuse what a mistake in the pages could do: markup from a text, and a script in it."""
    page = await visit.to()
    refused = await page.evaluate(
        """() => {
          try { document.querySelector("h1").innerHTML = "<b>x</b>"; return false; } catch { return true; }
        }"""
    )
    assert refused
    assert len(await page.evaluate("window.violations.splice(0)")) == 1
    visit.expected = ("This document requires 'TrustedHTML'",)


@pytest.mark.parametrize("view", ["now", "response", "alerts", "health", "search"])
async def test_hostile_texts_are_text(visit: Visit, console: MadeUpConsole, view: str) -> None:
    """Show markup, escape sequences and marks of direction as signs, and let none of them leave its place."""
    at = 1_796_000_000_000
    console.responses = data.hostile(at)
    console.whole = data.whole(
        "resp_hostile", at, [data.whole_part("refusal", text, None) for text in data.HOSTILE.values()]
    )
    console.alerts = [
        data.alert(
            n,
            at,
            id=f"a{n}",
            text=text,
            category=text,
            rule=text,
            model=text,
            reason=text,
            reference_url="javascript:x",
        )
        for n, text in enumerate(data.HOSTILE.values())
    ]
    for alert in console.alerts:
        alert["deliveries"][0]["answer"] = data.HOSTILE["script"]
    console.health = data.health(at)
    console.health["dead_letters"]["newest"] = [
        {**data.letter(n, at, line=text), "error": text} for n, text in enumerate(data.HOSTILE.values())
    ]
    page = await visit.to(f"?view={view}&id=resp_hostile&q=script")
    if view == "now":
        await page.locator(".card").nth(5).wait_for()
    shown = await text_of(page)
    assert "<script>document.title" in shown
    if view != "search":
        assert "␛[31mred" in shown
        assert "⟨U+202E⟩gnp.esrever" in shown
        assert "⟨U+E0041⟩" in shown
        assert not set(shown) & {"\x1b", "\u202e", "\u2067", "\U000e0041"}
    assert (
        await page.locator("#app script, #app img:not(.brand img), #app iframe, #app [onerror]").count() == 0
    )
    assert await page.locator("a[href^='javascript']").count() == 0
    assert "owned" not in await page.title()
    assert not await is_wider_than_screen(page)


@pytest.mark.parametrize("text", ["x" * 8_000_000, "wörd " * 100_000], ids=["8 MB", "100,000 words"])
async def test_a_huge_text_is_shown_in_pieces(visit: Visit, console: MadeUpConsole, text: str) -> None:
    """Draw the beginning of a huge text, say how long it is, and draw more when asked."""
    console.whole = data.whole("resp_huge", 0, [data.whole_part("output_text", text, "verified")])
    page = await visit.to("?view=response&id=resp_huge")
    assert f"20,000 of {len(text):,} characters" in await text_of(page)
    assert len(await text_of(page, ".whole-text")) == 20_000
    await page.get_by_role("button", name="Show more").click()
    await page.locator(f".more:has-text('220,000 of {len(text):,}')").wait_for()


async def test_words_grow_and_a_refusal_turns_red(visit: Visit, console: MadeUpConsole) -> None:
    """Take changes as they come: more words, a refusal with its alert, and responses that leave."""
    page = await visit.to()
    await page.locator(LIVE).wait_for()
    card = page.locator(f".card[data-id='{console.responses[0]['id']}']")
    await card.wait_for()
    assert "card-refused" not in (await card.get_attribute("class") or "")
    refused = data.response(1, 0)
    changed = {**console.responses[0], **{name: refused[name] for name in ("refused", "alert", "parts")}}
    console.send(responses=[changed], gone=[console.responses[1]["id"]])
    await page.locator(f".card-refused[data-id='{changed['id']}']").wait_for()
    assert "alert after 3 ms, slack after 84 ms, on-call after 131 ms" in await text_of(
        page, f"[data-id='{changed['id']}']"
    )
    await page.locator(f".card[data-id='{console.responses[1]['id']}']").wait_for(state="detached")
    await page.locator("[aria-live]:has-text('1 new refusal, the newest by warp-5')").wait_for()
    console.send(behind=True)
    await page.locator(".state:has-text('Behind')").wait_for()


async def test_a_frozen_page_stays(visit: Visit, console: MadeUpConsole) -> None:
    """Keep what is shown while frozen, count what came, and show it on going on; the URL has it."""
    page = await visit.to()
    await page.locator(LIVE).wait_for()
    await page.keyboard.press("f")
    await page.locator(".state:has-text('Frozen')").wait_for()
    assert "freeze=1" in page.url
    console.send(gone=[console.responses[0]["id"]])
    await page.locator(".frozen-note:has-text('1 change since then')").wait_for()
    assert await page.locator(".card").count() == len(console.responses)
    await page.get_by_role("button", name="Go on").click()
    await page.locator(f".card[data-id='{console.responses[0]['id']}']").wait_for(state="detached")
    assert "freeze" not in page.url


async def test_filters_are_in_the_url(visit: Visit, console: MadeUpConsole) -> None:
    """Ask the server with the filters that the URL has, and put a chosen one there."""
    page = await visit.to("?view=now&tenant=acme")
    await page.locator(".card").first.wait_for()
    assert any("api/now?tenant=acme" in asked for asked in console.asked)
    contexts = " ".join(await page.locator(".card-context").all_text_contents())
    assert set(re.findall(r"for (\w+)", contexts)) == {"acme"}
    await page.get_by_label("model").select_option("sonata-4")
    await page.locator(".card:not(:has-text('sonata-4'))").first.wait_for(state="detached")
    assert "tenant=acme" in page.url
    assert "model=sonata-4" in page.url
    await page.get_by_role("button", name="Clear").click()
    assert "tenant" not in page.url


async def test_no_words_are_shown_before_somebody_asks(visit: Visit, console: MadeUpConsole) -> None:
    """Hide texts where the server does, and ask for them only when somebody wants them."""
    console.me["texts"] = "hidden"
    page = await visit.to()
    await page.locator(".card").first.wait_for()
    assert "sorry" not in await text_of(page)
    await page.get_by_role("button", name="Show texts").click()
    await page.locator(".words:has-text('sorry')").first.wait_for()
    assert "texts=1" in page.url
    assert any("api/now?texts=1" in asked for asked in console.asked)


async def test_all_can_be_done_with_the_keyboard(visit: Visit, console: MadeUpConsole) -> None:
    """Walk through the page: the skip link, the list of keys, the views, a response and back."""
    page = await visit.to()
    await page.locator(".card").first.wait_for()
    await page.keyboard.press("Tab")
    assert await focused(page) == "To the content"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.get_by_role("button", name="Keys").focus()
    await page.keyboard.press("?")
    await page.locator("dialog[open]").wait_for()
    await page.keyboard.press("a")
    assert "Now" in await page.title(), "keys act behind a dialog"
    await page.keyboard.press("Escape")
    await page.locator("dialog[open]").wait_for(state="detached")
    assert "Keys" in await focused(page)
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    assert await focused(page) == console.responses[1]["id"]
    await page.keyboard.press("Enter")
    await page.locator("h1:has-text('Response')").wait_for()
    await page.keyboard.press("u")
    await page.locator("h1:text-is('Now')").wait_for()
    for key, title in {"a": "Alerts", "r": "Rates", "h": "Health", "s": "Search", "n": "Now"}.items():
        await page.keyboard.press(key)
        await page.locator(f"h1:text-is('{title}')").wait_for()
    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.tagName") == "SELECT"
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await page.get_by_label("Single keys act").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("a")
    assert "Now" in await page.title(), "single keys act though they are switched off"


async def focused(page: Page) -> str:
    """Return the text of the element that has the focus."""
    text: str = await page.evaluate("document.activeElement.textContent")
    return text


async def test_an_alert_is_sent_again_only_after_a_question(visit: Visit, console: MadeUpConsole) -> None:
    """Ask before an alert is sent again, then send it once; and mark one as seen."""
    page = await visit.to("?view=alerts")
    await page.get_by_role("button", name="Send again …").first.click()
    assert not [asked for asked in console.asked if asked.startswith("POST")]
    await page.get_by_role("button", name="Send it").click()
    await page.locator("dialog .said:has-text('delivered: 202 Accepted')").wait_for()
    await page.get_by_role("button", name="Close").click()
    await page.get_by_role("button", name="Seen by me").first.click()
    await page.locator(".seen:has-text('seen by ada')").first.wait_for()
    posted = [asked for asked in console.asked if asked.startswith("POST")]
    assert posted == ["POST api/alerts/alert_1/resend?", "POST api/alerts/spike_1/seen?"]


async def test_no_action_is_offered_without_the_right(visit: Visit, console: MadeUpConsole) -> None:
    """Offer neither of the two actions where the server allows none."""
    console.me["actions"] = False
    page = await visit.to("?view=alerts")
    assert await page.get_by_role("button", name=re.compile("Send again|Seen by me")).count() == 0


async def test_a_token_is_asked_for(visit: Visit, console: MadeUpConsole) -> None:
    """Ask for the token, say that one is wrong, and go on with the right one."""
    console.token = "right"  # noqa: S105 - of this test
    visit.expected = ("Failed to load resource",)
    await visit.page.goto(console.address)
    await visit.page.get_by_label("Token").fill("wrong")
    await visit.page.keyboard.press("Enter")
    await visit.page.locator(".problem:has-text('This is not the token.')").wait_for()
    await visit.page.get_by_label("Token").fill("right")
    await visit.page.keyboard.press("Enter")
    await visit.page.locator("h1:text-is('Now')").wait_for()


async def test_nothing_is_said_in_words(visit: Visit, console: MadeUpConsole) -> None:
    """Say in words that there is nothing, or that something is not known."""
    console.responses, console.alerts, console.me["archive"] = [], [], False
    visit.expected = ("Failed to load resource",)
    said = {
        "": "No response is under way.",
        "?tenant=acme": "No response fits these filters.",
        "?view=alerts": "No alert was raised.",
        "?view=response&id=unknown": "deltaloom knows nothing of this response.",
        "?view=search": "There is no archive.",
    }
    for query, words in said.items():
        page = await visit.to(query)
        await page.locator(f".empty-title:text-is('{words}')").wait_for()


async def test_a_lost_server_is_said(browser: Browser) -> None:
    """Say that the connection is lost, keep what is shown, and get everything again when it is back."""
    page = await browser.new_page()
    with served(filled(3)) as console:
        port = int(console.address.rsplit(":", 1)[1].strip("/"))
        await page.goto(console.address)
        await page.locator(LIVE).wait_for()
    await page.locator(".state:has-text('Connection lost')").wait_for()
    assert await page.locator(".card").count() == 3
    with served(filled(5), port):
        await page.locator(".card").nth(4).wait_for()
        await page.locator(LIVE).wait_for()
        await page.close()


async def test_the_pages_work_below_a_path(browser: Browser) -> None:
    """Find files and answers below the path that a proxy gives the console."""
    console = filled(3)
    console.base = "/ops/deltaloom/"
    page = await browser.new_page()
    with served(console):
        for query in ("", "?view=alerts"):
            await page.goto(console.address + query)
            await page.locator(".card, .alert").first.wait_for()
        await page.close()
    assert [asked for asked in console.asked if asked.startswith("GET api/now")]


@pytest.mark.context(reduced_motion="reduce")
async def test_nothing_moves_if_somebody_wants_it(visit: Visit) -> None:
    """Use no transition and no animation where the system asks for less motion."""
    page = await visit.to()
    moving = """[...document.querySelectorAll("*")].filter((element) => {
      const style = getComputedStyle(element);
      return style.transitionDuration !== "0s" || style.animationName !== "none";
    }).length"""
    assert await page.evaluate(moving) == 0


@pytest.mark.context(permissions=["clipboard-read", "clipboard-write"])
async def test_a_response_is_copied_as_json(visit: Visit, console: MadeUpConsole) -> None:
    """Copy all that the server told of a response."""
    console.whole = data.whole(ID, 5)
    page = await visit.to(f"?view=response&id={ID}")
    await page.get_by_role("button", name="Copy as JSON").click()
    await page.get_by_role("button", name="Copied").wait_for()
    assert json.loads(await page.evaluate("navigator.clipboard.readText()")) == console.whole
