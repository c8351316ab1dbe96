"""What Slack would get, against what it takes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.alerts.delivery import Verdict
from service.alerts.destinations.kinds import made
from service.alerts.destinations.options import SlackOptions
from service.alerts.destinations.slack import message
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
"""Of the Block Kit reference; `fallback` is what chat.postMessage advises for its `text`."""
WHOLE_AT_MOST = 13_000
CONTROL = re.compile(r"<(?!(?:!date\^\d+\^|https://))")
"""What Slack would take for a mention, a channel or a link, and is not one of ours."""


def units(text: str) -> int:
    """As JavaScript counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def texts(block: Any) -> Iterator[str]:
    """Every string under a key `text` that is shown."""
    if isinstance(block, dict):
        if isinstance(block.get("text"), str):
            yield block["text"]
        for value in block.values():
            yield from texts(value)
    elif isinstance(block, list):
        for value in block:
            yield from texts(value)


def assert_within_limits(posted: dict[str, Any]) -> None:
    """Slack refuses a message as a whole for one field too long, or empty."""
    assert posted.keys() == {"text", "blocks", "unfurl_links", "unfurl_media"}
    assert 0 < units(posted["text"]) <= LIMITS["fallback"]
    blocks = posted["blocks"]
    assert 0 < len(blocks) <= LIMITS["blocks"]
    assert sum(units(text) for text in texts(blocks)) <= WHOLE_AT_MOST
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
def test_whatever_the_alert_slack_takes_it(sent: Notification, link: str | None) -> None:
    """Slack would answer 400, and the alert would be given up."""
    posted = message(sent, link)
    assert_within_limits(posted)
    json.dumps(posted)


def test_the_largest_there_can_be() -> None:
    """The limits would hold for what is usual only."""
    name = "<\U0001f600&" * 3000
    everything = dict.fromkeys(OPEN_FIELDS, name)
    of = alert("deltaloom.refusal.finished", text=name, provider_explanation=name, **everything)
    one = notification(of, category=name, rule=name, id=name)
    for sent in (one, digest(one, one, one, category=name, rule=name)):
        assert_within_limits(message(sent, "https://console.example/{response_id}"))


@given(notifications())
def test_nothing_in_an_alert_calls_anybody(sent: Notification) -> None:
    """A model, or whoever names a tenant, could ring everybody in the channel or plant a link."""
    posted = message(sent)
    shown = [posted["text"], *texts([each for each in posted["blocks"] if each["type"] != "header"])]
    assert not any(CONTROL.search(text) for text in shown)


def test_the_text_is_quoted_and_escaped() -> None:
    """A reader would see something else than what the model said."""
    posted = message(notification(alert(text="Hi <!channel> & <https://x|y>\nsecond")))
    (quotation,) = [text for text in texts(posted["blocks"]) if text.startswith(">")]
    assert quotation == ">Hi &lt;!channel&gt; &amp; &lt;https://x|y&gt;\n>second"


def test_an_explanation_is_told_from_a_text() -> None:
    """The provider's words would be taken for the model's."""
    posted = message(notification(alert(text="", provider_explanation="About <@U1> & more")))
    (explanation,) = [text for text in texts(posted["blocks"]) if text.startswith("*Explanation*")]
    assert explanation == "*Explanation*\n>About &lt;@U1&gt; &amp; more"


def test_a_link_to_what_was_asked() -> None:
    """A person who reads of a refusal would not find the request; or a reference could forge a link."""
    good, hostile = (
        message(notification(alert(reference=each)), "{reference}")
        for each in ("https://portal.example/1", "https://portal.example/|*Win!*> <!channel>")
    )
    assert "<https://portal.example/1|Open the response>" in " ".join(texts(good["blocks"]))
    assert all("portal.example/|" not in text and "<!c" not in text for text in texts(hostile["blocks"]))


def test_an_unknown_severity_has_the_colour_of_a_warning() -> None:
    """A word of a later version would end the destination."""
    posted = message(notification(severity="severe"))
    assert posted["text"].startswith("🟠")
    assert "*Severity*\nsevere" in list(texts(posted["blocks"]))


def test_a_finished_alert_refers_to_the_opened_one() -> None:
    """Nobody could tell which of many refusals it belongs to."""
    opened, ended = (" ".join(texts(message(each))) for each in (notification(), finished()))
    (reference,) = re.findall(r"#[0-9a-f]{8}", opened)
    assert f"Completes the alert *{reference}*" in ended
    assert "Completes" not in opened


def test_what_a_person_reads() -> None:
    """The message would not say what happened, to whom, and where to look."""
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


def test_without_its_text_the_hash_stands_for_it() -> None:
    """Nobody could find the text that must not leave."""
    shown = " ".join(texts(message(notification(alert(text=""), privacy="none"))))
    assert "ab" * 32 in shown


def test_a_digest_shows_counts_and_examples() -> None:
    """Twelve alerts would look like one."""
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
    assert "Open the response" not in shown.rpartition("\n")[2]  # of which of them?


def test_a_digest_of_endings_completes_nothing() -> None:
    """It would refer to a message that does not exist."""
    assert "Completes" not in "\n".join(
        texts(message(replace(digest(finished(), resolves=False), alert=finished().alert)))
    )


def test_a_spike_shows_its_shares() -> None:
    """Nobody could tell whether it matters."""
    shown = "\n".join(texts(message(spike())))
    assert "50 of 200 responses (25.0%)" in shown
    assert "80 of 4000 responses (2.0%)" in shown
    assert "Ends the alert" in "\n".join(texts(message(spike(ended=True))))


async def test_it_is_posted_and_the_url_stays_secret() -> None:
    """The webhook's URL, which is its password, would stand in the log."""
    async with receiving(status(200, "ok"), status(403, "invalid_token for /services/T0/B0/abc")) as receiver:
        environment = {"SLACK": f"{receiver.url}/services/T0/B0/abc"}
        table = {"type": "slack", "url_env": "SLACK", "allow_addresses": ["127.0.0.1"]}
        destination = made("team", SlackOptions.model_validate(table), environment)
        first, second = [await destination.deliver(notification()) for _ in range(2)]
        await destination.aclose()
    assert (first.verdict, second.verdict) == (Verdict.DELIVERED, Verdict.REFUSED)
    assert second.answer == "403 Forbidden: invalid_token for …"
    assert_within_limits(receiver.received[0].json)
    assert receiver.received[0].headers["Content-Type"] == "application/json; charset=utf-8"
