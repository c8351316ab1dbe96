"""Answer requests for `/metrics`; imported only by a process that serves them, as the library takes memory.

A process of several answers its parent with its values as JSON (`VALUES`), and the parent adds them up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.observability.metrics import catalog
from service.observability.metrics.exposition import exposition
from service.observability.metrics.relay_counts import RelayCounts
from service.observability.metrics.samples import from_json, to_json, together
from service.observability.metrics.worker_instruments import WorkerInstruments
from service.observability.routes import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from service.observability.metrics.samples import Samples
    from service.observability.routes import HttpRequest, Route

PATH: Final = "/metrics"
VALUES: Final = "/metrics/values"


class MetricsEndpoint:
    """The metrics of all parts of a process."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Samples]] = []
        self.routes: dict[str, Route] = {PATH: self._answer, VALUES: self._answer_parent}
        """The routes of the HTTP server by path."""

    def of_worker(self) -> WorkerInstruments:
        """Return new instruments for a worker in this process."""
        instruments = WorkerInstruments()
        self._sources.append(instruments.samples)
        return instruments

    def of_relay(self) -> RelayCounts:
        """Return new instruments for a relay in this process."""
        counts = RelayCounts()
        self._sources.append(counts.samples)
        return counts

    def of_traces(self, spans: Callable[[], Mapping[str, int]]) -> None:
        """Export the numbers of this process's spans, which the function returns by outcome."""
        self._sources.append(
            lambda: {catalog.SPANS.name: {(outcome,): number for outcome, number in spans().items()}}
        )

    def add(self, source: Callable[[], Samples]) -> None:
        """Add a function that returns values of metrics."""
        self._sources.append(source)

    def samples(self) -> Samples:
        """Return the values of all parts."""
        return together(source() for source in self._sources)

    async def _answer(self, request: HttpRequest) -> Answer:
        return _in_format(self.samples(), request)

    async def _answer_parent(self, _: HttpRequest) -> Answer:
        return Answer(to_json(self.samples()), content_type="application/json")


class ParentEndpoint:
    """The metrics of several processes as those of one.

    Args:
        ask: returns the answers for `VALUES` of those processes that answer.
    """

    def __init__(self, ask: Callable[[], Awaitable[Iterable[bytes]]]) -> None:
        self._ask = ask
        self.routes: dict[str, Route] = {PATH: self._answer}
        """The routes of the HTTP server by path."""

    async def _answer(self, request: HttpRequest) -> Answer:
        return _in_format(together(map(from_json, await self._ask())), request)


def _in_format(samples: Samples, request: HttpRequest) -> Answer:
    body, media_type = exposition(samples, request.headers.get("Accept", ""))
    return Answer(body, content_type=media_type)
