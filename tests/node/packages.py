"""Link the packages of locks/node, which `make prove` installs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.tiers import lack, need

_PACKAGES: Final = Path(sys.executable).parents[1] / "node" / "node_modules"


def add_packages(folder: Path) -> None:
    """Link the packages into a folder, so that modules there find them; skip the test without Node."""
    need("node", what="Node with npm", package="npm")
    if not _PACKAGES.exists():
        lack("packages of Node", "none: make prove")
    folder.joinpath("node_modules").symlink_to(_PACKAGES)
