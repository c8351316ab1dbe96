"""Check the libraries of the pages, or take them from npm anew.

python -m console.vendoring [--fetch | --accept]

The files in `console/static/vendor` are those of the packages, byte for byte, except that the one import by a
bare name becomes a path, since no page may have an inline import map. `vendor.json` there has the hash of
each package, as npm writes it, and SHA-256 of each file.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "static/vendor"
HASHES = FOLDER / "vendor.json"


class Library(NamedTuple):
    """A package of npm: its name and version, and the file in the tree for each file that is taken."""

    name: str
    version: str
    files: dict[str, str]


LIBRARIES = (
    Library(
        "preact",
        "11.2.0",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js", "LICENSE": "preact.LICENSE.txt"},
    ),
    Library("htm", "3.1.1", {"dist/htm.module.js": "htm.js", "LICENSE": "htm.LICENSE.txt"}),
    Library(
        "uplot",
        "1.6.32",
        {"dist/uPlot.esm.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": "uplot.LICENSE.txt"},
    ),
)

BARE_IMPORTS = {b'from"preact"': b'from"./preact.js"'}
"""Imports that no browser resolves without an import map, and what replaces them."""


class VendoringError(Exception):
    """A package or a file has another hash than the tree says."""


def fetched(library: Library, folder: Path) -> tuple[str, dict[str, bytes]]:
    """Download a package with npm; return its hash, as npm writes it, and the files to store.

    Raises:
        VendoringError: npm fails, or the package lacks a file.
    """
    command = ["npm", "pack", "--silent", f"{library.name}@{library.version}"]
    done = subprocess.run(  # noqa: S603 - the packages are those of LIBRARIES
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise VendoringError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    package = folder / done.stdout.split()[-1]
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    files = {}
    with tarfile.open(package) as archive:
        for name, stored_as in library.files.items():
            member = archive.extractfile(f"package/{name}")
            if member is None:
                raise VendoringError(f"{library.name}@{library.version} has no file {name}")
            content = member.read()
            for bare, path in BARE_IMPORTS.items():
                content = content.replace(bare, path)
            files[stored_as] = content
    return f"sha512-{digest}", files


def recorded(library: Library, integrity: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Return the entry of a package in `vendor.json`."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {"version": library.version, "integrity": integrity, "sha256": dict(sorted(hashes.items()))}


def differences(folder: Path = FOLDER) -> list[str]:
    """Return one line for each file that is missing, foreign, or has another hash than `vendor.json`."""
    accepted = json.loads((folder / HASHES.name).read_text("utf-8"))
    found = []
    for library in LIBRARIES:
        version = accepted.get(library.name, {}).get("version")
        if version != library.version:
            found.append(f"{library.name}: vendor.json has version {version}, not {library.version}")
    hashes = {name: digest for library in accepted.values() for name, digest in library["sha256"].items()}
    for path in sorted(folder.iterdir()):
        if path.name == HASHES.name:
            continue
        expected = hashes.pop(path.name, None)
        if expected is None:
            found.append(f"{path.name}: is not in vendor.json")
        elif expected != hashlib.sha256(path.read_bytes()).hexdigest():
            found.append(f"{path.name}: has another hash than vendor.json")
    return found + [f"{name}: is missing" for name in sorted(hashes)]


def fetch(*, accept: bool, folder: Path = FOLDER) -> None:
    """Write all files anew from npm; with `accept`, write their hashes too.

    Raises:
        VendoringError: without `accept`, a hash differs from that of `vendor.json`. Nothing is written then.
    """
    file = folder / HASHES.name
    known = {} if accept else json.loads(file.read_text("utf-8"))
    entries, contents = {}, {}
    for library in LIBRARIES:
        with tempfile.TemporaryDirectory() as temporary:
            integrity, files = fetched(library, Path(temporary))
        entry = entries[library.name] = recorded(library, integrity, files)
        contents.update(files)
        if not accept and known.get(library.name) != entry:
            raise VendoringError(f"{library.name}@{library.version} from npm has other hashes than {file}")
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    file.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


def main() -> int:
    """Check or write the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m console.vendoring", description=__doc__)
    parser.add_argument(
        "--fetch", action="store_true", help="take the files from npm; their hashes must be as before"
    )
    parser.add_argument(
        "--accept", action="store_true", help="take them, and write their hashes: after a new version"
    )
    given = parser.parse_args()
    try:
        if given.fetch or given.accept:
            fetch(accept=given.accept)
    except VendoringError as error:
        print(error, file=sys.stderr)  # noqa: T201 - output of a command
        return 1
    found = differences()
    for line in found:
        print(line)  # noqa: T201 - output of a command
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
