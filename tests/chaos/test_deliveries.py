"""Test that the bench finds each fault of deliveries, and reports none without a fault."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.deliveries import Deliveries, Grouped

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
    """Find each kind of fault in a sequence of attempts."""
    violations: list[str] = []
    deliveries = Deliveries(lambda kind, _example: violations.append(kind))
    deliveries.raised(OPENED)
    deliveries.raised(FINISHED)
    for fields, taken in attempts:
        deliveries.attempt(fields, taken=taken)
    deliveries.end()
    assert violations == found


def test_repeats_are_counted() -> None:
    """Count repeats, which are allowed."""
    deliveries = Deliveries(lambda _kind, _example: None)
    for _ in range(3):
        deliveries.attempt(OPENED, taken=TAKEN)
    assert (deliveries.attempts, deliveries.arrived, deliveries.repeats) == (3, 1, 2)


def alone(fields: dict[str, Any]) -> dict[str, Any]:
    """Return an alert's fields as delivered singly."""
    return {**fields, "model": None, "delivery": {"id": fields["id"], "digest": None}}


def digest(name: str, **counts: int) -> dict[str, Any]:
    """Return the fields of a digest with these counts."""
    counted = [[f"refusal.{phase}", count] for phase, count in counts.items()]
    described = {"count": sum(counts.values()), "counts": counted}
    return {**OPENED, "model": None, "delivery": {"id": name, "digest": described}}


@pytest.mark.parametrize(
    ("attempts", "found"),
    [
        ([(alone(OPENED), TAKEN), (alone(FINISHED), TAKEN)], []),
        ([(digest("d", opened=1, finished=1), TAKEN)], []),
        ([(alone(OPENED), TAKEN), (alone(OPENED), TAKEN), (digest("d", finished=1), TAKEN)], []),
        ([(alone(OPENED), TAKEN), (digest("d", opened=1, finished=1), TAKEN)], []),
        ([(digest("d", opened=1), TAKEN)], ["lost delivery"]),
        ([(digest("d", opened=2), TAKEN), (digest("d", opened=2), TAKEN)], ["lost delivery"]),
        ([(digest("d", opened=1, finished=1), NOT_TAKEN)], 2 * ["lost delivery"]),
        ([(alone(FINISHED), TAKEN), (alone(OPENED), TAKEN)], ["delivery out of order"]),
        ([(digest("d", opened=1, finished=1, other=1), TAKEN)], ["unknown delivery"]),
    ],
)
def test_grouped(attempts: list[tuple[dict[str, Any], bool]], found: list[str]) -> None:
    """Find an alert that a digest does not count."""
    violations: list[str] = []
    grouped = Grouped(lambda kind, _example: violations.append(kind))
    for fields in (OPENED, FINISHED):
        grouped.raised({**fields, "model": None, "tenant": None})
    for fields, taken in attempts:
        grouped.attempt({**fields, "tenant": None}, taken=taken)
    grouped.end()
    assert violations == found


def test_digest_that_does_not_add_up() -> None:
    """Report a digest with a total that differs from its counts."""
    violations: list[str] = []
    wrong = digest("d", opened=3)
    wrong["delivery"]["digest"]["count"] = 4
    Grouped(lambda kind, _example: violations.append(kind)).attempt(wrong, taken=TAKEN)
    assert violations == ["unknown delivery"]
