"""Run the server's process, so that it ends with its owner.

The server runs in a session of its own, so that Ctrl-C on the terminal stops only the worker, which needs the
server to finish its work. A shell between the two stops the server when its owner has ended for any reason:
it reads a pipe that only the owner holds open.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STOPPED_WITHIN: Final = 30.0
"""Maximum seconds for a server to write its data and end."""

_WATCH = """
exec 3<&0
"$@" 3<&- </dev/null & server=$!
(cat <&3 >/dev/null; kill $server) & watcher=$!
exec 3<&-
wait $server; code=$?
kill $watcher
exit $code
"""


class ServerProcess:
    """A started server and the shell that watches its owner.

    Args:
        binary: path of the server's program.
        arguments: its arguments.
        folder: its working folder.
    """

    def __init__(self, binary: Path, arguments: Sequence[str], folder: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program, with arguments of our own
            ["/bin/sh", "-c", _WATCH, "sh", str(binary), *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        """Return whether the server has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Stop the server, and wait until it has written its data; kill it if that takes too long."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
