"""A real Prometheus that scrapes the workers and relays of a run, and what its data must show.

Its counters must agree with the run's accounts, and each panel of the dashboard must have data.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from chaos.processes import BenchError
from embedded.free_ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_EVERY = 1
"""Seconds between two scrapes."""

_READY_WITHIN = 30.0
_FIGURES_AFTER = 6.0
"""Seconds after which the figures of the group are new; they are measured every five seconds."""

_SCRAPED_WITHIN = 30.0
_ENDS_WITHIN = 10.0

_DASHBOARD = Path(__file__).parents[1] / "deploy/grafana/dashboard.json"

_NOT_IN_A_RUN = (
    "deltaloom_archive_",
    "deltaloom_console_",
    "deltaloom_heartbeat_",
    "deltaloom_tap_",
    "deltaloom_trace_spans_",
)
"""Metrics of what does not run here: programs beside the service, heartbeats, a receiver of traces."""
_OF_RELAYS = "deltaloom_relay_"


class Prometheus:
    """A Prometheus server with its data in the folder of the run.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports: list[int] = []
        """Ports on which the workers and relays serve their metrics; complete before `start`."""
        self._address = f"{HOST}:{free_port()}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the server, and wait until it is ready.

        Raises:
            BenchError: the program is not installed, or does not become ready.
        """
        program = shutil.which("prometheus")
        if program is None:
            raise BenchError("there is no program `prometheus`: install Debian's package prometheus")
        targets = [f"{HOST}:{port}" for port in self.ports]
        interval = f"{_EVERY}s"
        job = {"job_name": "deltaloom", "static_configs": [{"targets": targets}]}
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [job],
        }
        file = self._folder / "prometheus.yml"
        file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={self._folder / 'prometheus'}",
                f"--web.listen-address={self._address}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await _until(self._is_ready, _READY_WITHIN, "Prometheus is not ready; see prometheus.log")

    async def kill(self) -> None:
        """End the server."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _ENDS_WITHIN)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def caught_up(self) -> None:
        """Wait until all processes were scraped again, after they have renewed the figures of the group.

        Raises:
            BenchError: one of them does not answer.
        """
        since = time.time() + _FIGURES_AFTER

        async def scraped() -> bool:
            found = await self._query("timestamp(up == 1)")
            times = [float(series["value"][1]) for series in found]
            return len(times) == len(self.ports) and min(times) > since

        await _until(scraped, _SCRAPED_WITHIN, "Prometheus cannot scrape all processes")

    async def grown(self, metric: str, seconds: float) -> float:
        """Return the growth of a counter of all processes in the last `seconds`, summed over its labels."""
        found = await self._query(f"{metric}[{round(seconds)}s]")
        return sum(increase([float(value) for _, value in series["values"]]) for series in found)

    async def latest(self, metric: str, seconds: float, label: str) -> dict[str, float]:
        """Return the latest value of a counter that only one process exports at a time, by a label."""
        last: dict[str, tuple[float, float]] = {}
        for series in await self._query(f"{metric}[{round(seconds)}s]"):
            name, (at, value) = series["metric"][label], series["values"][-1]
            last[name] = max(last.get(name, (0.0, 0.0)), (float(at), float(value)))
        return {name: value for name, (_, value) in last.items()}

    async def empty_panels(self, seconds: float, *, relays: bool) -> tuple[int, list[str]]:
        """Evaluate the dashboard's expressions; return their number, and those without a value.

        Args:
            seconds: length of the run, over which rates are computed, so that a rare event counts.
            relays: False if no relay runs, so that its panels may be empty.
        """
        absent = _NOT_IN_A_RUN if relays else (*_NOT_IN_A_RUN, _OF_RELAYS)
        asked = expressions(seconds, absent)
        return len(asked), [each for each in asked if not has_value(await self._query(each))]

    async def _is_ready(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{self._address}/-/ready") as reply,
            ):
                return reply.status == 200  # noqa: PLR2004 - OK
        except aiohttp.ClientError:
            return False

    async def _query(self, expression: str) -> list[dict[str, Any]]:
        address = f"http://{self._address}/api/v1/query"
        async with (
            aiohttp.ClientSession() as session,
            session.get(address, params={"query": expression}) as it,
        ):
            reply = await it.json()
        if reply["status"] != "success":
            raise BenchError(f"Prometheus refuses {expression}: {reply.get('error')}")
        result: list[dict[str, Any]] = reply["data"]["result"]
        return result


def compare(
    counted: Mapping[str, float],
    expected: Mapping[str, tuple[int, int]],
    *,
    exact: bool,
    wrong: Callable[[str], None],
) -> None:
    """Report each counter that differs from the run's own account of it.

    Args:
        counted: sums of the counters of all processes, by what they count.
        expected: the accounts by the same names: lowest and highest correct value.
        exact: False if processes were killed, since their counts after the last scrape are missing.
        wrong: receives a description.
    """
    for name, (lowest, highest) in expected.items():
        value = round(counted.get(name, 0.0))
        if value > highest or (exact and value < lowest):
            account = f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"
            wrong(f"{name}: the metrics say {value:,}, the accounts {account}")


def expressions(seconds: float, absent: Sequence[str]) -> list[str]:
    """Return the expressions of the dashboard, with its variables replaced.

    Args:
        seconds: length of the period of rates.
        absent: beginnings of the metrics that nobody exports; expressions with one of them are left out.
    """
    panels = json.loads(_DASHBOARD.read_text("utf-8"))["panels"]
    found = dict.fromkeys(target["expr"] for panel in panels for target in panel.get("targets", ()))
    return [
        each.replace("$__rate_interval", f"{round(seconds)}s").replace("$job", ".*")
        for each in found
        if not any(name in each for name in absent)
    ]


def has_value(series: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether an instant query gave a number; a quantile of no observations is none."""
    return any(not math.isnan(float(each["value"][1])) for each in series)


def increase(values: Sequence[float]) -> float:
    """Return the growth of a counter. A lower value means that its process restarted, and began at 0."""
    grown, before = 0.0, 0.0
    for value in values:
        grown += value - before if value >= before else value
        before = value
    return grown


async def _until(condition: Any, seconds: float, failure: str) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise BenchError(failure)
        await asyncio.sleep(0.1)
