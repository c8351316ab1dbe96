"""Find commit subjects that are too long."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST: Final = 72
"""Maximum characters of a commit's subject."""


def findings(root: Path, commits: str) -> Iterator[str]:
    """Yield a line for each commit of a range (`main..HEAD`) with a subject that is too long.

    Raises:
        subprocess.CalledProcessError: git does not know the range, or `root` is not in a repository.
    """
    log = subprocess.run(  # noqa: S603 - the range is a separate argument
        ["git", "log", "--format=%h %s", commits],  # noqa: S607 - the user's git
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in log.splitlines():
        commit, _, subject = line.partition(" ")
        if len(subject) > LONGEST:
            yield f"{commit}: the subject has {len(subject)} characters, at most {LONGEST}: {subject}"
