"""Simulate how an autoscaler follows a day's load: `python -m bench.scaling` draws docs/scaling-day.png.

The autoscaler is that of deploy/kubernetes, and computes as Kubernetes does. The lag is no formula: a real
server holds a stream and a group, and XINFO GROUPS gives it. One entry there stands for `ENTRIES_AS_ONE`.
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from redis import Redis

from embedded.embedded_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[1]
SCALED_OBJECT = ROOT / "deploy/kubernetes/components/keda/scaled-object.yaml"
PLOT = ROOT / "docs/scaling-day.png"

STEP = 15
"""Seconds between two looks of the autoscaler."""

DAY = 86400
ENTRIES_AS_ONE = 1000

CAPACITY = 20_000
"""Entries a second of one worker: the highest steady rate of docs/performance.md on a slow core."""

STARTING = 30
"""Seconds until a new pod works: scheduling, image, start."""

TOLERANCE = 0.1
"""Relative difference up to which Kubernetes changes nothing."""

_BUSY_HOURS = (10.5, 15.0)
_FLASH = (20 * 3600, 20 * 3600 + 300)
"""Five minutes in which all clients come back at once."""

_PUBLISH = """
for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'e', '') end
"""
_WORK = """
local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], 'w', 'COUNT', ARGV[2], 'STREAMS', KEYS[1], '>')
if not reply then return 0 end
for _, entry in ipairs(reply[1][2]) do redis.call('XACK', KEYS[1], ARGV[1], entry[1]) end
redis.call('XTRIM', KEYS[1], 'MINID', '~', reply[1][2][#reply[1][2]][1])
return #reply[1][2]
"""


def load(second: float) -> float:
    """Return the entries a second at a time of the day: a quiet night, two peaks, and a flash of clients."""
    hour = second / 3600
    busy = sum(math.exp(-(((hour - peak) / 1.8) ** 2)) for peak in _BUSY_HOURS)
    flash = 50_000 if _FLASH[0] <= second < _FLASH[1] else 0
    return 3_000 + 55_000 * busy + flash


class Rules(NamedTuple):
    """The autoscaler's rules."""

    target: int
    """Entries of lag for each worker."""
    lowest: int
    highest: int
    up: int
    """Pods that may be added within `up_period` seconds."""
    up_period: int
    down: int
    """Pods that may be removed within `down_period` seconds."""
    down_period: int
    down_window: int
    """Seconds of which the highest demand counts before pods are removed."""

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Rules:
        """Read the rules from a ScaledObject."""
        behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        (up,) = behaviour["scaleUp"]["policies"]
        (down,) = behaviour["scaleDown"]["policies"]
        return cls(
            int(spec["triggers"][0]["metadata"]["lagCount"]),
            spec["minReplicaCount"],
            spec["maxReplicaCount"],
            up["value"],
            up["periodSeconds"],
            down["value"],
            down["periodSeconds"],
            behaviour["scaleDown"]["stabilizationWindowSeconds"],
        )


class Autoscaler:
    """The number of pods that Kubernetes wants, by the lag at each look."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.pods = rules.lowest
        self._demands: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def look(self, now: float, lag: float) -> int:
        """Return the number of pods after a look at a time in seconds."""
        rules = self._rules
        demand = self.pods
        if abs(lag / (rules.target * self.pods) - 1) > TOLERANCE:
            demand = math.ceil(lag / rules.target)
        demand = max(rules.lowest, min(rules.highest, demand))
        self._demands = [each for each in self._demands if each[0] > now - rules.down_window]
        self._demands.append((now, demand))
        if demand > self.pods:
            wanted = min(demand, self._before(now - rules.up_period) + rules.up)
            self._become(now, max(wanted, self.pods))
        else:
            wanted = max(each for _, each in self._demands)
            wanted = max(wanted, self._before(now - rules.down_period) - rules.down)
            self._become(now, min(wanted, self.pods))
        return self.pods

    def _before(self, time: float) -> int:
        """Return the number of pods that there were at a time."""
        return self.pods - sum(change for at, change in self._changes if at > time)

    def _become(self, now: float, pods: int) -> None:
        if pods != self.pods:
            self._changes.append((now, pods - self.pods))
            self.pods = pods


class Look(NamedTuple):
    """The state at one look."""

    second: float
    load: float
    """Entries a second."""
    lag: float
    """Unread entries, by XINFO GROUPS."""
    pods: int
    working: int
    """Pods that have started."""


def simulate(
    rules: Rules, server: Redis, seconds: int = DAY, load_at: Callable[[float], float] = load
) -> list[Look]:
    """Run a day on a server, and return each look of the autoscaler."""
    server.flushall()
    server.xgroup_create("input", "workers", id="0", mkstream=True)
    publish, work = server.register_script(_PUBLISH), server.register_script(_WORK)
    scaler = Autoscaler(rules)
    ready_at = [0.0] * rules.lowest
    looks: list[Look] = []
    fraction = 0.0
    for second in range(0, seconds, STEP):
        fraction += load_at(second) * STEP / ENTRIES_AS_ONE
        publish(keys=["input"], args=[int(fraction)])
        fraction -= int(fraction)
        working = sum(each <= second for each in ready_at)
        work(keys=["input"], args=["workers", working * CAPACITY * STEP // ENTRIES_AS_ONE])
        groups: Any = server.xinfo_groups("input")
        lag = groups[0]["lag"] * ENTRIES_AS_ONE
        looks.append(Look(second, load_at(second), lag, scaler.pods, working))
        pods = scaler.look(second, lag)
        ready_at = [*ready_at, *[float(second + STARTING)] * (pods - len(ready_at))][:pods]
    return looks


def wait_of(look: Look) -> float:
    """Return the seconds after which the last unread entry is read."""
    return look.lag / (look.working * CAPACITY)


def draw(looks: Sequence[Look], file: Path) -> None:
    """Draw the day: load and capacity, waiting time, pods."""
    import matplotlib as mpl  # noqa: PLC0415 - the tests of the simulation do not draw

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    hours = [each.second / 3600 for each in looks]
    plt.rcParams.update({"font.size": 9, "axes.grid": True, "grid.color": "#e5e7eb", "legend.frameon": False})
    figure, (rates, waits, pods) = plt.subplots(3, 1, sharex=True, figsize=(8, 6.5), layout="constrained")
    capacity = [each.working * CAPACITY / 1000 for each in looks]
    rates.step(hours, capacity, where="post", color="#9ca3af", label="capacity of the workers")
    rates.plot(hours, [each.load / 1000 for each in looks], color="#2563eb", label="load")
    rates.set_ylabel("1,000 entries a second")
    rates.legend(loc="upper left")
    waits.plot(hours, [wait_of(each) for each in looks], color="#dc2626")
    waits.set_ylabel("seconds until the\nlast entry is read")
    pods.step(hours, [each.pods for each in looks], where="post", color="#2563eb")
    pods.set_ylabel("workers")
    pods.set_xlabel("hour of the day")
    pods.set_xlim(0, 24)
    pods.set_xticks(range(0, 25, 3))
    for axes in (rates, waits, pods):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
    figure.savefig(file, dpi=110)


def summary(looks: Sequence[Look]) -> str:
    """Return the figures of a day in a few lines."""
    waits = sorted(map(wait_of, looks))
    hours = sum(each.pods for each in looks) * STEP / 3600
    changes = sum(one.pods != other.pods for one, other in pairwise(looks))
    late = sum(wait > 1 for wait in waits) * STEP / 60
    return (
        f"entries: {sum(each.load for each in looks) * STEP:,.0f}\n"
        f"most workers: {max(each.pods for each in looks)}; worker hours: {hours:.0f}; changes: {changes}\n"
        f"longest wait: {waits[-1]:.0f} s; minutes with a wait above 1 s: {late:.0f}; "
        f"99th percentile: {waits[int(len(waits) * 0.99)]:.0f} s\n"
    )


def main() -> None:
    """Simulate a day, draw it, and print its figures."""
    spec = next(yaml.safe_load_all(SCALED_OBJECT.read_text("utf-8")))["spec"]
    with EmbeddedServer(protected=False) as server, Redis.from_url(server.url) as client:
        looks = simulate(Rules.of(spec), client)
    draw(looks, PLOT)
    sys.stdout.write(summary(looks))


if __name__ == "__main__":
    main()
