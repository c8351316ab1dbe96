"""Test the picture of Slack messages against the messages that are sent."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from service.alerts.deciding.config import parse
from service.alerts.deciding.policy import Policy
from service.alerts.delivery import Notification
from service.alerts.destinations.slack import message
from tests.docs.pages import ROOT
from tests.notifications import RAISED_AT, alert

if TYPE_CHECKING:
    from deltaloom import ModerationAlert

LINK = "https://console.example/responses/{response_id}"
IDS: dict[str, Any] = {"response_id": "resp_68a1", "item_id": "msg_68a2"}
TEXT = "I can't help with hurting yourself. You can call 988 at any hour."
POLICY = Policy(
    parse(
        """
        [destinations.trust-and-safety]
        type = "log"
        [[routes]]
        name = "team"
        to = "trust-and-safety"
        text = "full"
        """,
        "alerts.toml",
    )
)


def judged(of: ModerationAlert) -> Notification:
    """Return the notification of an alert by the shipped rules."""
    made = POLICY.decide(of, of.raised_at)["trust-and-safety"]
    assert isinstance(made, Notification)
    return made


OPENED = alert(text="I can't", **IDS)
FINISHED = alert("deltaloom.refusal.finished", text=TEXT, raised_at=RAISED_AT + timedelta(seconds=2), **IDS)
MESSAGES = ((judged(OPENED), "5:06:07 AM"), (judged(FINISHED), "5:06:09 AM"))
"""The notifications in the picture, and their times of day."""

_DATE = re.compile(r"<!date\^[^>]*>")
_LINK = re.compile(r"<https[^|]*\|([^>]*)>")


def shown(text: str, time_of_day: str) -> str:
    """Return a message's text as Slack renders it."""
    plain = _LINK.sub(r"\1", _DATE.sub(f"Mar 4th, {time_of_day}", text))
    return plain.replace("*", "").removeprefix(">").removeprefix("🔴 ").removeprefix("🟠 ")


def test_the_picture_shows_the_sent_messages() -> None:
    """Show all texts of the messages."""
    picture = ET.parse(ROOT / "docs/slack.svg").getroot()  # noqa: S314 - our own file
    lines = ["".join(element.itertext()) for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    for sent, time_of_day in MESSAGES:
        header, fields, quotation, context = message(sent, LINK)["blocks"]
        for field in fields["fields"]:
            assert set(shown(field["text"], time_of_day).split("\n")) <= set(lines)
        for block in (header["text"], quotation["text"], context["elements"][0]):
            assert shown(block["text"], time_of_day) in lines
