"""Import structlog without rich.

If rich is installed, structlog imports it to draw tracebacks, and with it pygments and attrs: a tenth of the
time in which a worker starts, and 4 MB. Our tracebacks are plain text (`service/logs.py`). So structlog does
not find rich here, unless the command has already imported it.
"""

from __future__ import annotations

import sys

__all__ = ["structlog"]

_hidden = "rich" not in sys.modules
if _hidden:
    sys.modules["rich"] = None  # type: ignore[assignment] # as the import system documents: not found
try:
    import structlog
finally:
    if _hidden:
        del sys.modules["rich"]
