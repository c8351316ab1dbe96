"""Open the console's page in a browser, once it answers."""

from __future__ import annotations

import socket
import sys
import threading
import time
import webbrowser

from embedded.free_ports import HOST

_ANSWERS_WITHIN = 40.0
_TRY_EVERY = 0.1


def open_page(port: int) -> None:
    """Print the page's address, and open it as soon as the console listens; return at once."""
    address = f"http://{HOST}:{port}/"
    sys.stderr.write(f"The console is at {address}\n")
    threading.Thread(target=_open, args=(address, port), daemon=True).start()


def _open(address: str, port: int) -> None:
    deadline = time.monotonic() + _ANSWERS_WITHIN
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                webbrowser.open(address)
                return
        time.sleep(_TRY_EVERY)
