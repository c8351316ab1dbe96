"""Entry point of `python -m chaos`."""

from __future__ import annotations

import sys

from chaos.command import main

sys.exit(main())
