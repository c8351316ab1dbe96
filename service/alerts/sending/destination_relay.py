"""Deliver the pending alerts of one destination while this process holds the destination's lease.

```text
accept             decide what to do with alerts that were read (_divide); finish those that make no message
Windows.place      hold the message for a digest, or
Schedule.add       add it to the schedule, behind messages about the same part
_give_up_expired   give up messages `give_up_after` seconds after their alert
_send              begin attempts while the lease is held, no pause is in effect, and the rate limit
                   allows it;
                   give up every message while the destination is disabled
_attempt           deliver the message once:
  delivered          _record_delivered: record and acknowledge its alerts, so that they are no longer pending
  retry              _try_again: put it back into the schedule, with a pause
  refused, gone      _give_up: copy to the undelivered alerts, record and acknowledge, in one step
```

Memory holds only alerts that are pending in Redis anyway: if the process ends at any point, the next lease
holder takes all of them over. An alert that was delivered but not yet acknowledged is then delivered again,
with the same id. Each alert that made a message, and each unreadable entry, has one `Delivery`, which is
recorded with its acknowledgement.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from service import logs
from service.alert_parsing import NotAnAlertError, parse_alert
from service.alerts.delivery import Outcome, Verdict
from service.alerts.sending.delivery_record import AcceptedAlert, delivery_of
from service.alerts.sending.grouping import Windows, make_digest, rebuild_digest
from service.alerts.sending.health import Health, pause_after
from service.alerts.sending.in_flight import InFlightLimit
from service.alerts.sending.message import OutgoingMessage
from service.alerts.sending.schedule import Schedule
from service.alerts.sending.token_bucket import TokenBucket
from service.ports.outbox import Confirmation, EndedDelivery, Failure, SavedDigest
from service.ports.spans import DeliveryAttempt
from service.ports.storage import StorageUnavailableError
from service.ports.telemetry import SILENT_RELAY

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from deltaloom.messages import DeliveryOutcome, ModerationAlert, UndeliveredReason
    from service.alerts.delivery import Destination, Notification
    from service.alerts.destinations.options import CommonOptions
    from service.alerts.sending.lease import Lease
    from service.ports.outbox import EntryRef, Outbox, PendingAlert
    from service.ports.telemetry import RelayTelemetry
    from service.retrying import RetryUntilAvailable

_ATTEMPT_TIMEOUT: Final = 330.0
"""Maximum seconds for an attempt. Destinations have timeouts of up to 300 s; this catches one that hangs."""

_LARGE_BYTES: Final = 10_000
"""Size in bytes above which an alert is decided on in a thread; a smaller one takes a few milliseconds."""

_CHECK_INTERVAL: Final = 1.0
"""Maximum seconds between two rounds of `run`: some things do not wake it, such as a message that expires."""
_LOG_AGAIN_AFTER: Final = 300.0
"""Seconds between two log lines about a destination that is down."""
_MAX_EXPIRED: Final = 100
"""Maximum messages that one round of `run` gives up because they have expired."""
_NEVER_TRIED: Final = "no attempt was made"


class Decide(Protocol):
    """A function that makes this destination's message from an alert, or returns None if there is none."""

    def __call__(self, alert: ModerationAlert, now: datetime, /) -> Notification | None:
        """Return the message for this destination at the time `now`, or None."""
        ...


class _Decided(NamedTuple):
    """An alert that was read, with the decision on it."""

    alert: AcceptedAlert
    left_out: Sequence[str]
    notification: Notification | None


@dataclass(slots=True)
class _Divided:
    """Alerts that were read, divided by what happens to them."""

    messages: list[OutgoingMessage] = field(default_factory=list)
    not_sent: list[EntryRef] = field(default_factory=list)
    unreadable: list[tuple[EntryRef, str]] = field(default_factory=list)
    """Entries that hold no valid alert, each with the reason."""


class DestinationRelay:
    """Delivery to one destination.

    Args:
        destination: receiver of the messages.
        options: rate limit, grouping and time limit of the destination.
        decide: makes the destination's message from an alert.
        outbox: the pending alerts of the destination.
        lease: the destination's lease; nothing is sent unless it is held.
        retrying: repeats outbox calls while Redis is unavailable.
        telemetry: counts the outcomes, and reports the attempts.
    """

    def __init__(
        self,
        destination: Destination,
        options: CommonOptions,
        decide: Decide,
        outbox: Outbox,
        lease: Lease,
        retrying: RetryUntilAvailable,
        telemetry: RelayTelemetry = SILENT_RELAY,
    ) -> None:
        self._instruments = telemetry.instruments
        self._spans = telemetry.spans
        self._destination = destination
        self._options = options
        self._decide = decide
        self._outbox = outbox
        self._lease = lease
        self._retrying = retrying
        self._clock = asyncio.get_running_loop().time
        self._schedule = Schedule()
        self._health = Health()
        self._in_flight = InFlightLimit()
        rate, group = options.rate_limit, options.group
        self._bucket = rate and TokenBucket(rate.per_minute, rate.burst, self._clock())
        self._windows = group and Windows(group, self._schedule.is_scheduled)
        self._accepted: dict[EntryRef, AcceptedAlert] = {}
        """Alerts whose messages were accepted and are not done yet, by entry."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._disabled: str | None = None
        """Answer of the destination when it reported that it no longer exists; None while it is enabled."""
        self._disabled_is_stored = False
        """False until Redis has the answer: before that, its absence there does not mean "enabled"."""
        self._last_answer = _NEVER_TRIED
        """Last answer to any message, which an expired message is stored with."""
        self._announced_until = 0.0
        """Event loop time at which the pause logged last ends."""
        self._down_since = 0.0
        """Event loop time at which the destination went down."""
        self._down_logged_at = 0.0
        """Event loop time at which it was logged last that the destination is down."""
        self._next_check = 0.0
        self._wake = asyncio.Event()
        """Set to begin the next round of `run` at once."""
        self._ending = False

    # ---------------------------------------------------------------------------------------------- accepting

    async def resume(self) -> None:
        """Finish what the previous lease holder began; call this before `accept`."""
        self._disabled = await self._retrying.call(self._outbox.disabled_answer)
        self._disabled_is_stored = self._disabled is not None
        saved = await self._retrying.call(self._outbox.digests)
        for digest_id, digest in saved.items():
            if digest.confirmation is not None:
                await self._finish_confirmed(digest_id, digest.refs, digest.confirmation)
            else:
                await self._resume_digest(digest_id, digest)

    async def accept(self, entries: Sequence[PendingAlert]) -> None:
        """Accept alerts that were read, in the order of their stream. Return when there is room for more."""
        divided = await self._divide(entries)
        now = self._clock()
        for message in divided.messages:
            for each in self._windows.place(message, now) if self._windows else [message]:
                self._schedule.add(each)
        if self._in_flight.full:
            self._send_fullest_window()
        self._wake.set()
        await self._finish_unsent(divided)
        await self._in_flight.wait()

    @property
    def last_answer(self) -> str:
        """The last answer of the destination to any message, or a phrase that says that there was none."""
        return self._last_answer

    @property
    def paused(self) -> bool:
        """True while the destination is disabled or down, or has asked for a pause."""
        return self._disabled is not None or self._health.down or self._clock() < self._health.paused_until

    async def check_enabled(self) -> None:
        """Resume if an operator has enabled the disabled destination again."""
        if self._disabled_is_stored and await self._outbox.disabled_answer() is None:
            self._disabled, self._disabled_is_stored = None, False
            logs.logger().warning("destination enabled")
            self._wake.set()

    async def _divide(self, entries: Iterable[PendingAlert]) -> _Divided:
        """Parse alerts and divide them by what happens next; those that make a message are now in flight."""
        now = datetime.now(UTC)
        decisions = [
            (each, await self._decide_entry(each, now)) for each in entries if each.ref not in self._accepted
        ]
        divided = _Divided()
        for entry, decided in decisions:
            if entry.ref in self._accepted:  # duplicate within `entries`, or accepted meanwhile
                continue
            if isinstance(decided, NotAnAlertError):
                divided.unreadable.append((entry.ref, f"the entry holds no alert: {decided}"))
                continue
            if decided.left_out:
                logs.logger().warning(
                    "alert fields ignored", alert=decided.alert.alert_id, left_out=list(decided.left_out)
                )
            if decided.notification is None:
                divided.not_sent.append(entry.ref)
            else:
                divided.messages.append(self._take_in(entry, decided.alert, decided.notification))
        return divided

    async def _decide_entry(self, entry: PendingAlert, now: datetime) -> _Decided | NotAnAlertError:
        """Parse an alert and decide on it; a large one in a thread, because rules take long to search it."""
        if len(entry.data or b"") <= _LARGE_BYTES:
            return self._parse_and_decide(entry, now)
        return await asyncio.to_thread(self._parse_and_decide, entry, now)

    def _parse_and_decide(self, entry: PendingAlert, now: datetime) -> _Decided | NotAnAlertError:
        try:
            alert, left_out = parse_alert(entry.data or b"")
        except NotAnAlertError as error:
            return error
        notification = self._decide(alert, now)
        return _Decided(AcceptedAlert.of(entry.ref, alert, notification), left_out, notification)

    async def _finish_unsent(self, divided: _Divided) -> None:
        """Acknowledge alerts that make no message for this destination, and give up unreadable entries."""
        if divided.not_sent:
            await self._retrying.call(self._outbox.acknowledge, divided.not_sent)
        for ref, why in divided.unreadable:
            failure = Failure("unreadable", why, 0, datetime.now(UTC))
            alert = AcceptedAlert.unreadable(ref)
            ended = self._ended_delivery(alert, "unreadable", why, 0, failure.failed_at)
            await self._record_undelivered([ended], failure, str(ref.id))

    def _take_in(
        self, entry: PendingAlert, alert: AcceptedAlert, notification: Notification
    ) -> OutgoingMessage:
        """Accept an alert, and return its message. The message is in flight from now on."""
        self._accepted[entry.ref] = alert
        size = len(entry.data or b"")
        self._in_flight.enter(size)
        age = max(time.time() - entry.ref.id.ms / 1000, 0.0)  # an id may be in the future
        expires_at = self._clock() + self._options.give_up_after - age
        return OutgoingMessage(notification, [entry.ref], [notification.dedup_key], expires_at, size)

    async def _resume_digest(self, digest_id: str, digest: SavedDigest) -> None:
        """Rebuild an unfinished digest with the same id, from those of its alerts that are still pending."""
        entries = await self._retrying.call(self._outbox.still_pending, digest.refs)
        divided = await self._divide(entries)
        await self._finish_unsent(divided)
        if not divided.messages:
            await self._retrying.call(self._outbox.delete_digest, digest_id)
            return
        by = self._options.group.by if self._options.group else ()
        message = rebuild_digest(digest_id, divided.messages, by)
        message.saved = True
        self._schedule.add(message)

    async def _finish_confirmed(
        self, digest_id: str, refs: Sequence[EntryRef], confirmation: Confirmation
    ) -> None:
        """Record and acknowledge the alerts of a confirmed digest that are still pending."""
        ended = []
        for entry in await self._retrying.call(self._outbox.still_pending, refs):
            decided = await self._decide_entry(entry, confirmation.at)
            alert = decided.alert if isinstance(decided, _Decided) else AcceptedAlert.unreadable(entry.ref)
            ended.append(self._ended_delivery(alert, "delivered", *confirmation, digest_id))
        await self._retrying.call(self._outbox.record_delivered, ended)
        await self._retrying.call(self._outbox.delete_digest, digest_id)

    # ------------------------------------------------------------------------------------------------ sending

    async def run(self) -> None:
        """Send until cancelled, or until `end` or `end_soon` is called."""
        while not self._ending:
            self._wake.clear()
            now = self._clock()
            self._end_windows(now)
            self._give_up_expired(now)
            wait = self._send(now)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def end_soon(self) -> None:
        """Stop beginning attempts, and let `accept` return at once."""
        self._ending = True
        self._in_flight.lift()
        self._wake.set()

    async def end(self) -> None:
        """Stop beginning attempts, and return when those under way have ended."""
        self.end_soon()
        while self._under_way:
            await asyncio.wait(self._under_way)

    def abandon(self) -> None:
        """Cancel the attempts under way without waiting for answers; their alerts stay pending."""
        for task in self._under_way:
            task.cancel()

    def _end_windows(self, now: float) -> None:
        if self._windows and self._options.group:
            for held in self._windows.ended(now):
                self._schedule.add(make_digest(self._destination.name, held, self._options.group.by))

    def _send_fullest_window(self) -> None:
        """Send the largest held digest now, to make room for other alerts, which may be more severe."""
        if self._windows and self._options.group and (held := self._windows.empty_fullest()):
            self._schedule.add(make_digest(self._destination.name, held, self._options.group.by))

    def _give_up_expired(self, now: float) -> None:
        if self._lease.held and now >= self._next_check:
            self._next_check = now + _CHECK_INTERVAL
            for message in self._schedule.pop_expired(now, _MAX_EXPIRED):
                self._begin(message, self._give_up(message, "expired", self._last_answer))

    def _send(self, now: float) -> float:
        """Begin all attempts that may begin now, and return the seconds until the next check."""
        while self._lease.held and not self._ending:
            wait = self._seconds_until_next(now)
            if wait > 0:
                return min(wait, _CHECK_INTERVAL)
            paused = self._disabled is None and now < self._health.paused_until
            message = self._schedule.pop(now, critical_only=paused)
            if message is None:  # pragma: no cover - then `_seconds_until_next` returned a positive time
                break
            if self._disabled is not None:
                self._begin(message, self._give_up(message, "gone", self._disabled))
                continue
            if self._bucket:
                self._bucket.consume(now)
            self._begin(message, self._attempt(message))
        return _CHECK_INTERVAL

    def _seconds_until_next(self, now: float) -> float:
        """Return the seconds until an attempt may begin or a window ends; 0 if one may begin now."""
        next_at = self._schedule.next_at()
        if next_at is None or len(self._under_way) >= self._health.max_under_way:
            # The end of an attempt wakes the loop.
            return self._until_window_ends(now)
        if self._disabled is not None:
            return next_at - now
        begins_at = max(next_at, self._health.paused_until)
        critical_at = self._schedule.next_at(critical_only=True)
        if critical_at is not None:
            begins_at = min(begins_at, max(critical_at, self._health.critical_paused_until))
        wait = begins_at - now
        if self._bucket:
            wait = max(wait, self._bucket.seconds_until_token(now))
        return min(wait, self._until_window_ends(now)) if wait > 0 else 0.0

    def _until_window_ends(self, now: float) -> float:
        ends_at = self._windows.next_end() if self._windows else None
        # Never 0, which would mean that an attempt may begin.
        return _CHECK_INTERVAL if ends_at is None else max(ends_at - now, 0.001)

    def _begin(self, message: OutgoingMessage, step: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._carry_out(message, step), name=f"alert to {self._destination.name}")
        self._under_way.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._wake.set()

    async def _carry_out(self, message: OutgoingMessage, step: Coroutine[None, None, None]) -> None:
        """Run a step; if it fails, schedule the message again, so that its lane is not blocked forever."""
        try:
            await step
        except Exception:  # noqa: BLE001 - logged, and retried
            logs.logger().exception("message failed")
            self._schedule.put_back(message, self._clock() + pause_after(max(message.attempts, 1)))

    async def _attempt(self, message: OutgoingMessage) -> None:
        if message.notification.digest and not message.saved:
            digest = SavedDigest(message.refs)
            await self._retrying.call(self._outbox.save_digest, message.notification.id, digest)
            message.saved = True
        if not self._lease.held:  # storing the digest takes time
            self._schedule.put_back(message, self._clock())
            return
        message.attempts += 1
        outcome = await self._deliver_in_span(message)
        self._last_answer = outcome.answer
        match outcome.verdict:
            case Verdict.DELIVERED:
                self._mark_reachable()
                logs.logger().debug("alert delivered", alert=message.notification.id, answer=outcome.answer)
                await self._record_delivered(message, outcome.answer)
                self._instruments.ended(self._destination.name, "delivered")
            case Verdict.RETRY:
                self._instruments.ended(self._destination.name, "retry")
                await self._log_still_down()
                self._try_again(message, outcome)  # last: an error before it schedules the message too
            case Verdict.REFUSED:
                self._mark_reachable()
                await self._give_up(message, "refused", outcome.answer)
            case Verdict.GONE:
                await self._disable(outcome.answer)
                await self._give_up(message, "gone", outcome.answer)

    async def _deliver_in_span(self, message: OutgoingMessage) -> Outcome:
        if not self._spans.on:
            return await self._deliver(message.notification)
        with self._spans.attempt(self._description_of(message)) as span:
            outcome = await self._deliver(message.notification)
            span.answered(outcome.verdict.value)
            return outcome

    def _description_of(self, message: OutgoingMessage) -> DeliveryAttempt:
        first, alert = message.refs[0], message.notification.alert
        traceparents = (self._accepted[ref].traceparent for ref in message.refs)
        return DeliveryAttempt(
            self._destination.name,
            first.stream,
            str(first.id),
            message.attempts,
            len(message.refs),
            [each for each in traceparents if each is not None],
            alert.type,
            alert.provider,
            alert.model,
        )

    async def _deliver(self, notification: Notification) -> Outcome:
        try:
            async with asyncio.timeout(_ATTEMPT_TIMEOUT):
                return await self._destination.deliver(notification)
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"delivery timed out after {_ATTEMPT_TIMEOUT:g} s")
        except Exception as error:  # noqa: BLE001 - retried; only its type is logged, as its text may hold a secret
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            logs.logger().error("destination failed", error=type(error).__name__, where=where)
            return Outcome(Verdict.RETRY, f"{type(error).__name__} in deltaloom")

    def _mark_reachable(self) -> None:
        if self._health.answered():
            logs.logger().info("destination recovered")
            self._schedule.hasten(self._clock())

    def _try_again(self, message: OutgoingMessage, outcome: Outcome) -> None:
        now = self._clock()
        was_down = self._health.down
        self._health.failed(now, outcome.retry_after)
        pause = pause_after(message.attempts)  # `_seconds_until_next` applies the destination's own pause
        self._schedule.put_back(message, min(now + pause, message.expires_at))
        log = logs.logger()
        log.debug("alert not delivered", alert=message.notification.id, answer=outcome.answer, pause=pause)
        if self._health.down and not was_down:
            self._down_since = self._down_logged_at = now
            log.warning("destination down, retrying", answer=outcome.answer)
        if outcome.retry_after and now >= self._announced_until:
            self._announced_until = self._health.paused_until
            until = datetime.now(UTC) + timedelta(seconds=self._announced_until - now)
            log.warning(
                "destination paused, as it requested",
                until=until.isoformat(timespec="seconds"),
                answer=outcome.answer,
            )

    async def _log_still_down(self) -> None:
        """Log from time to time that the destination is still down, and how many alerts wait for it."""
        now = self._clock()
        if not self._health.down or now - self._down_logged_at < _LOG_AGAIN_AFTER:
            return
        self._down_logged_at = now
        waiting = None
        with contextlib.suppress(StorageUnavailableError):
            waiting = (await self._outbox.backlog()).alerts
        logs.logger().warning(
            "destination still down, retrying",
            down_seconds=round(now - self._down_since),
            alerts=waiting,
            answer=self._last_answer,
        )

    async def _disable(self, answer: str) -> None:
        if self._disabled is None:
            self._disabled = answer
            logs.logger().critical(
                "destination disabled",
                answer=answer,
                remedy=f"deltaloom alerts enable {self._destination.name}",
            )
        await self._retrying.call(self._outbox.disable, answer, datetime.now(UTC))
        self._disabled_is_stored = True

    # ---------------------------------------------------------------------------------------------- finishing

    async def _record_delivered(self, message: OutgoingMessage, answer: str) -> None:
        """Record the deliveries of a message's alerts, and acknowledge these."""
        confirmation = Confirmation(answer, message.attempts, datetime.now(UTC))
        if message.saved:
            digest = SavedDigest(message.refs, confirmation)
            await self._retrying.call(self._outbox.save_digest, message.notification.id, digest)
        ended = self._ended_deliveries(message, "delivered", *confirmation)
        await self._retrying.call(self._outbox.record_delivered, ended)
        await self._forget(message)

    def _ended_deliveries(
        self, message: OutgoingMessage, outcome: DeliveryOutcome, answer: str, attempts: int, at: datetime
    ) -> list[EndedDelivery]:
        digest_id = message.notification.id if message.notification.digest else None
        return [
            self._ended_delivery(self._accepted[ref], outcome, answer, attempts, at, digest_id)
            for ref in message.refs
        ]

    def _ended_delivery(
        self,
        alert: AcceptedAlert,
        outcome: DeliveryOutcome,
        answer: str,
        attempts: int,
        at: datetime,
        digest_id: str | None = None,
    ) -> EndedDelivery:
        name = self._destination.name
        return EndedDelivery(alert.ref, delivery_of(alert, name, outcome, answer, attempts, at, digest_id))

    async def _give_up(self, message: OutgoingMessage, reason: UndeliveredReason, answer: str) -> None:
        """Move the alerts of a message that cannot be delivered to the undelivered alerts."""
        failure = Failure(reason, answer, message.attempts, datetime.now(UTC))
        ended = self._ended_deliveries(message, reason, answer, message.attempts, failure.failed_at)
        await self._record_undelivered(ended, failure, message.notification.id)
        await self._forget(message)

    async def _record_undelivered(
        self, ended: Sequence[EndedDelivery], failure: Failure, shown_id: str
    ) -> None:
        """Copy alerts to the undelivered alerts, record and acknowledge them, and log it.

        Args:
            ended: the alerts, with their deliveries.
            failure: the reason.
            shown_id: id of the message, or of an entry that holds no alert.
        """
        for each in ended:
            await self._retrying.call(self._outbox.give_up, each, failure)
        self._instruments.ended(self._destination.name, failure.reason)
        logs.logger().error(
            "alert undelivered",
            alert=shown_id,
            alerts=len(ended),
            reason=failure.reason,
            answer=failure.answer,
            attempts=failure.attempts,
        )

    async def _forget(self, message: OutgoingMessage) -> None:
        """Remove a message whose alerts are no longer pending; the next one in its lanes may go."""
        if message.saved:
            await self._retrying.call(self._outbox.delete_digest, message.notification.id)
        for ref in message.refs:
            self._accepted.pop(ref, None)
        self._in_flight.leave(len(message.refs), message.size)
        self._schedule.done(message)
