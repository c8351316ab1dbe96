"""Workers and relays as deployed: child processes of the real command, with a memory limit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from chaos.processes import Workers, WorkerSlot
from chaos.receiver import SECRET, SECRET_VARIABLE
from hostile import limits, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hostile.options import Options

ALERTS_FILE = "alerts.toml"
"""Name of the relay's configuration in the folder of the run."""


def environment(options: Options, port: int) -> dict[str, str]:
    """Return settings as deployed, except those that must be small for a run of a minute."""
    return {
        "REDIS_URL": f"redis://127.0.0.1:{port}",
        "DELTALOOM_PARTITIONS": str(options.partitions),
        "DELTALOOM_IDLE_TIMEOUT": str(options.idle_timeout),
        "DELTALOOM_MAX_OPEN_RESPONSES": str(limits.OPEN_RESPONSES),
        "DELTALOOM_SPIKE_WINDOW": str(probe.WINDOW),
        "DELTALOOM_SPIKE_BASELINE": str(probe.BASELINE),
        "DELTALOOM_SPIKE_RESPONSES": str(probe.RESPONSES),
        SECRET_VARIABLE: SECRET,
    }


def processes(
    options: Options, folder: Path, settings: Mapping[str, str], violate: Callable[[str, str], None]
) -> list[Workers]:
    """Return workers with JSON logs, workers with readable logs, and relays; none is started yet."""

    def died(why: str) -> None:
        violate("worker died", why)

    def group(what: str, count: int, *arguments: str, form: str = "json") -> Workers:
        command = (sys.executable, "-m", "hostile.limited", str(limits.ADDRESS_SPACE), *arguments)
        workers = Workers(folder, command, {**settings, "DELTALOOM_LOG_FORMAT": form}, died, what=what)
        workers.slots = [WorkerSlot(number) for number in range(count)]
        return workers

    return [
        group("worker", options.workers - options.workers // 2, "worker"),
        group("worker-pretty", options.workers // 2, "worker", form="pretty"),
        group("relay", options.relays, "relay", "--config", str(folder / ALERTS_FILE)),
    ]
