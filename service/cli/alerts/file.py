"""The file `alerts.toml` of a sub-command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VARIABLE = "DELTALOOM_ALERTS_FILE"
"""Names the file, where it is not `alerts.toml` in the working folder."""

DEFAULT = Path("alerts.toml")

ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", envvar=VARIABLE, help="What alerts whom."),
]
