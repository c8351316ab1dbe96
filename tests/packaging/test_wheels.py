"""Test the content of both wheels, which the image and other installations use."""

from __future__ import annotations

import email.parser
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]


class Wheel(NamedTuple):
    """A wheel: the files of its packages, and its metadata files by name."""

    files: frozenset[str]
    metadata: dict[str, str]

    @property
    def core(self) -> Message:
        """Return the core metadata (METADATA)."""
        return email.parser.Parser().parsestr(self.metadata["METADATA"])


def build(project: Path, target: Path) -> Wheel:
    """Build the wheel of `project` with the installed backend, so that nothing is downloaded."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    subprocess.run([*command, str(project)], check=True, capture_output=True, text=True)
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    files = {name for name in contents if ".dist-info/" not in name}
    metadata = {name.partition("/")[2]: contents[name].decode() for name in contents.keys() - files}
    return Wheel(frozenset(files), metadata)


def tree(base: Path, *packages: str) -> frozenset[str]:
    """Return the packages' files in the tree, named as in a wheel."""
    return frozenset(
        path.relative_to(base).as_posix()
        for package in packages
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """Return the wheel of the library `deltaloom`."""
    return build(ROOT / "client", tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """Return the wheel of the application `deltaloom-worker`."""
    return build(ROOT, tmp_path_factory.mktemp("worker"))


def test_library_holds_its_package_and_nothing_else(library: Wheel) -> None:
    """Contain exactly the library's package."""
    assert library.files == tree(ROOT / "client", "deltaloom")


def test_library_is_typed(library: Wheel) -> None:
    """Contain `py.typed`. Otherwise type checkers would treat messages as Any."""
    assert "deltaloom/py.typed" in library.files


def test_library_holds_the_schemas(library: Wheel) -> None:
    """Contain the JSON Schemas and the AsyncAPI document."""
    messages = ("AssembledText", "ModerationAlert", "DeadLetter", "UndeliveredAlert", "Event")
    assert {f"deltaloom/schemas/{name}.json" for name in messages} <= library.files
    assert "deltaloom/asyncapi.json" in library.files


def test_library_needs_only_pydantic(library: Wheel) -> None:
    """Require pydantic only."""
    required = library.core.get_all("Requires-Dist") or []
    assert [name for name in required if "extra ==" not in name] == ["pydantic<3,>=2.11"]


def test_worker_holds_all_files_of_its_packages(worker: Wheel) -> None:
    """Contain all files of both packages, including scripts and recordings."""
    assert worker.files == tree(ROOT, "archive", "console", "handlers", "service", "tap")


@pytest.mark.parametrize("pattern", ["service/storage/lua/*.lua", "service/alerts/deciding/*.toml"])
def test_worker_holds_its_data(worker: Wheel, pattern: str) -> None:
    """Contain the data files, which must exist in the tree."""
    expected = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
    assert expected
    assert expected <= worker.files


def test_worker_is_never_uploaded(worker: Wheel) -> None:
    """Prevent an upload, which would claim `service` and `handlers` for all users of an index."""
    assert "Private :: Do Not Upload" in (worker.core.get_all("Classifier") or [])


def test_worker_brings_the_command(worker: Wheel) -> None:
    """Install the command `deltaloom`."""
    assert "deltaloom = service.__main__:main" in worker.metadata["entry_points.txt"].splitlines()


@pytest.mark.parametrize("name", ["library", "worker"])
def test_licence_is_in_the_wheel(name: str, request: pytest.FixtureRequest) -> None:
    """Contain the licence."""
    wheel: Wheel = request.getfixturevalue(name)
    assert wheel.core["License-Expression"] == "Apache-2.0"
    assert wheel.metadata["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()


def test_versions_go_together(library: Wheel, worker: Wheel) -> None:
    """Have equal versions of both wheels."""
    assert library.core["Version"] == worker.core["Version"]
    assert library.core["Requires-Python"] == worker.core["Requires-Python"]
