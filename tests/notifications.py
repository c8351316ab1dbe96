"""Example notifications, as the policy makes them, and hypothesis strategies for arbitrary ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

from hypothesis import strategies as st

from deltaloom import ModerationAlert, RefusalRate
from deltaloom.messages import KnownAlertSeverity, KnownAlertType
from service.alerts.delivery import Digest, Notification
from service.alerts.phases import dedup_key_of

if TYPE_CHECKING:
    from deltaloom.messages import AlertType

RAISED_AT = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
TEXT = "I'm sorry, but I can't help with that."


def alert(kind_of: AlertType = "deltaloom.refusal.opened", **fields: Any) -> ModerationAlert:
    """Return an alert about a refusal; `fields` override its values."""
    of_part = {"kind": "refusal", "output_index": 0, "content_index": 0, "text": TEXT}
    ids = {"id": f"{kind_of.rpartition('.')[2]}_1", "response_id": "resp_1", "item_id": "msg_1"}
    about = {"tenant": "acme", "model": "gpt-4o", "severity": "warning", "raised_at": RAISED_AT}
    ended = {"status": "completed", "integrity": "verified"} if kind_of.endswith("finished") else {}
    return ModerationAlert.model_validate({"type": kind_of, **ids, **of_part, **about, **ended, **fields})


def notification(of: ModerationAlert | None = None, **fields: Any) -> Notification:
    """Return a notification as the policy makes it of an alert; `fields` override its values."""
    of = of or alert()
    made = Notification(
        id=of.id,
        alert=of,
        severity="critical",
        category="self-harm",
        rule="self-harm",
        route="pages",
        privacy="full",
        text_sha256="ab" * 32,
        dedup_key=dedup_key_of(of),
        resolves=of.type in {"deltaloom.refusal.finished", "deltaloom.refusal.spike.ended"},
    )
    return replace(made, **fields)


def finished(**fields: Any) -> Notification:
    """Return the notification that resolves `notification()`."""
    return notification(alert("deltaloom.refusal.finished", **fields))


def spike(*, ended: bool = False) -> Notification:
    """Return a notification about a model's refusal spike, or about its end."""
    rate = RefusalRate(
        by="model",
        name="gpt-4o",
        since=RAISED_AT - timedelta(minutes=10),
        until=RAISED_AT,
        responses=200,
        refused=50,
        baseline_since=RAISED_AT - timedelta(hours=5),
        baseline_responses=4000,
        baseline_refused=80,
        score=19.5,
    )
    none = dict.fromkeys(("kind", "output_index", "content_index", "response_id", "item_id", "tenant"))
    kind_of: AlertType = "deltaloom.refusal.spike.ended" if ended else "deltaloom.refusal.spike"
    return notification(
        alert(kind_of, text="", rate=rate, **none), text_sha256=None, category="rate", rule=None
    )


def digest(*examples: Notification, **fields: Any) -> Notification:
    """Return a digest of twelve alerts."""
    of = Digest(
        count=12,
        since=RAISED_AT,
        until=RAISED_AT + timedelta(minutes=1),
        counts=[("refusal.opened · gpt-4o", 9), ("refusal.opened · gpt-4o-mini", 3)],
        examples=examples or (notification(),),
    )
    return notification(id="digest_1", dedup_key="category='self-harm'", digest=of, **fields)


WORDS = st.text(max_size=300)
LONG = st.builds(lambda text, times: text * times, st.text(max_size=60), st.integers(0, 400))
"""Texts of any characters, up to the length that a policy lets leave."""


OPEN_FIELDS = (
    "kind",
    "status",
    "integrity",
    "integrity_source",
    "reason",
    "reason_class",
    "provider_category",
    "response_id",
    "item_id",
    "tenant",
    "model",
    "safety_identifier",
    "traceparent",
    "provider",
    "upstream_provider",
    "dialect",
    "upstream_response_id",
    "reference",
    "source",
)
"""Alert fields that accept any string or None."""


@st.composite
def notifications(draw: st.DrawFn) -> Notification:
    """Draw any valid notification: all types and unknown ones, long texts, odd names, digests."""
    one = st.builds(
        lambda of, severity, category, rule, identity, test: notification(
            of, severity=severity, category=category, rule=rule, id=identity, test=test
        ),
        st.builds(
            lambda kind_of, text, explanation, fields: alert(
                kind_of, **{"text": text, "provider_explanation": explanation, **fields}
            ),
            st.sampled_from(get_args(KnownAlertType)) | WORDS,
            LONG,
            st.none() | LONG,
            st.dictionaries(st.sampled_from(OPEN_FIELDS), st.none() | WORDS, max_size=5),
        ),
        st.sampled_from(get_args(KnownAlertSeverity)) | WORDS,
        WORDS,
        st.none() | WORDS,
        WORDS,
        st.booleans(),
    )
    if draw(st.booleans()):
        return draw(one)
    counts = draw(st.lists(st.tuples(WORDS, st.integers(1, 10**6)), max_size=60))
    of = Digest(draw(st.integers(2, 10**6)), RAISED_AT, RAISED_AT, counts, draw(st.lists(one, max_size=3)))
    return replace(draw(one), digest=of)
