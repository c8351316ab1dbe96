"""The page of rates: how many responses were refused or blocked, by model, provider and tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from console.console_errors import bad_request
from console.json_bodies import ms_of
from console.rate_counts import sum_of
from console.wilson import wilson
from service.rates.proportions import Count, score
from service.storage.redis_rates import RedisRates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from console.console_settings import ConsoleSettings
    from console.rate_counts import Buckets, RateCounts
    from console.site import PageRequest
    from console.text_policy import TextPolicy
    from deltaloom.messages import ModerationAlert
    from service.rates.spikes import Subject

PARAMETERS: Final = ("hours", "by", "name")
HOURS: Final = (1, 6, 24, 168)
MAX_GROUPS: Final = 200
"""Maximum models, providers and tenants that are listed: those with the most responses."""

_HOUR_MS: Final = 3_600_000


class RatesPage:
    """The answers of `api/rates`.

    Args:
        client: client of the server.
        settings: the settings; window and baseline must be those of the workers.
        counts: the counts of the workers.
        policy: redacts names.
    """

    def __init__(
        self, client: Redis, settings: ConsoleSettings, counts: RateCounts, policy: TextPolicy
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._policy = policy
        self._rates = RedisRates(client, settings, looks_first=False)

    async def answer(self, page: PageRequest) -> dict[str, Any]:
        """Return the rates of the last hours."""
        hours = page.query.number("hours", 24, 1, HOURS[-1])
        if hours not in HOURS:
            raise bad_request(f"hours is one of {', '.join(map(str, HOURS))}")
        by, name = page.query.one_of("by", ("model", "provider", "tenant")), page.query.text("name")
        if not self._settings.spike_window:
            return {"groups": [], "unknown": ["Nothing is counted: DELTALOOM_SPIKE_WINDOW is 0."]}
        narrow = hours == 1
        now, buckets = await (self._counts.narrow() if narrow else self._counts.wide())
        step = self._counts.step_ms if narrow else self._counts.wide_ms
        since = max(min(buckets), now - hours * _HOUR_MS - step)
        shown = {start: counts for start, counts in buckets.items() if start >= since}
        spikes = await self._rates.spikes()
        totals = _totals(shown)
        chosen = [
            subject
            for subject in sorted(totals, key=lambda each: (-totals[each].responses, each))
            if by in {None, subject.scope} and name in {None, subject.name}
        ]
        groups = [self._group(subject, totals[subject], shown, spikes) for subject in chosen[:MAX_GROUPS]]
        return {
            "at": now,
            "since": since,
            "step_ms": step,
            "groups": groups,
            "unknown": self._unknown(hours, since, now, len(chosen)),
        }

    def _group(
        self, subject: Subject, total: Count, buckets: Buckets, spikes: Mapping[Subject, ModerationAlert]
    ) -> dict[str, Any]:
        rows = [
            [start, *_figures(counts[subject])]
            for start, counts in sorted(buckets.items())
            if subject in counts
        ]
        spike = spikes.get(subject)
        began = (
            []
            if spike is None or spike.rate is None
            else [{"since": ms_of(spike.raised_at), "until": None, "score": spike.rate.score}]
        )
        return {
            "by": subject.scope,
            "name": self._policy.name(subject.name),
            "total": _figures(total),
            "rows": rows,
            "spikes": began,
            "change": _change(subject, buckets),
        }

    def _unknown(self, hours: int, since: int, now: int, found: int) -> list[str]:
        unknown = []
        missing = hours * _HOUR_MS - (now - since)
        if missing > 0:
            unknown.append(
                f"Workers keep these counts for {_span(now - since)} only: what was before is not known. "
                "Prometheus keeps deltaloom_responses_total for longer."
            )
        if found > MAX_GROUPS:
            unknown.append(
                f"{found - MAX_GROUPS:,} names with fewer responses are not listed: filter by name."
            )
        unknown.append(
            "Responses without a response_id, or of which no model, provider or tenant is known, "
            "are not counted."
        )
        return unknown


def _totals(buckets: Buckets) -> dict[Subject, Count]:
    totals: dict[Subject, Count] = {}
    for counts in buckets.values():
        for subject, count in counts.items():
            totals[subject] = totals.get(subject, Count()).plus(count)
    return totals


def _figures(count: Count) -> list[float]:
    """Return a count, with the intervals of both shares."""
    refused, blocked = wilson(count.refused, count.responses), wilson(count.blocked, count.responses)
    return [count.responses, count.refused, count.blocked, *(round(each, 6) for each in (*refused, *blocked))]


def _change(subject: Subject, buckets: Buckets) -> dict[str, float] | None:
    """Compare the second half of the time with the first; None if one has no responses."""
    starts = sorted(buckets)
    middle = len(starts) // 2
    halves = [
        sum_of(buckets[start].get(subject, Count()) for start in some)
        for some in (starts[:middle], starts[middle:])
    ]
    before, now = halves
    if not before.responses or not now.responses:
        return None
    return {"before": before.share, "now": now.share, "score": round(score(now, before), 2)}


def _span(ms: int) -> str:
    hours = ms / _HOUR_MS
    return f"{hours:.0f} hours" if hours >= 2 else f"{ms / 60_000:.0f} minutes"  # noqa: PLR2004 - singular
