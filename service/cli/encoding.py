"""Set how stdout and stderr write characters that their encoding does not have."""

from __future__ import annotations

import sys


def escape_unknown_characters() -> None:
    """Make stdout and stderr escape characters that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
