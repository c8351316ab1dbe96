"""The frames of a filter: the responses that fit, and what has changed of them.

Nothing is queued. A client names the version that it has, and gets what is newer; clients with the same
filter and version get the same bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from console.json_bodies import json_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from console.live_responses import LivePart, LiveResponse, LiveResponses, Place
    from console.minute_counts import MinuteCounts
    from console.rate_chart import RateChart
    from console.text_policy import TextPolicy

MAX_ROWS: Final = 200
"""Maximum responses of a view: those that began last."""

FRAME_BYTES: Final = 512 * 1024
"""Bytes of a frame's responses, unless a single one has more; the others go into the next frame."""

SHOWN: Final = 4000
"""Maximum characters of a text in a frame: its newest ones."""

SHOWN_OF_ROW: Final = 8000
"""Maximum characters of all texts of a response in a frame; the first parts have fewer if there are many."""

_LEFT: Final = 2000
"""Ids of responses that have left a view which are remembered."""


class LiveFilter(NamedTuple):
    """The responses that a client wants to see; None for any."""

    model: str | None = None
    tenant: str | None = None
    provider: str | None = None
    kind: str | None = None
    status: str | None = None

    def fits(self, response: LiveResponse) -> bool:
        """Return whether a response is one of them."""
        if self.status is not None and not _has_status(response, self.status):
            return False
        if self.kind is not None and all(kind != self.kind for _, _, kind in response.parts):
            return False
        wanted = self._wanted()
        context: Mapping[str, str | None] = response.context if wanted else {}
        return all(context.get(name) == value for name, value in wanted)

    def may_fit(self, fields: Mapping[bytes, bytes]) -> bool:
        """Return whether the response of an input entry may be one of them, by the entry's own fields."""
        for name, value in self._wanted():
            given = fields.get(name.encode())
            if given and given != value.encode("utf-8", "surrogatepass"):
                return False
        return True

    def _wanted(self) -> list[tuple[str, str]]:
        wanted = (("model", self.model), ("tenant", self.tenant), ("provider", self.provider))
        return [(name, value) for name, value in wanted if value is not None]


def _has_status(response: LiveResponse, status: str) -> bool:
    match status:
        case "ended":
            return response.ended is not None
        case "refused":
            return response.refused
        case "blocked":
            return response.blocked
        case "alerted":
            return bool(response.alerts)
        case _:
            return response.status == status


class ViewFrame(NamedTuple):
    """A message to a client."""

    event: str
    version: int
    """Version that the client then has."""
    body: bytes
    """The JSON object without its first bracket, for the fields that differ by client."""
    is_empty: bool
    """True if nothing has changed but counters."""


class LiveView:
    """The responses that fit a filter, with their texts shown or hidden.

    Args:
        wanted: the filter.
        responses: all responses.
        policy: shows or hides texts.
        chart: counts over time.
        minute: counts of the last minute.
    """

    def __init__(
        self,
        wanted: LiveFilter,
        responses: LiveResponses,
        policy: TextPolicy,
        chart: RateChart,
        minute: MinuteCounts,
    ) -> None:
        self.wanted = wanted
        self._responses = responses
        self._policy = policy
        self._chart = chart
        self._minute = minute
        self._version = -1
        self._rows: list[LiveResponse] = []
        self._matching = 0
        self._entered: dict[str, int] = {}
        """Version at which each of the rows came into the view."""
        self._left: OrderedDict[str, int] = OrderedDict()
        self._forgotten = responses.version
        """A client with an earlier version gets everything, as rows may have left since."""
        self._rendered: dict[str, tuple[int, bytes]] = {}
        self._frames: dict[int, ViewFrame | None] = {}
        """Frames of the present version, by the version of the client."""

    def frame(self, since: int | None) -> ViewFrame | None:
        """Return what a client does not have; None if it has everything.

        Args:
            since: version that the client has; None for nothing.
        """
        self._refresh()
        if since is None or not self._forgotten <= since <= self._version:
            since = -1
        if since not in self._frames:
            self._frames[since] = self._made(since)
        return self._frames[since]

    def _refresh(self) -> None:
        """Find the rows of the present version."""
        version = self._responses.version
        if version == self._version:
            return
        entered = version if self._version > 0 else 0
        self._version = version
        self._frames.clear()
        self._rows, self._matching = self._responses.newest(self.wanted.fits, MAX_ROWS)
        before = self._entered
        self._entered = {row.id: before.get(row.id, entered) for row in self._rows}
        for name in before.keys() - self._entered.keys():
            self._left[name] = version
            self._rendered.pop(name, None)
        for name in self._entered.keys() - before.keys():
            self._left.pop(name, None)
        while len(self._left) > _LEFT:
            _, self._forgotten = self._left.popitem(last=False)

    def _made(self, since: int) -> ViewFrame | None:
        if since == self._version:
            return None
        changed = [(max(row.version, self._entered[row.id]), row) for row in self._rows]
        newer = sorted(((at, row) for at, row in changed if at > since), key=lambda each: each[0])
        gone = [name for name, at in self._left.items() if at > since >= 0]
        chart = self._chart.rows_since(since)
        bodies: list[tuple[LiveResponse, bytes]] = []
        size, version = 0, self._version
        for number, (at, row) in enumerate(newer):
            body = self._row(row)
            if bodies and size + len(body) > FRAME_BYTES and at > newer[number - 1][0]:
                version = newer[number - 1][0]
                break
            bodies.append((row, body))
            size += len(body)
        bodies.sort(key=lambda each: each[0].began, reverse=True)
        fields: dict[str, Any] = {"counters": self._counters()}
        if since < 0 or chart["rows"]:
            fields["chart"] = {**chart, "spikes": self._spikes()}
        if since >= 0:
            fields["gone"] = gone
        rows = b",".join([body for _, body in bodies])
        return ViewFrame(
            "state" if since < 0 else "change",
            version,
            b'"responses":[' + rows + b"]," + json_bytes(fields)[1:],
            since >= 0 and not (newer or gone or chart["rows"]),
        )

    def _counters(self) -> dict[str, Any]:
        return {
            "open": self._responses.open_count,
            "matching": self._matching,
            "minute": {**self._chart.last_minute(), **self._minute.to_json()},
        }

    def _spikes(self) -> list[dict[str, Any]]:
        return [{**spike, "name": self._policy.name(spike["name"])} for spike in self._responses.spikes]

    def _row(self, response: LiveResponse) -> bytes:
        """Return a response as JSON, made once for each of its versions."""
        version, body = self._rendered.get(response.id, (-1, b""))
        if version != response.version:
            body = json_bytes(_to_json(response, self._policy))
            self._rendered[response.id] = response.version, body
        return body


def _to_json(response: LiveResponse, policy: TextPolicy) -> dict[str, Any]:
    context = response.context
    name: Callable[[str | None], str | None] = policy.name
    alert = next(iter(response.alerts.values()), None)
    parts, room = [], SHOWN_OF_ROW
    for place, part in sorted(response.parts.items(), reverse=True):
        shown = min(SHOWN, room)
        parts.append(_part(place, part, policy, shown))
        room -= min(shown, part.text.length)
    return {
        "id": response.id,
        "source": response.source,
        "model": name(context.get("model")),
        "tenant": name(context.get("tenant")),
        "provider": name(context.get("provider")),
        "status": response.status,
        "reason": policy.reason(response.reason),
        "reason_class": response.reason_class,
        "began": response.began,
        "ended": response.ended,
        "refused": response.refused,
        "blocked": response.blocked,
        "alert": None if alert is None else alert.to_json(),
        "parts": parts[::-1],
    }


def _part(place: Place, part: LivePart, policy: TextPolicy, shown: int) -> dict[str, Any]:
    output_index, content_index, kind = place
    text = policy.end_of(part.text, shown)
    return {
        "kind": kind,
        "output_index": output_index,
        "content_index": content_index,
        "text": text,
        "hidden": text is None,
        "cut": part.text.length > shown,
        "length": part.text.length,
        "status": part.status,
        "integrity": part.integrity,
    }
