"""Entry point of `python -m hostile`."""

from __future__ import annotations

import sys

from hostile.command import main

sys.exit(main())
