"""Test that a worker imports only what it needs: each library takes start time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.service.cli.environment import ROOT, environment

OF_THE_RELAY = {
    "aiohttp",
    "apprise",
    "re2",
    "requests",
    "service.alerts.deciding",
    "service.alerts.destinations",
    "service.alerts.sending",
    "service.apps.relay_app",
    "service.bus.alerts",
    "standardwebhooks",
    "tomllib",
    "yaml",
}
OF_OTHER_COMMANDS = {
    "attr",
    "embedded",
    "google.protobuf",
    "opentelemetry",
    "prometheus_client",
    "pygments",
    "rich",
    "service.cli.alerts",
    "service.cli.output",
    "service.cli.run",
    "service.observability.metrics",
    "service.observability.tracing",
    "typer.rich_utils",
}
OF_WORKERS = {"faststream", "service.apps.worker_app", "service.pipeline", "uvloop"}

CODE = f"""
import atexit, json, sys

names = {OF_THE_RELAY | OF_OTHER_COMMANDS | OF_WORKERS} - set(sys.modules)  # coverage imports tomllib
atexit.register(lambda: sys.stdout.write(json.dumps(sorted(names & set(sys.modules))) + "\\n"))
from service.cli import main

main()
"""
"""The command `deltaloom`, which prints at its end which of these modules it has imported."""


def test_processes_import_only_what_they_need(redis_url: str, prefix: str) -> None:
    """Import nothing for the relay or other commands in a worker, nor for workers in the parent process."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CODE, "worker", "--processes", "2"],
        cwd=ROOT,
        env=environment(redis_url, prefix, DELTALOOM_LOG_FORMAT="json", DELTALOOM_BLOCK_MS="50"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stderr is not None
        log: list[dict[str, Any]] = []
        while sum(line["event"] == "worker started" for line in log) < 2:
            log.append(json.loads(process.stderr.readline()))
        process.terminate()
        printed, _ = process.communicate()
    assert process.returncode == 0
    *workers, parent = (set(json.loads(line)) for line in printed.splitlines())
    assert workers == [OF_WORKERS, OF_WORKERS]
    assert parent == set()
