"""Test the script that makes the image smaller: compiled libraries still load, and only unused files go."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.docs.pages import ROOT

SCRIPT = ROOT / "deploy/slim.py"


def test_a_library_without_symbols_still_loads(tmp_path: Path) -> None:
    """Cut symbols off that only a debugger reads, and leave what the loader maps."""
    spec = find_spec("uvloop")
    assert spec is not None
    assert spec.origin is not None
    package = shutil.copytree(Path(spec.origin).parent, tmp_path / "uvloop")
    (library,) = package.glob("loop.*.so")
    before = library.stat().st_size
    (tmp_path / "notes.so").write_text("no library")
    slim(tmp_path)
    assert library.stat().st_size < before / 2
    assert (tmp_path / "notes.so").read_text() == "no library"
    assert not [*package.rglob("*.pyx")]
    code = "import asyncio, uvloop; uvloop.run(asyncio.sleep(0)); print(uvloop.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(package))


def test_only_unused_files_go(tmp_path: Path) -> None:
    """Keep modules in use and certificates; a symbolic link is not followed."""
    outside = tmp_path / "outside.po"
    kept = {
        "a/b.py",
        "certifi/cacert.pem",
        "pygments/lexers/python.py",
        "pygments/lexers/__pycache__/python.cpython-313.pyc",
        "pygments/styles/default.py",
        "faststream/redis/broker.py",
        "mine/kafka/broker.py",
    }
    unused = {
        "a/b.pyx",
        "a/b.po",
        "pygments/lexers/c_cpp.py",
        "pygments/lexers/__pycache__/c_cpp.cpython-313.pyc",
    }
    folder = tmp_path / "installed"
    for name in kept | unused:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    outside.write_text("x")
    (folder / "link.po").symlink_to(outside)
    slim(folder)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == kept | {"link.po"}


def slim(folder: Path) -> None:
    """Run the script's function on a folder."""
    runpy.run_path(str(SCRIPT))["slim"](folder)
