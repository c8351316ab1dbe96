"""Build earlier releases from git and install them: `python -m tests.upgrade.release v0.1.0`.

A release is built once and cached in the virtual environment's folder. Its own two packages come from its
commit; its dependencies are the installed ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]

COMMITS = {"v0.1.0": "118ce7e52fef91e684cc25cea6042ee2b139c1e0"}
"""The commit of each release, since a clone may lack the tags."""

_CACHE = Path(sys.prefix) / "releases"


class NoReleaseError(Exception):
    """The release cannot be built; the message gives the reason."""


def installed(release: str) -> Path:
    """Return the folder with the installed packages of a release; build it if necessary.

    Raises:
        NoReleaseError: The clone does not have the release's commit, or the build failed.
    """
    commit = COMMITS[release]
    target = _CACHE / f"{release}-{commit[:12]}"
    if not target.is_dir():
        _CACHE.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=_CACHE) as name:
            wheels = _built(commit, Path(name))
            _install(wheels, Path(name, "packages"))
            try:
                os.replace(Path(name, "packages"), target)  # noqa: PTH105 - names the replacement explicitly
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
    return target


def environment(packages: Path | None) -> dict[str, str]:
    """Return this process's environment without settings, with an installation before this tree."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DELTALOOM_", "REDIS_URL", "PYTHONPATH"))
    }
    return kept if packages is None else {**kept, "PYTHONPATH": str(packages)}


def _built(commit: str, folder: Path) -> list[Path]:
    """Build the wheels of the library and of the worker from a commit."""
    try:
        archive = _run("git", "-C", str(ROOT), "archive", commit)
    except NoReleaseError as error:
        raise NoReleaseError(
            f"this clone does not have commit {commit}: get it with `git fetch --tags --unshallow` ({error})"
        ) from error
    source = folder / "source"
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(source, filter="data")
    wheels = folder / "wheels"
    for project in (source / "client", source):
        _run(
            sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(project)
        )
    return sorted(wheels.glob("*.whl"))


def _install(wheels: list[Path], target: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq")
    _run(*pip, "--no-deps", "--no-index", "--target", str(target), *map(str, wheels))


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise NoReleaseError(f"{command[0]} failed with {done.returncode}: {' '.join(last)}")
    return done.stdout


if __name__ == "__main__":
    for each in sys.argv[1:] or COMMITS:
        sys.stdout.write(f"{installed(each)}\n")
