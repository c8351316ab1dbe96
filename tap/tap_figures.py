"""The metrics of a tap, from its counts."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from service.observability.metrics import catalog
from service.storage.state_format import FORMAT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.observability.metrics.samples import Samples
    from tap.copy_pipe import CopyPipe
    from tap.tap_counts import TapCounts


def samples_of(
    counts: TapCounts,
    pipe: CopyPipe,
    copier: dict[str, Any],
    *,
    under_way: int,
    restarts: int,
    lost_bytes: int,
) -> Samples:
    """Return the values of all metrics of a tap.

    Args:
        counts: counts of the forwarder.
        pipe: the pipe to the copier.
        copier: figures of the copier; empty before its first report.
        under_way: requests under way.
        restarts: copiers that ended without being asked to.
        lost_bytes: bytes of bodies that were sent to them, and that they had not reported as taken.
    """
    events = {name: copier.get(name, 0) for name in ("published", "merged")}
    return {
        catalog.BUILD_INFO.name: {(version("deltaloom-worker"), str(FORMAT)): 1},
        catalog.TAP_REQUESTS.name: _by_labels(counts.requests),
        catalog.TAP_OPEN.name: {(): under_way},
        catalog.TAP_CONNECTIONS_REFUSED.name: {(): counts.connections_refused},
        catalog.TAP_BYTES.name: {
            ("from_clients",): counts.from_clients,
            ("from_upstreams",): counts.from_upstreams,
            ("to_clients",): counts.to_clients,
            ("undelivered",): counts.undelivered,
            ("ingested",): counts.ingested,
        },
        catalog.TAP_COPY_BYTES.name: _by_end(
            {"sent": pipe.sent_bytes, "lost": lost_bytes, **pipe.dropped_bytes}
        ),
        catalog.TAP_COPY_WAITING.name: {(): pipe.waiting_bytes},
        catalog.TAP_COPIES.name: _by_end({"begun": pipe.copies, **pipe.dropped_copies, **counts.not_copied}),
        catalog.TAP_EVENTS.name: _by_end({**events, **copier.get("dropped", {})}),
        catalog.TAP_EVENTS_WAITING.name: {(): copier.get("waiting", 0)},
        catalog.TAP_RESTARTS.name: {(): restarts},
    }


def _by_labels(values: Mapping[tuple[str, str], int]) -> dict[tuple[str, ...], float]:
    return dict(values.items())


def _by_end(values: dict[str, int]) -> dict[tuple[str, ...], float]:
    return {(name,): value for name, value in values.items()}
