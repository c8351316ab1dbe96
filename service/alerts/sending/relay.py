"""Brings what is owed to one destination there, while this process holds the destination's lease.

```text
take      an alert is read: decide (alerts.toml). Not meant for this destination: settled
place     held for a digest, or added to the schedule, behind what tells of the same part
attempt   while the lease is held, the destination is not paused and the rate allows it
          delivered       settled: acknowledged, and owed no more
          not now         again, later; given up when it has been owed for too long
          refused, gone   given up: put among the undelivered and acknowledged, in one step
```

What is in memory here is only what is owed anyway: a process that ends in the middle of anything leaves all
of it to the next one. What was delivered and not yet settled then is delivered again, with the same id.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from service import logs
from service.alerts.delivery import Outcome, Verdict
from service.alerts.parsing import NotAnAlertError, parse_alert
from service.alerts.sending.grouping import Windows, digest_called, digest_of
from service.alerts.sending.health import Health, pause_after
from service.alerts.sending.in_flight import Room
from service.alerts.sending.message import Message
from service.alerts.sending.schedule import Schedule
from service.alerts.sending.token_bucket import TokenBucket
from service.ports.outbox import Failure, KeptDigest

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from deltaloom.messages import ModerationAlert, UndeliveredReason
    from service.alerts.delivery import Destination, Notification
    from service.alerts.destinations.options import CommonOptions
    from service.alerts.sending.lease import Lease
    from service.patience import Patience
    from service.ports.outbox import Outbox, Owed, Place

_ATTEMPT_AT_MOST: Final = 330.0
"""Seconds. Destinations keep to timeouts of their own, of 300 at most; this is for one that does not."""

_LARGE: Final = 10_000
"""Bytes of an alert; what is done with a smaller one takes the loop a few milliseconds at most."""

_LOOK_AGAIN_EVERY: Final = 1.0
"""Seconds; for what nobody tells: that a message has been owed for too long."""
_EXPIRED_AT_ONCE: Final = 100
_NEVER_TRIED: Final = "there was no attempt"


class Decide(Protocol):
    """Which message an alert makes for this destination, now; None: none."""

    def __call__(self, alert: ModerationAlert, now: datetime, /) -> Notification | None:
        """Decide."""
        ...


class _Seen(NamedTuple):
    """An alert that was read, and what was decided."""

    alert_id: str
    left_out: Sequence[str]
    notification: Notification | None


@dataclass(slots=True)
class _Judged:
    """What alerts are for a destination."""

    messages: list[Message] = field(default_factory=list)
    not_meant: list[Place] = field(default_factory=list)
    unreadable: list[tuple[Place, str]] = field(default_factory=list)
    """Entries without an alert, and why."""


class Relay:
    """What is in hand for one destination.

    Args:
        destination: where messages go.
        options: how fast they may go, which become one, how long each is tried.
        decide: which message an alert makes.
        outbox: what is owed.
        lease: without it, nothing is sent.
        patience: what waits for Redis.
    """

    def __init__(
        self,
        destination: Destination,
        options: CommonOptions,
        decide: Decide,
        outbox: Outbox,
        lease: Lease,
        patience: Patience,
    ) -> None:
        self._destination = destination
        self._options = options
        self._decide = decide
        self._outbox = outbox
        self._lease = lease
        self._patience = patience
        self._clock = asyncio.get_running_loop().time
        self._schedule = Schedule()
        self._health = Health()
        self._room = Room()
        rate, group = options.rate_limit, options.group
        self._bucket = rate and TokenBucket(rate.per_minute, rate.burst, self._clock())
        self._windows = group and Windows(group, self._schedule.busy)
        self._owed: set[Place] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._gone: str | None = None
        """What the destination answered when it said that it is no more."""
        self._gone_is_noted = False
        self._last_answer = _NEVER_TRIED
        self._announced_until = 0.0
        """The end of the pause that was logged last."""
        self._next_look = 0.0
        self._changed = asyncio.Event()
        self._ending = False

    # ------------------------------------------------------------------------------------------------- taking

    async def resume(self) -> None:
        """Take up what the former holder of the lease began, before anything is taken."""
        self._gone = await self._patience.until_done(self._outbox.gone)
        self._gone_is_noted = self._gone is not None
        kept = await self._patience.until_done(self._outbox.digests)
        for digest_id, digest in kept.items():
            if digest.confirmed:
                await self._patience.until_done(self._outbox.settle, digest.places)
                await self._patience.until_done(self._outbox.drop_digest, digest_id)
            else:
                await self._resume_digest(digest_id, digest)

    async def take(self, entries: Sequence[Owed]) -> None:
        """Take alerts that were read, in the order of their stream; come back when there is room for more."""
        judged = await self._judge(entries)
        now = self._clock()
        for message in judged.messages:
            for each in self._windows.place(message, now) if self._windows else [message]:
                self._schedule.add(each)
        if self._room.full:
            self._send_fullest_window()
        self._changed.set()
        await self._let_go(judged)
        await self._room.wait()

    async def check_whether_gone(self) -> None:
        """Ask whether an operator has said that the destination is there again."""
        if self._gone_is_noted and await self._outbox.gone() is None:
            self._gone, self._gone_is_noted = None, False
            logs.logger().warning("destination enabled")
            self._changed.set()

    async def _judge(self, entries: Iterable[Owed]) -> _Judged:
        """The messages that alerts make; all others."""
        now = datetime.now(UTC)
        seen = [(each, await self._seen(each, now)) for each in entries if each.place not in self._owed]
        judged = _Judged()
        for entry, outcome in seen:
            if entry.place in self._owed:  # it came twice
                continue
            if isinstance(outcome, NotAnAlertError):
                judged.unreadable.append((entry.place, f"the entry holds no alert: {outcome}"))
                continue
            if outcome.left_out:
                logs.logger().warning(
                    "alert read in part", alert=outcome.alert_id, left_out=list(outcome.left_out)
                )
            if outcome.notification is None:
                judged.not_meant.append(entry.place)
            else:
                judged.messages.append(self._message(entry, outcome.notification))
        return judged

    async def _seen(self, entry: Owed, now: datetime) -> _Seen | NotAnAlertError:
        """Read an alert and decide; a large one in a thread, since its patterns take some milliseconds."""
        data = entry.data or b""
        if len(data) <= _LARGE:
            return self._look_at(data, now)
        return await asyncio.to_thread(self._look_at, data, now)

    def _look_at(self, data: bytes, now: datetime) -> _Seen | NotAnAlertError:
        try:
            alert, left_out = parse_alert(data)
        except NotAnAlertError as error:
            return error
        return _Seen(alert.id, left_out, self._decide(alert, now))

    async def _let_go(self, judged: _Judged) -> None:
        """Owe no more what makes no message."""
        if judged.not_meant:
            await self._patience.until_done(self._outbox.settle, judged.not_meant)
        for place, why in judged.unreadable:
            await self._put_aside(place, "unreadable", why, attempts=0)

    def _message(self, entry: Owed, notification: Notification) -> Message:
        self._owed.add(entry.place)
        size = len(entry.data or b"")
        self._room.enter(size)
        age = time.time() - entry.place.id.ms / 1000
        expires_at = self._clock() + self._options.give_up_after - age
        return Message(notification, [entry.place], [notification.group], expires_at, size)

    async def _resume_digest(self, digest_id: str, digest: KeptDigest) -> None:
        """Make a digest that was begun once more, with the same id, of those of its alerts that are owed."""
        entries = await self._patience.until_done(self._outbox.still_owed, digest.places)
        judged = await self._judge(entries)
        await self._let_go(judged)
        if not judged.messages:
            await self._patience.until_done(self._outbox.drop_digest, digest_id)
            return
        by = self._options.group.by if self._options.group else ()
        message = digest_called(digest_id, judged.messages, by)
        message.kept = True
        self._schedule.add(message)

    # ------------------------------------------------------------------------------------------------ sending

    async def run(self) -> None:
        """Send until cancelled, or until `end`."""
        while not self._ending:
            self._changed.clear()
            now = self._clock()
            self._end_windows(now)
            self._give_up_expired(now)
            wait = self._send(now)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def end_soon(self) -> None:
        """Begin nothing more, and take nothing more."""
        self._ending = True
        self._room.open()
        self._changed.set()

    async def end(self) -> None:
        """Begin nothing more; come back when what is under way has ended."""
        self.end_soon()
        while self._under_way:
            await asyncio.wait(self._under_way)

    def abandon(self) -> None:
        """End what is under way at once: nobody waits for an answer, and what was sent is owed on."""
        for task in self._under_way:
            task.cancel()

    def _end_windows(self, now: float) -> None:
        if self._windows and self._options.group:
            for held in self._windows.ended(now):
                self._schedule.add(digest_of(self._destination.name, held, self._options.group.by))

    def _send_fullest_window(self) -> None:
        """So many similar alerts that there is no room for others: what comes behind them may be graver."""
        if self._windows and self._options.group and (held := self._windows.end_fullest()):
            self._schedule.add(digest_of(self._destination.name, held, self._options.group.by))

    def _give_up_expired(self, now: float) -> None:
        if self._lease.held and now >= self._next_look:
            self._next_look = now + _LOOK_AGAIN_EVERY
            for message in self._schedule.take_expired(now, _EXPIRED_AT_ONCE):
                self._begin(message, self._give_up(message, "expired", self._last_answer))

    def _send(self, now: float) -> float:
        """Begin the attempts that may begin; returns in how many seconds to look again."""
        while self._lease.held and not self._ending:
            wait = self._wait(now)
            if wait > 0:
                return min(wait, _LOOK_AGAIN_EVERY)
            paused = self._gone is None and now < self._health.paused_until
            message = self._schedule.take(now, critical_only=paused)
            if message is None:  # pragma: no cover - then there was something to wait for
                break
            if self._gone is not None:
                self._begin(message, self._give_up(message, "gone", self._gone))
                continue
            if self._bucket:
                self._bucket.take(now)
            self._begin(message, self._attempt(message))
        return _LOOK_AGAIN_EVERY

    def _wait(self, now: float) -> float:
        """Seconds until the next attempt may begin; what ends before that wakes the loop up."""
        next_at = self._schedule.next_at()
        if next_at is None or len(self._under_way) >= self._health.at_once:
            return self._until_window_ends(now)
        if self._gone is not None:
            return next_at - now
        begins_at = max(next_at, self._health.paused_until)
        critical_at = self._schedule.next_at(critical_only=True)
        if critical_at is not None:
            begins_at = min(begins_at, max(critical_at, self._health.critical_paused_until))
        wait = begins_at - now
        if self._bucket:
            wait = max(wait, self._bucket.wait(now))
        return min(wait, self._until_window_ends(now)) if wait > 0 else 0.0

    def _until_window_ends(self, now: float) -> float:
        ends_at = self._windows.next_end() if self._windows else None
        return _LOOK_AGAIN_EVERY if ends_at is None else max(ends_at - now, 0.001)

    def _begin(self, message: Message, step: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._carry_out(message, step), name=f"alert to {self._destination.name}")
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._changed.set()

    async def _carry_out(self, message: Message, step: Coroutine[None, None, None]) -> None:
        """Take a step; a mistake of this program in it must not leave its part waiting for ever."""
        try:
            await step
        except Exception:  # noqa: BLE001 - logged, and done again
            logs.logger().exception("message failed")
            self._schedule.again(message, self._clock() + pause_after(max(message.attempts, 1)))

    async def _attempt(self, message: Message) -> None:
        if message.notification.digest and not message.kept:
            digest = KeptDigest(message.places, confirmed=False)
            await self._patience.until_done(self._outbox.keep_digest, message.notification.id, digest)
            message.kept = True
        if not self._lease.held:  # keeping took a while
            self._schedule.again(message, self._clock())
            return
        message.attempts += 1
        outcome = await self._deliver(message.notification)
        self._last_answer = outcome.answer
        match outcome.verdict:
            case Verdict.DELIVERED:
                self._note_answer()
                logs.logger().debug("alert delivered", alert=message.notification.id, answer=outcome.answer)
                await self._settle(message)
            case Verdict.RETRY:
                self._try_again(message, outcome)
            case Verdict.REFUSED:
                self._note_answer()
                await self._give_up(message, "refused", outcome.answer)
            case Verdict.GONE:
                await self._note_gone(outcome.answer)
                await self._give_up(message, "gone", outcome.answer)

    async def _deliver(self, notification: Notification) -> Outcome:
        try:
            async with asyncio.timeout(_ATTEMPT_AT_MOST):
                return await self._destination.deliver(notification)
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"no end of the attempt within {_ATTEMPT_AT_MOST:g} s")
        except Exception as error:  # noqa: BLE001 - it stays owed; what it says may hold a secret, so only what it is
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno}"
            logs.logger().error("destination failed", error=type(error).__name__, where=where)
            return Outcome(Verdict.RETRY, f"{type(error).__name__} in deltaloom")

    def _note_answer(self) -> None:
        if self._health.answered():
            logs.logger().info("destination is back")
            self._schedule.hasten(self._clock())

    def _try_again(self, message: Message, outcome: Outcome) -> None:
        now = self._clock()
        was_down = self._health.down
        self._health.failed(now, outcome.retry_after)
        pause = pause_after(message.attempts)  # a pause of the destination is kept by `_wait`
        self._schedule.again(message, min(now + pause, message.expires_at))
        log = logs.logger()
        log.debug("alert not delivered", alert=message.notification.id, answer=outcome.answer, pause=pause)
        if self._health.down and not was_down:
            log.warning("destination is down, trying again", answer=outcome.answer)
        if outcome.retry_after and now >= self._announced_until:
            self._announced_until = self._health.paused_until
            until = datetime.now(UTC) + timedelta(seconds=self._announced_until - now)
            log.warning(
                "destination asked for a pause, paused",
                until=until.isoformat(timespec="seconds"),
                answer=outcome.answer,
            )

    async def _note_gone(self, answer: str) -> None:
        if self._gone is None:
            self._gone = answer
            logs.logger().critical(
                "destination is gone: nothing is sent to it any more",
                answer=answer,
                remedy=f"deltaloom alerts enable {self._destination.name}",
            )
        await self._patience.until_done(self._outbox.note_gone, answer, datetime.now(UTC))
        self._gone_is_noted = True

    # ----------------------------------------------------------------------------------------------- settling

    async def _settle(self, message: Message) -> None:
        """It has arrived."""
        digest_id = message.notification.id
        if message.kept:
            digest = KeptDigest(message.places, confirmed=True)
            await self._patience.until_done(self._outbox.keep_digest, digest_id, digest)
        await self._patience.until_done(self._outbox.settle, message.places)
        await self._done(message)

    async def _give_up(self, message: Message, reason: UndeliveredReason, answer: str) -> None:
        """It will not arrive."""
        for place in message.places:
            await self._put_aside(place, reason, answer, message.attempts)
        logs.logger().error(
            "alert not delivered, given up",
            alert=message.notification.id,
            alerts=len(message.places),
            reason=reason,
            answer=answer,
            attempts=message.attempts,
        )
        await self._done(message)

    async def _put_aside(self, place: Place, reason: UndeliveredReason, answer: str, attempts: int) -> None:
        failure = Failure(reason, answer, attempts, datetime.now(UTC))
        await self._patience.until_done(self._outbox.give_up, place, failure)

    async def _done(self, message: Message) -> None:
        if message.kept:
            await self._patience.until_done(self._outbox.drop_digest, message.notification.id)
        self._owed.difference_update(message.places)
        self._room.leave(len(message.places), message.size)
        self._schedule.done(message)
