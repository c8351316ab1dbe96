"""Test losses that a producer reports."""

from __future__ import annotations

import pytest

from deltaloom import limits
from deltaloom.events import ProducerLoss
from handlers.core.effects import Loss, Origin, UnattributableEventError
from handlers.core.identity import Arrival, EntryId, StreamKey
from handlers.loss import handler, on_loss

AT = Arrival(EntryId(1, 0), 0)


def lost(response_id: str | None, entry_id: str | None = None) -> list[Loss]:
    """Return the effects of a loss with this response id, in an entry with `entry_id`."""
    event = ProducerLoss(type="deltaloom.producer.loss", response_id=response_id, dropped=3)
    return list(on_loss(event, Origin(AT, entry_id)))


def test_loss_is_that_of_a_response() -> None:
    """Assign a loss to the response of its event or its entry."""
    assert lost("resp_1") == [Loss(StreamKey("response", "resp_1"), 3)]
    assert lost(None, "resp_2") == [Loss(StreamKey("response", "resp_2"), 3)]


def test_id_of_the_entry_is_preferred_to_that_of_the_event() -> None:
    """Prefer the entry's response id."""
    assert lost("resp_1", "resp_2") == [Loss(StreamKey("response", "resp_2"), 3)]


def test_loss_without_a_response_id_is_refused() -> None:
    """Refuse a loss without a response id, and name the remedy."""
    with pytest.raises(
        UnattributableEventError, match="no response_id; publish it with the field response_id"
    ):
        lost(None)


def test_loss_of_responses_that_are_not_named_is_that_of_no_response() -> None:
    """Give a report about a whole process its number, but no response, so that it is counted, not refused."""
    event = ProducerLoss(type="deltaloom.producer.loss", scope="process", dropped=3)
    assert list(on_loss(event, Origin(AT))) == [Loss(None, 3)]
    assert list(on_loss(event, Origin(AT, "resp_1"))) == [Loss(StreamKey("response", "resp_1"), 3)]


def test_loss_without_a_number_is_one_event() -> None:
    """Count one event for a producer that does not know how many it dropped."""
    event = ProducerLoss(type="deltaloom.producer.loss", response_id="resp_1")
    assert list(on_loss(event, Origin(AT))) == [Loss(StreamKey("response", "resp_1"), 1)]


def test_loss_of_a_response_with_too_long_an_id_is_refused() -> None:
    """Refuse a response id beyond the limit."""
    assert lost("x" * limits.ID) == [Loss(StreamKey("response", "x" * limits.ID), 3)]
    with pytest.raises(UnattributableEventError, match="response_id has 1025 characters; at most 1024"):
        lost("x" * (limits.ID + 1))


def test_handler_takes_losses_only() -> None:
    """Handle losses only."""
    assert [route.event_type for route in handler.routes] == ["deltaloom.producer.loss"]
    assert handler.kinds == frozenset()
