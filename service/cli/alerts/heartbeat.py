"""`deltaloom alerts heartbeat`: send a synthetic refusal through everything, and wait for its deliveries."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.alerts_file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from deltaloom.messages import Delivery
    from deltaloom.streams import StreamNames
    from service.settings import Settings

EXAMPLES = examples(
    "deltaloom alerts heartbeat --to on-call",
    "deltaloom alerts heartbeat --every 300 --textfile /var/lib/node_exporter/deltaloom.prom",
)

_BLOCK_MS = 500
_AT_ONCE = 100
_FINISHED = b"deltaloom.refusal.finished"


def run(
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Wait for this destination; may be repeated.",
            show_default="all with heartbeat = true",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, max=3600, metavar="SECONDS", help="Maximum time to wait.")
    ] = 30,
    every: Annotated[
        float | None,
        typer.Option(min=10, metavar="SECONDS", help="Repeat until Ctrl-C.", show_default=False),
    ] = None,
    textfile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the time of the last success there, for Prometheus' textfile collector.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = DEFAULT,
) -> None:
    """Publish a marked synthetic refusal, and wait until a relay has recorded its deliveries.

    This tries the input, a worker, a relay and the destinations with `heartbeat = true` in `alerts.toml`. The
    exit code is 1 if a delivery stays away, with what is missing. With `--to`, the file is not read.
    """
    from service.cli.command_errors import CommandError
    from service.cli.connect import read_settings
    from service.cli.output import note

    settings, expected = read_settings(), to or _destinations(config)
    try:
        while True:
            began = time.monotonic()
            try:
                _beat(settings, expected, timeout, textfile)
            except CommandError as error:
                if every is None:
                    raise
                note(str(error), style="red")
            if every is None:
                return
            time.sleep(max(began + every - time.monotonic(), 0))
    except KeyboardInterrupt:
        raise typer.Exit from None


def _destinations(config: Path) -> list[str]:
    from service.alerts.deciding.policy import load
    from service.cli.command_errors import CommandError

    options = load(config, os.environ).destinations
    if names := [name for name, each in options.items() if each.heartbeat]:
        return names
    raise CommandError(f"no destination in {config} gets heartbeats: set heartbeat = true in its table")


@dataclass(slots=True)
class _Heartbeat:
    """A published refusal, and its alert and deliveries so far."""

    response_id: str
    raised: bool = False
    """True if a worker has raised the finishing alert."""
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """Deliveries by destination."""

    def see(self, fields: dict[bytes, bytes]) -> None:
        """Record an entry of the alerts or deliveries, if it is about this heartbeat."""
        from deltaloom.messages import Delivery

        if fields.get(b"response_id") != self.response_id.encode():
            return
        if fields.get(b"type") == _FINISHED:
            self.raised = True
        elif fields.get(b"type") == b"deltaloom.alert.delivery":
            delivery = Delivery.model_validate_json(fields[b"__data__"])
            self.deliveries[delivery.destination] = delivery


def _beat(settings: Settings, expected: Sequence[str], timeout: float, textfile: Path | None) -> None:
    """Send one heartbeat, and print its deliveries.

    Raises:
        CommandError: a delivery is missing, or the text file cannot be written.
    """
    import uuid

    from deltaloom.messages import HEARTBEAT_PREFIX
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect_blocking
    from service.cli.output import console
    from service.visible import visible

    heartbeat = _Heartbeat(f"{HEARTBEAT_PREFIX}{uuid.uuid4().hex}")
    with connect_blocking(settings) as client:
        _send(client, settings.names.of(heartbeat.response_id), heartbeat, expected, timeout)
    missing = _missing(heartbeat, expected, timeout)
    for name in expected:
        delivery = heartbeat.deliveries.get(name)
        if delivery is not None and delivery.outcome == "delivered":
            answer = visible(delivery.answer)
            console().print(f"{name} took the heartbeat after {delivery.latency_ms:,} ms: {answer}")
    if missing:
        raise CommandError(f"{heartbeat.response_id}: {'; '.join(missing)}")
    if textfile is not None:
        _write(textfile, {name: heartbeat.deliveries[name].latency_ms for name in expected})


def _send(
    client: Redis, names: StreamNames, heartbeat: _Heartbeat, expected: Sequence[str], timeout: float
) -> None:
    """Publish the heartbeat, and read alerts and deliveries until all have come or the time is over."""
    from service.cli.following import ends_of
    from service.storage.pages import entries_of

    after: dict[Any, Any] = dict(ends_of(client, (names.alerts, names.deliveries)))
    deadline = time.monotonic() + timeout
    client.xadd(names.deltas, {"event": json.dumps(_events()), "response_id": heartbeat.response_id})
    while not heartbeat.deliveries.keys() >= set(expected) and time.monotonic() < deadline:
        replies: Any = client.xread(after, count=_AT_ONCE, block=_BLOCK_MS)
        for stream, entries in replies:
            for entry_id, fields in entries_of(entries):
                after[stream.decode()] = entry_id
                heartbeat.see(fields)


def _events() -> list[dict[str, object]]:
    """Return the events of a refusal. They name no model, tenant or provider, so that no rate counts it."""
    from service.alerts.heartbeat_alerts import HEARTBEAT_TEXT

    part = {"item_id": "heartbeat", "output_index": 0, "content_index": 0}
    return [
        {"type": "response.refusal.delta", "sequence_number": 1, **part, "delta": HEARTBEAT_TEXT},
        {"type": "response.refusal.done", "sequence_number": 2, **part, "refusal": HEARTBEAT_TEXT},
        {"type": "response.completed", "sequence_number": 3, "response": {}},
    ]


def _missing(heartbeat: _Heartbeat, expected: Sequence[str], timeout: float) -> list[str]:
    """Return what is missing, and what to look at."""
    from service.visible import visible

    absent = [name for name in expected if name not in heartbeat.deliveries]
    if absent and not heartbeat.raised:
        return [f"no worker raised its alert within {timeout:g} s: is one running? (deltaloom check)"]
    missing = [
        f"{visible(name)}: the alert was raised, but no delivery was recorded within {timeout:g} s: is a "
        "relay running, with heartbeat = true, and the destination up? (the relay's log)"
        for name in absent
    ]
    return missing + [
        f"{visible(name)}: {visible(each.outcome)}, {visible(each.answer)}"
        for name, each in heartbeat.deliveries.items()
        if name in expected and each.outcome != "delivered"
    ]


def _write(textfile: Path, latencies: dict[str, int]) -> None:
    """Write the time and the latencies in ms of a success.

    Raises:
        CommandError: the file cannot be written.
    """
    from service.cli.file_in_one_step import replace_file

    last, latency = (
        "deltaloom_heartbeat_last_success_timestamp_seconds",
        "deltaloom_heartbeat_latency_seconds",
    )
    lines = [
        f"# HELP {last} Time of the last heartbeat that all its destinations took.",
        f"# TYPE {last} gauge",
        f"{last} {time.time():.3f}",
        f"# HELP {latency} Seconds from a heartbeat's publication to its delivery.",
        f"# TYPE {latency} gauge",
        *(f'{latency}{{destination="{name}"}} {ms / 1000}' for name, ms in latencies.items()),
    ]
    replace_file(textfile, "".join(f"{line}\n" for line in lines).encode())
