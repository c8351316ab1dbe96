"""What the two wheels hold: a file missing here is missing in the image and on other people's machines."""

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
    """A wheel that was built: the files of its packages, and those of its metadata by their names."""

    files: frozenset[str]
    metadata: dict[str, str]

    @property
    def core(self) -> Message:
        """The core metadata (METADATA)."""
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
    """The files of the packages in the tree, named as in a wheel."""
    return frozenset(
        path.relative_to(base).as_posix()
        for package in packages
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The wheel of the library `deltaloom`."""
    return build(ROOT / "client", tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The wheel of the application `deltaloom-worker`."""
    return build(ROOT, tmp_path_factory.mktemp("worker"))


def test_library_holds_its_package_and_nothing_else(library: Wheel) -> None:
    """Producers would get a generic name like `service` into their environment, or lose a module."""
    assert library.files == tree(ROOT / "client", "deltaloom")


def test_library_is_typed(library: Wheel) -> None:
    """Type checkers would take every message for Any."""
    assert "deltaloom/py.typed" in library.files


def test_library_holds_the_schemas(library: Wheel) -> None:
    """Readers in other languages would have no description of the messages."""
    messages = ("AssembledText", "ModerationAlert", "DeadLetter", "UndeliveredAlert", "Event")
    assert {f"deltaloom/schemas/{name}.json" for name in messages} <= library.files


def test_library_needs_only_pydantic(library: Wheel) -> None:
    """A producer would have to install the worker's dependencies."""
    required = library.core.get_all("Requires-Dist") or []
    assert [name for name in required if "extra ==" not in name] == ["pydantic<3,>=2.11"]


def test_worker_holds_all_files_of_its_packages(worker: Wheel) -> None:
    """The installed worker would lack a script or a stream that the tree has."""
    assert worker.files == tree(ROOT, "handlers", "service")


@pytest.mark.parametrize(
    "pattern", ["service/storage/lua/*.lua", "service/demo/streams/*.jsonl", "service/alerts/deciding/*.toml"]
)
def test_worker_holds_its_data(worker: Wheel, pattern: str) -> None:
    """The folder of the data would have moved, and the comparison above would compare nothing."""
    expected = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
    assert expected
    assert expected <= worker.files


def test_worker_is_never_uploaded(worker: Wheel) -> None:
    """A package index would take `service` and `handlers` for everyone."""
    assert "Private :: Do Not Upload" in (worker.core.get_all("Classifier") or [])


def test_worker_brings_the_command(worker: Wheel) -> None:
    """There would be no `deltaloom` to type."""
    assert "deltaloom = service.cli:main" in worker.metadata["entry_points.txt"].splitlines()


@pytest.mark.parametrize("name", ["library", "worker"])
def test_licence_is_in_the_wheel(name: str, request: pytest.FixtureRequest) -> None:
    """Passing the wheel on would break the licence."""
    wheel: Wheel = request.getfixturevalue(name)
    assert wheel.core["License-Expression"] == "Apache-2.0"
    assert wheel.metadata["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()


def test_versions_go_together(library: Wheel, worker: Wheel) -> None:
    """A worker would be released with a contract of another version."""
    assert library.core["Version"] == worker.core["Version"]
    assert library.core["Requires-Python"] == worker.core["Requires-Python"]
