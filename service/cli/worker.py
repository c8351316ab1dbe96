"""`deltaloom worker`: run one worker in the foreground."""

import uvloop

from service import logs
from service.app import run_worker
from service.settings import Settings


def run() -> None:
    """Run a worker."""
    settings = Settings.read()
    logs.configure(settings)
    uvloop.run(run_worker(settings))
