"""Entry point of `python -m mutation`."""

from __future__ import annotations

import signal
import sys

from mutation.command import main

for number in (signal.SIGINT, signal.SIGTERM):  # background jobs of a shell ignore SIGINT
    signal.signal(number, signal.default_int_handler)
sys.exit(main())
