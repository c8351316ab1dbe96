"""Test the Grafana dashboard: made by its script, and each expression gives data on a Prometheus."""

from __future__ import annotations

import json
import runpy
import subprocess
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.deploy.metric_names import HISTOGRAMS, METRICS, unknown
from tests.docs.pages import ROOT
from tests.prometheus_servers import prometheus
from tests.tiers import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ROOT / "deploy/grafana"
SCRIPT = runpy.run_path(str(FOLDER / "make_dashboard.py"))
EXPRESSIONS = sorted(
    {each.replace(SCRIPT["RATE"], "5m").replace("$job", ".*") for each in SCRIPT["expressions"]()}
)


def test_file_is_that_of_the_script() -> None:
    """Keep the file as the script makes it; the first line of the script has the command."""
    assert json.loads((FOLDER / "dashboard.json").read_text("utf-8")) == SCRIPT["dashboard"]()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_uses_metrics_that_exist(expression: str) -> None:
    """Use only metrics and labels of the program. A panel about another one would be empty for ever."""
    assert unknown(expression) == []


def test_every_metric_is_on_the_dashboard() -> None:
    """Show each metric, so that nobody has to know the names."""
    shown = json.dumps(SCRIPT["dashboard"]())
    assert [name for name in METRICS if f"deltaloom_{name}" not in shown] == []


def test_panels_do_not_overlap() -> None:
    """Fill each row once. Grafana would move panels that overlap."""
    taken: set[tuple[int, int]] = set()
    for panel in SCRIPT["dashboard"]()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= SCRIPT["WIDTH"]
        taken |= cells


async def test_expressions_give_data(tmp_path: Path) -> None:
    """Evaluate all expressions on a Prometheus with ten minutes of each metric: no panel is empty."""
    now = int(time.time()) - 60
    fill(tmp_path, now)
    async with prometheus(tmp_path, {"scrape_configs": []}) as address:
        empty = [each for each in EXPRESSIONS if not evaluated(address, each, now)]
    assert empty == []


def fill(folder: Path, now: int) -> None:
    """Make a database with ten minutes of every metric."""
    promtool = need("promtool", what="promtool", package="prometheus")
    samples, data = folder / "samples", folder / "data"
    samples.write_text("".join(openmetrics(now)), "utf-8")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(samples), str(data)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def openmetrics(now: int) -> Iterator[str]:
    """Yield ten minutes of every metric in OpenMetrics' text format, one sample each 15 seconds."""
    times = range(now - 600, now + 1, 15)
    for name, labels in METRICS.items():
        metric = f"deltaloom_{name}"
        suffixes: list[tuple[str, dict[str, str]]] = [("", {})]
        if name in HISTOGRAMS:
            suffixes = [("_bucket", {"le": "0.1"}), ("_bucket", {"le": "+Inf"}), ("_sum", {}), ("_count", {})]
        kind = "histogram" if name in HISTOGRAMS else "counter" if name.endswith("_total") else "gauge"
        yield f"# TYPE {metric.removesuffix('_total')} {kind}\n"
        for suffix, more in suffixes:
            pairs = {**dict.fromkeys(sorted(labels), "some"), **more, "job": "deltaloom", "instance": "a"}
            shown = ",".join(f'{label}="{value}"' for label, value in pairs.items())
            for number, at in enumerate(times):
                yield f"{metric}{suffix}{{{shown}}} {number} {at}\n"
    yield "# EOF\n"


def evaluated(address: str, expression: str, at: int) -> list[Any]:
    """Return the result of an instant query."""
    query = urlencode({"query": expression, "time": at})
    with urlopen(f"http://{address}/api/v1/query?{query}", timeout=10) as answer:
        result: list[Any] = json.load(answer)["data"]["result"]
    return result
