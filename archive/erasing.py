"""Erase a subject in the archive and in Redis, and certify what was erased and what was not reached.

Theory of operation:

1. Archive and Redis name the responses of the subject. Then everything of these responses in Redis is found.
2. The archive is erased first, with the keys of the messages found in Redis: an archiver that has such an
   entry in hand cannot insert it any more. Then Redis is erased. If that fails, people erase again.
3. What a hold keeps stays in both. A hold keeps all of a response.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from service.storage.group import KEPT_FOR_RELAYS_MS
from service.storage.subject_erasure import sent_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from archive.archive_repository import ArchiveRepository, Erasure, Hold, RecordSubject
    from archive.archive_settings import ArchiveSettings
    from archive.certificates import Certificates
    from service.storage.subject_erasure import FoundPlace, Persistence, SentAlert, SubjectErasure

VERSION: Final = 1
"""Version of the form of certificates."""


class ErasedInRedis(NamedTuple):
    """The outcome in Redis."""

    counts: Mapping[str, int]
    """Entries, fields of items, states and logs that were deleted, by place."""
    still_open: Sequence[str]
    """Responses whose state stays, since they have not ended."""
    held: int
    """Entries, fields and keys that a hold keeps."""
    persistence: Persistence


async def erase_everywhere(
    subject: RecordSubject,
    who: str,
    archive: ArchiveRepository,
    certificates: Certificates,
    settings: ArchiveSettings,
    redis: SubjectErasure | None,
) -> dict[str, Any]:
    """Erase a subject; return the certificate.

    Args:
        subject: the subject.
        who: who erases.
        archive: the archive.
        certificates: the chain of certificates.
        settings: the settings of the archive; their times say until when data remains.
        redis: the data of the subject in Redis; None to leave Redis alone.
    """
    responses: set[str] = set()
    kept: list[FoundPlace] = []
    doomed: list[FoundPlace] = []
    if redis is not None:
        responses = archive.responses_of(subject) | await redis.responses()
        found = await redis.find(responses)
        holds = archive.holds()
        held = archive.held_responses(subject)
        held |= {str(each.owner.response_id) for each in found if _is_held(each, holds)}
        for each in found:
            is_kept = _is_held(each, holds) or each.owner.response_id in held
            (kept if is_kept else doomed).append(each)
        responses -= held
    archived = map(sent_in, archive.deliveries_of(subject, responses))
    sent = {alert.id: alert for alert in (*archived, *(each.sent for each in doomed)) if alert is not None}
    gone = {each.message for each in doomed if each.message is not None}
    erasure = archive.erase(subject, who, responses, gone)
    in_redis = None
    if redis is not None:
        counts, still_open = await redis.erase(doomed)
        in_redis = ErasedInRedis(counts, still_open, len(kept), await redis.persistence())
    content = _content(erasure, settings, in_redis, sent.values())
    return certificates.issue(content, erasure.number)


def _is_held(found: FoundPlace, holds: Iterable[Hold]) -> bool:
    return any(getattr(found.owner, hold.subject.name) == hold.subject.value for hold in holds)


def _content(
    erasure: Erasure, settings: ArchiveSettings, in_redis: ErasedInRedis | None, sent: Collection[SentAlert]
) -> dict[str, Any]:
    """Return the content of a certificate."""
    return {
        "version": VERSION,
        "erasure": erasure.number,
        "at": _written(erasure.at),
        "who": erasure.who,
        "subject": {erasure.subject.name: erasure.subject.value},
        "erased": {
            "archive": dict(erasure.erased),
            "redis": None if in_redis is None else {"prefix": settings.prefix, **in_redis.counts},
        },
        "held": [
            {"hold": hold.number, "who": hold.who, "why": hold.why, "records": count}
            for hold, count in erasure.held.items()
        ],
        "held_in_redis": 0 if in_redis is None else in_redis.held,
        "still_open": [] if in_redis is None else list(in_redis.still_open),
        "remains": [each._asdict() for each in erasure.remains],
        "not_reached": list(_not_reached(erasure.at, settings, in_redis)),
        "destinations": _destinations(sent),
    }


def _not_reached(
    at: datetime, settings: ArchiveSettings, in_redis: ErasedInRedis | None
) -> Iterable[dict[str, str]]:
    """Yield the places that may still have the subject, and until when."""
    if settings.archive_file is None:
        yield _place(
            "PostgreSQL: write-ahead log and free space of its files", "until they are written again"
        )
        yield _place("PostgreSQL: replicas", "until they have replayed the erasure")
    yield _place("backups of the archive", "until you delete them", made_before=at)
    if in_redis is None:
        yield _place("Redis: everything", "it was not erased there")
        return
    kept = timedelta(seconds=settings.retention)
    for_relays = max(kept, timedelta(milliseconds=KEPT_FOR_RELAYS_MS))
    yield _place(
        "Redis: bytes of deleted entries, which nobody can read",
        "until all of their node is trimmed; at once with stream-node-max-entries 1",
        at_the_latest=at + for_relays,
    )
    yield _place(
        "Redis: entries of the input", "until all groups have acknowledged them, and their node is trimmed"
    )
    yield _place(
        "Redis: markers, with digests of texts and no word",
        "until they expire",
        at_the_latest=at + timedelta(seconds=settings.remembered),
    )
    yield _place("Redis: counts of refusals by tenant", "until no window and no baseline has them")
    if in_redis.persistence.append_only:
        yield _place("Redis: append-only file", "until its next rewrite (BGREWRITEAOF)", written_before=at)
    if in_redis.persistence.saved_at is not None:
        yield _place(
            "Redis: RDB file", "until the next one is written (BGSAVE)", written=in_redis.persistence.saved_at
        )
    yield _place("Redis: slow log", "until SLOWLOG RESET, on Valkey COMMANDLOG RESET too")
    yield _place("Redis: backups and files of replicas", "until you delete them", made_before=at)
    yield _place("exports, and copies of other subscribers", "until they are deleted there", made_before=at)


def _place(place: str, until: str, **times: datetime) -> dict[str, str]:
    return {"place": place, "until": until, **{name: _written(at) for name, at in times.items()}}


def _destinations(sent: Iterable[SentAlert]) -> list[dict[str, Any]]:
    """Return the destinations that got alerts, with the share of the texts, numbers and last times."""
    by_share: dict[tuple[str, str], list[str]] = {}
    for each in sent:
        by_share.setdefault((each.destination, each.privacy or "unknown"), []).append(each.at)
    return [
        {"destination": destination, "text": share, "alerts": len(times), "last": max(times)}
        for (destination, share), times in sorted(by_share.items())
    ]


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
