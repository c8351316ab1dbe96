"""Define the option `--config` of sub-commands that read `alerts.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VARIABLE = "DELTALOOM_ALERTS_FILE"
"""Environment variable with the path of the file; default is `alerts.toml` in the working folder."""

DEFAULT = Path("alerts.toml")

ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config", "-c", metavar="FILE", envvar=VARIABLE, help="File of destinations, rules and routes."
    ),
]
