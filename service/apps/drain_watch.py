"""Let a worker stop reading while there is a request for that in Redis (`deltaloom drain`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import logs

if TYPE_CHECKING:
    from service.storage.client.reads import Reads
    from service.storage.draining import DrainRequest


class DrainWatch:
    """Stops and resumes the reads of a worker.

    Batches in progress are finished, entries of dead workers are claimed, and texts are settled all the same.

    Args:
        request: the request in Redis.
        reads: the reads of the worker.
    """

    def __init__(self, request: DrainRequest, reads: Reads) -> None:
        self._request = request
        self._reads = reads
        self.is_draining = False
        """True while the worker does not read, because of a request."""

    async def look(self) -> None:
        """Look whether there is a request, and act accordingly.

        Raises:
            StorageUnavailableError: the server is unavailable, or misconfigured; nothing changes.
        """
        until = await self._request.until()
        if (until is not None) == self.is_draining:
            return
        self.is_draining = until is not None
        if until is not None:
            self._reads.pause()
            logs.logger().warning("draining, reading stopped", until=until)
        else:
            self._reads.resume()
            logs.logger().warning("reading resumed")
