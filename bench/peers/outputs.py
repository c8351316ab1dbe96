"""Outputs of the peers: the library's messages, with the values that a peer knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deltaloom.messages import PLAIN_FIELDS, AssembledText, ModerationAlert

if TYPE_CHECKING:
    from deltaloom.messages import Kind, ResponseMessage


def finished(
    response_id: str, item_id: str | None, kind: Kind, output_index: int, content_index: int, text: str
) -> AssembledText:
    """Return a finished text, which is not compared with the authoritative one."""
    now = datetime.now(UTC)
    return AssembledText(
        id=f"{response_id}:{kind}:{output_index}:{content_index}",
        response_id=response_id,
        item_id=item_id,
        kind=kind,
        output_index=output_index,
        content_index=content_index,
        text=text,
        status="completed",
        integrity="unverified",
        delta_count=0,
        duplicate_count=0,
        started_at=now,
        finished_at=now,
    )


def opened(
    response_id: str, item_id: str | None, output_index: int, content_index: int, text: str
) -> ModerationAlert:
    """Return the alert for the beginning of a refusal."""
    return ModerationAlert(
        type="deltaloom.refusal.opened",
        id=f"{response_id}:{output_index}:{content_index}:opened",
        response_id=response_id,
        item_id=item_id,
        kind="refusal",
        output_index=output_index,
        content_index=content_index,
        text=text,
        severity="warning",
        raised_at=datetime.now(UTC),
    )


def fields(message: ResponseMessage) -> dict[str, str]:
    """Return the fields of an entry, according to the contract."""
    plain = message.model_dump(mode="json", include=set(PLAIN_FIELDS), exclude_none=True)
    return {"__data__": message.model_dump_json(), **plain}
