"""A Slack channel, by an incoming webhook: Block Kit, within Slack's limits.

An incoming webhook answers `ok` and not which message it became, so a message can neither be changed nor be
answered in a thread. What belongs together carries the same reference instead (`#1a2b3c4d`), and the
message about a finished refusal names it; a search for it in Slack finds both.

A model's text is quoted with Slack's three control characters escaped, and `verbatim`, so that nothing in
it becomes a mention, a channel or a link. Limits: https://docs.slack.dev/reference/block-kit/blocks; of a
message as a whole, Slack refuses some from 13,000 characters on (`msg_blocks_too_long`), which is written
nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.alerts.destinations import body, secrets, wording
from service.alerts.destinations.http import HttpClient
from service.alerts.phases import phase_of
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from deltaloom.messages import ModerationAlert
    from service.alerts.delivery import Notification, Outcome
    from service.alerts.destinations.options import SlackOptions
    from service.alerts.phases import Phase

Block = dict[str, Any]

HEADER_AT_MOST = 150
FIELD_AT_MOST = 2000
FIELDS_AT_MOST = 10
SECTION_AT_MOST = 3000
TEXT_AT_MOST = 4000
"""Of the line that stands in notifications of phones, what is shown of it."""

_VALUE_AT_MOST = 250
"""Of one fact: ten of them leave room for the text."""
_EXAMPLE_AT_MOST = 600
_EXPLANATION_AT_MOST = 1000
_LINK_AT_MOST = 600
_SIGNS = {"info": "🔵", "warning": "🟠", "critical": "🔴"}
_REFERS: Mapping[Phase, str] = {"finished": "Completes the alert ", "spike_ended": "Ends the alert "}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class SlackDestination:
    """See the module."""

    def __init__(self, name: str, options: SlackOptions, environment: Mapping[str, str]) -> None:
        """Find the webhook's URL; `DestinationError` if it is not there."""
        self.name = name
        self._url = secrets.web_address(options.url_env, options.url_file, environment)
        self._link = options.link
        self._client = HttpClient(options)

    async def deliver(self, notification: Notification) -> Outcome:
        """Post one message."""
        written = body.as_json(message(notification, self._link))
        headers = {"Content-Type": "application/json; charset=utf-8"}
        return await self._client.post(self._url, written, headers, wording.texts(notification))

    async def aclose(self) -> None:
        """Give back the connections."""
        await self._client.aclose()


def message(notification: Notification, link: str | None = None) -> dict[str, Any]:
    """What is posted.

    Args:
        notification: what it is about.
        link: where a person reads more, with fields in braces.
    """
    headline = f"{_SIGNS[known(notification.severity)]} {wording.headline(notification)}"
    return {
        "text": _escaped(headline, TEXT_AT_MOST),
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": wording.cut(headline, HEADER_AT_MOST), "emoji": True},
            },
            {"type": "section", "fields": _fields(notification)},
            *_said(notification, link),
            {"type": "context", "elements": [_mrkdwn(_context(notification, link))]},
        ],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _fields(notification: Notification) -> list[Block]:
    facts = wording.facts(notification)[:FIELDS_AT_MOST]
    return [_mrkdwn(f"*{label}*\n{_escaped(value, _VALUE_AT_MOST)}") for label, value in facts]


def _said(notification: Notification, link: str | None) -> list[Block]:
    """The text, or what a digest counts and its examples."""
    digest = notification.digest
    if digest is None:
        alert = notification.alert
        text = [_section(_quoted(alert.text, SECTION_AT_MOST))] if alert.text.strip() else []
        return [*text, *_explained(alert)]
    span = f"From {_moment(digest.since)} to {_moment(digest.until)}"
    counted = _escaped("\n".join(wording.counts(notification)), SECTION_AT_MOST - len(span) - 1)
    examples = [_example(each, link) for each in digest.examples]
    return [_section(f"{span}\n{counted}"), *examples]


def _explained(alert: ModerationAlert) -> list[Block]:
    """Return the provider's words about the reason, under a label that tells them from the model's."""
    words = alert.provider_explanation
    return (
        [_section(f"*Explanation*\n{_quoted(words, _EXPLANATION_AT_MOST)}")]
        if words and words.strip()
        else []
    )


def _example(notification: Notification, link: str | None) -> Block:
    """One alert of a digest, with its own reference: what came about the same text before has it too."""
    alert = notification.alert
    names = " · ".join(each for each in (alert.response_id, alert.item_id, alert.tenant) if each)
    line = [_reference(notification), _escaped(wording.one_line(names), _VALUE_AT_MOST), _more(alert, link)]
    text = f"\n{_quoted(alert.text, _EXAMPLE_AT_MOST)}" if alert.text.strip() else ""
    return _section(" · ".join(filter(None, line)) + text)


def _context(notification: Notification, link: str | None) -> str:
    alert, digest = notification.alert, notification.digest
    phase = phase_of(alert)
    refers = "" if digest or phase is None else _REFERS.get(phase, "")
    when = _moment(digest.until if digest else alert.raised_at)
    identity = _escaped(wording.one_line(notification.id), _VALUE_AT_MOST)
    more = "" if digest else _more(alert, link)
    return " · ".join(filter(None, (refers + _reference(notification), when, identity, more)))


def _reference(notification: Notification) -> str:
    return f"*#{wording.reference(notification.group)}*"


def _more(alert: ModerationAlert, link: str | None) -> str:
    target = wording.link(link, alert)
    return f"<{_escape(target)}|Open the response>" if target and len(target) <= _LINK_AT_MOST else ""


def _moment(moment: datetime) -> str:
    """In the reader's own time zone; an old client shows it in UTC."""
    return f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time_secs}}|{wording.time(moment)}>"


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str) -> Block:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _quoted(text: str, at_most: int) -> str:
    return wording.cut(text.strip(), at_most, _quotation)


def _quotation(text: str) -> str:
    return "\n".join(f">{line}" for line in _escape(text).splitlines())


def _escaped(text: str, at_most: int) -> str:
    return wording.cut(text, at_most, _escape)


def _escape(text: str) -> str:
    return text.translate(_ESCAPES)
