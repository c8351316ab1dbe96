"""`deltaloom health`: check the processes here by their heartbeat files. The health check of the image."""

from __future__ import annotations

import os
import sys

import typer

from service.cli.help_text import examples

EXAMPLES = examples("deltaloom health", "DELTALOOM_HEARTBEAT_FILE=/run/deltaloom/heartbeat deltaloom health")


def run() -> None:
    """Check that all processes here make progress. The exit code is 1 if one does not, else 0.

    It reads the heartbeat files that workers and relays renew every second, and asks no server: while Redis
    is away, a worker that waits for it is healthy. `deltaloom check` asks the server.
    """
    from service.observability.heartbeat_file import health

    healthy, line = health(os.environ)
    sys.stdout.write(f"{line}\n")
    raise typer.Exit(0 if healthy else 1)
