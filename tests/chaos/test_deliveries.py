"""The bench finds each thing that can go wrong with a delivery, and nothing where nothing does."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.deliveries import Deliveries

OPENED: dict[str, Any] = {
    "type": "deltaloom.refusal.opened",
    "id": "opened_1",
    "response_id": "r1",
    "item_id": "item_0",
    "output_index": 0,
    "content_index": 0,
    "kind": "refusal",
}
FINISHED = {**OPENED, "type": "deltaloom.refusal.finished", "id": "finished_1", "item_id": "item_9"}
TAKEN, NOT_TAKEN = True, False


@pytest.mark.parametrize(
    ("attempts", "found"),
    [
        ([(OPENED, TAKEN), (FINISHED, TAKEN)], []),
        ([(OPENED, NOT_TAKEN), (OPENED, TAKEN), (FINISHED, NOT_TAKEN), (FINISHED, TAKEN)], []),
        ([(OPENED, TAKEN), (OPENED, TAKEN), (FINISHED, TAKEN), (OPENED, TAKEN)], []),
        ([(OPENED, TAKEN)], ["lost delivery"]),
        ([(OPENED, TAKEN), (FINISHED, NOT_TAKEN)], ["lost delivery"]),
        ([(FINISHED, TAKEN), (OPENED, TAKEN)], ["delivery out of order"]),
        ([(OPENED, NOT_TAKEN), (FINISHED, NOT_TAKEN)], ["delivery out of order"] + 2 * ["lost delivery"]),
        ([(OPENED, TAKEN), (FINISHED, TAKEN), ({**OPENED, "id": "x"}, TAKEN)], ["unknown delivery"]),
    ],
)
def test_deliveries(attempts: list[tuple[dict[str, Any], bool]], found: list[str]) -> None:
    """A bench that sees nothing wrong anywhere proves nothing."""
    violations: list[str] = []
    deliveries = Deliveries(lambda kind, _example: violations.append(kind))
    deliveries.raised(OPENED)
    deliveries.raised(FINISHED)
    for fields, taken in attempts:
        deliveries.attempt(fields, taken=taken)
    deliveries.end()
    assert violations == found


def test_repeats_are_counted() -> None:
    """They are allowed, and yet one wants to know how many there are."""
    deliveries = Deliveries(lambda _kind, _example: None)
    for _ in range(3):
        deliveries.attempt(OPENED, taken=TAKEN)
    assert (deliveries.attempts, deliveries.arrived, deliveries.repeats) == (3, 1, 2)
