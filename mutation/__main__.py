"""`python -m mutation`."""

from __future__ import annotations

import signal
import sys

from mutation.command import main

for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background ignores the first
    signal.signal(number, signal.default_int_handler)
sys.exit(main())
