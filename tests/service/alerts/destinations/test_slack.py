"""Test Slack messages against Slack's limits."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.alerts.delivery import Verdict
from service.alerts.destinations.registry import create_destination
from service.alerts.destinations.slack import SlackOptions, message
from tests.notifications import OPEN_FIELDS, alert, digest, finished, notification, notifications, spike
from tests.receivers import receiving, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.alerts.delivery import Notification

LIMITS = {
    "header": 150,
    "text": 3000,
    "field": 2000,
    "fields": 10,
    "elements": 10,
    "blocks": 50,
    "fallback": 4000,
}
"""Limits of the Block Kit reference; `fallback` is chat.postMessage's advice for its `text`."""
MAX_WHOLE = 13_000
CONTROL = re.compile(r"<(?!(?:!date\^\d+\^|https://))")
"""Text that Slack would read as a mention, a channel or a link that is not ours."""


def units(text: str) -> int:
    """Return the length in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def texts(block: Any) -> Iterator[str]:
    """Yield all strings under a key `text` that Slack shows."""
    if isinstance(block, dict):
        if isinstance(block.get("text"), str):
            yield block["text"]
        for value in block.values():
            yield from texts(value)
    elif isinstance(block, list):
        for value in block:
            yield from texts(value)


def assert_within_limits(posted: dict[str, Any]) -> None:
    """Check Slack's limits. Slack refuses a whole message if one field is too long or empty."""
    assert posted.keys() == {"text", "blocks", "unfurl_links", "unfurl_media"}
    assert 0 < units(posted["text"]) <= LIMITS["fallback"]
    blocks = posted["blocks"]
    assert 0 < len(blocks) <= LIMITS["blocks"]
    assert sum(units(text) for text in texts(blocks)) <= MAX_WHOLE
    for block in blocks:
        match block["type"]:
            case "header":
                assert block["text"]["type"] == "plain_text"
                assert 0 < units(block["text"]["text"]) <= LIMITS["header"]
            case "section":
                assert ("text" in block) != ("fields" in block)
                shown = block.get("fields", [block.get("text")])
                assert 0 < len(shown) <= LIMITS["fields"]
                limit = LIMITS["field" if "fields" in block else "text"]
                assert all(each["type"] == "mrkdwn" and each["verbatim"] for each in shown)
                assert all(0 < units(each["text"]) <= limit for each in shown)
            case "context":
                assert 0 < len(block["elements"]) <= LIMITS["elements"]
                assert all(0 < units(each["text"]) <= LIMITS["text"] for each in block["elements"])
            case other:
                raise AssertionError(other)


@settings(max_examples=200)
@given(notifications(), st.sampled_from([None, "https://console.example/{response_id}?of={tenant}"]))
def test_any_alert_is_a_valid_message(sent: Notification, link: str | None) -> None:
    """Build a message within Slack's limits for any alert. Otherwise Slack would answer 400."""
    posted = message(sent, link)
    assert_within_limits(posted)
    json.dumps(posted)


def test_the_largest_there_can_be() -> None:
    """Keep the largest message within the limits."""
    name = "<\U0001f600&" * 3000
    everything = dict.fromkeys(OPEN_FIELDS, name)
    of = alert("deltaloom.refusal.finished", text=name, provider_explanation=name, **everything)
    one = notification(of, category=name, rule=name, id=name)
    for sent in (one, digest(one, one, one, category=name, rule=name)):
        assert_within_limits(message(sent, "https://console.example/{response_id}"))


@given(notifications())
def test_mentions_and_links_are_neutralized(sent: Notification) -> None:
    """Neutralize mentions and links. Otherwise a model could notify a whole channel."""
    posted = message(sent)
    shown = [posted["text"], *texts([each for each in posted["blocks"] if each["type"] != "header"])]
    assert not any(CONTROL.search(text) for text in shown)


def test_the_text_is_quoted_and_escaped() -> None:
    """Quote and escape the text."""
    posted = message(notification(alert(text="Hi <!channel> & <https://x|y>\nsecond")))
    (quotation,) = [text for text in texts(posted["blocks"]) if text.startswith(">")]
    assert quotation == ">Hi &lt;!channel&gt; &amp; &lt;https://x|y&gt;\n>second"


def test_an_explanation_is_labelled() -> None:
    """Label the provider's explanation, to distinguish it from the model's text."""
    posted = message(notification(alert(text="", provider_explanation="About <@U1> & more")))
    (explanation,) = [text for text in texts(posted["blocks"]) if text.startswith("*Explanation*")]
    assert explanation == "*Explanation*\n>About &lt;@U1&gt; &amp; more"


def test_a_link_to_the_request() -> None:
    """Link to the request, and escape a reference that could forge another link."""
    good, hostile = (
        message(notification(alert(reference=each)), "{reference}")
        for each in ("https://portal.example/1", "https://portal.example/|*Win!*> <!channel>")
    )
    assert "<https://portal.example/1|Open the response>" in " ".join(texts(good["blocks"]))
    assert all("portal.example/|" not in text and "<!c" not in text for text in texts(hostile["blocks"]))


def test_an_unknown_severity_has_the_colour_of_a_warning() -> None:
    """Show an unknown severity with the colour of a warning, instead of failing."""
    posted = message(notification(severity="severe"))
    assert posted["text"].startswith("🟠")
    assert "*Severity*\nsevere" in list(texts(posted["blocks"]))


def test_a_finished_alert_refers_to_the_opened_one() -> None:
    """Refer from a finished alert to its opened alert."""
    opened, ended = (" ".join(texts(message(each))) for each in (notification(), finished()))
    (reference,) = re.findall(r"#[0-9a-f]{8}", opened)
    assert f"End of the refusal *{reference}*" in ended
    assert "End of" not in opened


def test_a_message_has_headline_fields_and_link() -> None:
    """Show the headline, the fields and a link."""
    sent = notification(alert(response_id="resp/1"), test=True)
    posted = message(sent, "https://console.example/responses/{response_id}")
    assert posted["text"] == "🔴 [TEST] A model refuses · self-harm · gpt-4o · tenant acme"
    fields = {
        tuple(each["text"].split("\n")) for block in posted["blocks"] for each in block.get("fields", [])
    }
    assert {("*Severity*", "critical"), ("*Model*", "gpt-4o"), ("*Response*", "resp/1")} <= fields
    assert (
        "<https://console.example/responses/resp%2F1|Open the response>"
        in posted["blocks"][-1]["elements"][0]["text"]
    )


def test_the_hash_replaces_a_missing_text() -> None:
    """Show the text's hash if the text must not leave."""
    shown = " ".join(texts(message(notification(alert(text=""), privacy="none"))))
    assert "ab" * 32 in shown


def test_a_digest_shows_counts_and_examples() -> None:
    """Show a digest's counts and examples."""
    shown = "\n".join(
        texts(
            message(
                digest(notification(), notification(alert(response_id="resp_2"))),
                "https://console.example/{response_id}",
            )
        )
    )
    assert "12 similar alerts · self-harm" in shown
    assert "9 times refusal.opened · gpt-4o" in shown
    assert "> · resp_2" not in shown
    assert (
        " · resp_2 · msg_1 · acme · <https://console.example/resp_2|Open the response>\n>I'm sorry" in shown
    )
    assert "Open the response" not in shown.rpartition("\n")[2]  # a link would be ambiguous here


def test_a_digest_of_endings_completes_nothing() -> None:
    """Refer from a digest to no opened alert."""
    assert "End of" not in "\n".join(
        texts(message(replace(digest(finished(), resolves=False), alert=finished().alert)))
    )


def test_a_spike_shows_its_shares() -> None:
    """Show the shares of window and baseline."""
    shown = "\n".join(texts(message(spike())))
    assert "50 of 200 responses (25.0%)" in shown
    assert "80 of 4000 responses (2.0%)" in shown
    assert "End of the spike" in "\n".join(texts(message(spike(ended=True))))


async def test_it_is_posted_and_the_url_stays_secret() -> None:
    """Post the message, and keep the webhook's URL, which is its password, out of the logged answer."""
    async with receiving(status(200, "ok"), status(403, "invalid_token for /services/T0/B0/abc")) as receiver:
        environment = {"SLACK": f"{receiver.url}/services/T0/B0/abc"}
        table = {"type": "slack", "url_env": "SLACK", "allow_addresses": ["127.0.0.1"]}
        destination = create_destination("team", SlackOptions.model_validate(table), environment)
        first, second = [await destination.deliver(notification()) for _ in range(2)]
        await destination.aclose()
    assert (first.verdict, second.verdict) == (Verdict.DELIVERED, Verdict.REFUSED)
    assert second.answer == "403 Forbidden: invalid_token for …"
    assert_within_limits(receiver.received[0].json)
    assert receiver.received[0].headers["Content-Type"] == "application/json; charset=utf-8"
