"""The real command with a memory limit, so that a leak ends the run and not the machine.

`python -m hostile.limited BYTES worker …` becomes `python -m service worker …`.
"""

from __future__ import annotations

import os
import resource
import sys


def main(at_most: str, *arguments: str) -> None:
    """Set the limit of address space, and replace this process with the command."""
    resource.setrlimit(resource.RLIMIT_AS, (int(at_most), int(at_most)))
    os.execv(sys.executable, [sys.executable, "-m", "service", *arguments])  # noqa: S606 - our own program


if __name__ == "__main__":
    main(*sys.argv[1:])
