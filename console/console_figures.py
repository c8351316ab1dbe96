"""The metrics of a console, from its counts."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from service.observability.metrics import catalog
from service.storage.state_format import FORMAT

if TYPE_CHECKING:
    from console.console_app import ConsoleApp
    from service.observability.metrics.samples import Samples


def samples_of(console: ConsoleApp) -> Samples:
    """Return the values of all metrics of a console."""
    requests: dict[tuple[str, ...], float] = {
        (asked, str(status)): count for (asked, status), count in console.site.requests.items()
    }
    return {
        catalog.BUILD_INFO.name: {(version("deltaloom-worker"), str(FORMAT)): 1},
        catalog.CONSOLE_REQUESTS.name: requests,
        catalog.CONSOLE_STREAMS.name: {(): console.streams},
        catalog.CONSOLE_ENTRIES.name: {(): console.live.entries},
        catalog.CONSOLE_SKIPS.name: {(): console.live.skipped},
    }
