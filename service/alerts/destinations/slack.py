"""A Slack channel, via an incoming webhook: Block Kit messages within Slack's limits.

An incoming webhook answers `ok` without the message's id, so a message can be neither edited nor answered in
a thread. Related messages carry the same message reference instead (`#1a2b3c4d`); a search in Slack finds
all of them.

A model's text is quoted with Slack's three control characters escaped, and as `verbatim`, so that nothing in
it becomes a mention, a channel or a link. Limits: https://docs.slack.dev/reference/block-kit/blocks. Another
limit is undocumented: Slack rejects some messages from 13,000 characters in total (`msg_blocks_too_long`);
the limits below keep a message shorter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from service.alerts.destinations import body, secrets, wording
from service.alerts.destinations.destination_type import DestinationType
from service.alerts.destinations.options import HttpOptions, NeverInFile, Variable, exactly_one
from service.alerts.phases import phase_of
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Self

    from deltaloom.messages import ModerationAlert
    from service.alerts.delivery import Notification, Outcome
    from service.alerts.phases import Phase

Block = dict[str, Any]

MAX_HEADER = 150
MAX_FIELD = 2000
MAX_FIELDS = 10
MAX_SECTION = 3000
MAX_TEXT = 4000
"""Maximum length of the fallback text, which phones show in notifications."""

_MAX_VALUE = 250
"""Maximum length of a fact; ten of them leave room for the text."""
_MAX_EXAMPLE = 600
_MAX_EXPLANATION = 1000
_MAX_LINK = 600
_SIGNS = {"info": "🔵", "warning": "🟠", "critical": "🔴"}
_REFERS: Mapping[Phase, str] = {"finished": "End of the refusal ", "spike_ended": "End of the spike "}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class SlackOptions(HttpOptions):
    """Options of a Slack channel, via an incoming webhook."""

    type: Literal["slack"]
    url: NeverInFile = None
    url_env: Variable | None = None
    url_file: Path | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        exactly_one(self, "url_env", "url_file")
        return self


class SlackDestination:
    """A destination that posts messages to a Slack channel."""

    def __init__(self, name: str, options: SlackOptions, environment: Mapping[str, str]) -> None:
        """Read the webhook's URL.

        Raises:
            DestinationError: the secret does not exist or is not a URL.
        """
        from service.alerts.destinations.http import HttpClient

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
        """Close the connections."""
        await self._client.aclose()


def message(notification: Notification, link: str | None = None) -> dict[str, Any]:
    """Return the message to post.

    Args:
        notification: the notification to show.
        link: template of a link to more information, with fields in braces; None for no link.
    """
    headline = f"{_SIGNS[known(notification.severity)]} {wording.headline(notification)}"
    return {
        "text": _escaped(headline, MAX_TEXT),
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": wording.cut(headline, MAX_HEADER), "emoji": True},
            },
            {"type": "section", "fields": _fields(notification)},
            *_content(notification, link),
            {"type": "context", "elements": [_mrkdwn(_context(notification, link))]},
        ],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _fields(notification: Notification) -> list[Block]:
    facts = wording.facts(notification)[:MAX_FIELDS]
    return [_mrkdwn(f"*{label}*\n{_escaped(value, _MAX_VALUE)}") for label, value in facts]


def _content(notification: Notification, link: str | None) -> list[Block]:
    """Return blocks with the text, or with a digest's counts and examples."""
    digest = notification.digest
    if digest is None:
        alert = notification.alert
        text = [_section(_quoted(alert.text, MAX_SECTION))] if alert.text.strip() else []
        return [*text, *_explanation(alert)]
    span = f"From {_moment(digest.since)} to {_moment(digest.until)}"
    counted = _escaped("\n".join(wording.counts(notification)), MAX_SECTION - len(span) - 1)
    examples = [_example(each, link) for each in digest.examples]
    return [_section(f"{span}\n{counted}"), *examples]


def _explanation(alert: ModerationAlert) -> list[Block]:
    """Return the provider's explanation of the reason, labelled to distinguish it from the model's text."""
    words = alert.provider_explanation
    return [_section(f"*Explanation*\n{_quoted(words, _MAX_EXPLANATION)}")] if words and words.strip() else []


def _example(notification: Notification, link: str | None) -> Block:
    """Return one alert of a digest, with the reference that other messages about the same text carry."""
    alert = notification.alert
    names = " · ".join(each for each in (alert.response_id, alert.item_id, alert.tenant) if each)
    line = [
        _reference(notification),
        _escaped(wording.one_line(names), _MAX_VALUE),
        _link_text(alert, link),
    ]
    text = f"\n{_quoted(alert.text, _MAX_EXAMPLE)}" if alert.text.strip() else ""
    return _section(" · ".join(filter(None, line)) + text)


def _context(notification: Notification, link: str | None) -> str:
    alert, digest = notification.alert, notification.digest
    phase = phase_of(alert)
    refers = "" if digest or phase is None else _REFERS.get(phase, "")
    when = _moment(digest.until if digest else alert.raised_at)
    identity = _escaped(wording.one_line(notification.id), _MAX_VALUE)
    more = "" if digest else _link_text(alert, link)
    return " · ".join(filter(None, (refers + _reference(notification), when, identity, more)))


def _reference(notification: Notification) -> str:
    return f"*#{wording.message_reference(notification.dedup_key)}*"


def _link_text(alert: ModerationAlert, link: str | None) -> str:
    target = wording.link(link, alert)
    return f"<{_escape(target)}|Open the response>" if target and len(target) <= _MAX_LINK else ""


def _moment(moment: datetime) -> str:
    """Return a time that Slack shows in the reader's time zone; old clients show UTC."""
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


destination = DestinationType(SlackOptions, SlackDestination)
