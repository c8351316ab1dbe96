"""Build the files of a release in a folder, and its image: `make release`.

The folder gets wheel and sdist of the library and of the worker, a list of the contents of each and of
the image (SBOM, in CycloneDX), and the checksums of all. The same commit gives the same bytes, since all
times are that of the commit; only the list of the image also depends on its base. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
IMAGE = "deltaloom"


class ReleaseError(Exception):
    """The release cannot be built; the message is one line with the reason."""


class Commit(NamedTuple):
    """The commit that is built."""

    revision: str
    seconds: int
    """Time of the commit, in seconds since 1970."""
    tags: tuple[str, ...]


def version() -> str:
    """Return the version, which only the library's pyproject.toml has."""
    project = tomllib.loads((ROOT / "client/pyproject.toml").read_text("utf-8"))
    return str(project["project"]["version"])


def head() -> Commit:
    """Return the commit of the clone."""
    revision, seconds = _run("git", "log", "-1", "--format=%H %ct").split()
    return Commit(revision, int(seconds), tuple(_run("git", "tag", "--points-at", "HEAD").split()))


def check(commit: Commit, changelog: str) -> None:
    """Check that the commit is a release.

    Raises:
        ReleaseError: its tag, its section of the changelog or its files are not.
    """
    number = version()
    if f"v{number}" not in commit.tags:
        raise ReleaseError(f"the commit has no tag v{number}: tag it, or use --dry-run")
    if not re.search(rf"^## {re.escape(number)}, \d{{4}}-\d{{2}}-\d{{2}}$", changelog, re.MULTILINE):
        raise ReleaseError(f"CHANGELOG.md has no section `## {number}, YYYY-MM-DD`")
    if _run("git", "status", "--porcelain", "--untracked-files=no"):
        raise ReleaseError("files differ from the commit: commit or revert them")


def build(folder: Path, commit: Commit) -> None:
    """Build the files in an empty or new folder.

    Raises:
        ReleaseError: the folder has files, or a program fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ReleaseError(f"{folder} is not empty: name another folder with --output")
    epoch = {"SOURCE_DATE_EPOCH": str(commit.seconds)}
    for project in (ROOT / "client", ROOT):
        _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(project), **epoch)
    client = tomllib.loads((ROOT / "client/pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    _list_contents(folder / f"deltaloom-{version()}.cdx.json", ROOT / "client/pyproject.toml", "-", client)
    _list_contents(
        folder / f"deltaloom-worker-{version()}.cdx.json",
        ROOT / "pyproject.toml",
        str(ROOT / "locks/runtime.txt"),
    )
    _write_sums(folder)


def build_image(folder: Path, commit: Commit, source: str) -> None:
    """Build the image, and add the list of its contents to the folder.

    Raises:
        ReleaseError: Docker fails.
    """
    from release.image_contents import LISTING_PROGRAM, Image, list_image  # noqa: PLC0415 - else `--help` needs it

    _run(*image_command(commit, source))
    tag = f"{IMAGE}:{version()}"
    listed = _run(
        *("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", tag, "-c", LISTING_PROGRAM)
    )
    contents = list_image(Image(IMAGE, version(), commit.seconds), listed)
    (folder / f"{IMAGE}-image-{version()}.cdx.json").write_text(contents, "utf-8")
    _write_sums(folder)


def _write_sums(folder: Path) -> None:
    """Write the checksums of all files in a folder."""
    sums = folder / "SHA256SUMS"
    files = sorted(each for each in folder.iterdir() if each != sums)
    lines = [f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files]
    sums.write_text("".join(lines), "utf-8")


def image_command(commit: Commit, source: str) -> list[str]:
    """Return the command that builds the image, with its tags and labels; `source` is the URL of the code."""
    number = version()
    created = datetime.fromtimestamp(commit.seconds, UTC).isoformat(timespec="seconds")
    arguments = {
        "VERSION": number,
        "REVISION": commit.revision,
        "CREATED": created,
        "SOURCE": source,
        "SOURCE_DATE_EPOCH": str(commit.seconds),
    }
    tags = (number, number.rpartition(".")[0], "latest")
    return [
        *("docker", "build", "--file", "deploy/Dockerfile"),
        *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        *(word for tag in tags for word in ("--tag", f"{IMAGE}:{tag}")),
        ".",
    ]


def _list_contents(file: Path, project: Path, requirements: str, lines: Sequence[str] = ()) -> None:
    """Write the SBOM of a package: its dependencies, as locked or as `lines` require them."""
    command = (sys.executable, "-m", "cyclonedx_py", "requirements", requirements)
    options = ("--pyproject", str(project), "--mc-type", "application", "--output-reproducible")
    _run(*command, *options, "--output-format", "JSON", "--output-file", str(file), given="\n".join(lines))
    bom = json.loads(file.read_text("utf-8"))
    bom["metadata"]["component"]["version"] = version()  # the tool does not know a dynamic one
    file.write_text(json.dumps(bom, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _run(*command: str, given: str = "", **environment: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own programs, with arguments written here
        command,
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ReleaseError(f"{shlex.join(command[:4])} failed with {done.returncode}: {' '.join(last)}")
    return done.stdout


def main() -> None:
    """Build a release as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="an empty folder (default: dist)")
    parser.add_argument("--dry-run", action="store_true", help="build the files of any commit, and no image")
    parser.add_argument("--source", default="unknown", metavar="URL", help="where the code of the image is")
    given = parser.parse_args()
    try:
        commit = head()
        if not given.dry_run:
            check(commit, (ROOT / "CHANGELOG.md").read_text("utf-8"))
        build(given.output, commit)
        command = image_command(commit, given.source)
        sys.stdout.write(f"{given.output / 'SHA256SUMS'}\n{shlex.join(command)}\n")
        if not given.dry_run:
            build_image(given.output, commit, given.source)
    except ReleaseError as error:
        sys.exit(f"release: {error}")


if __name__ == "__main__":
    main()
