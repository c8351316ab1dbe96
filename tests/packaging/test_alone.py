"""Test the library alone: its wheel, in an environment without the worker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.scripts import EXAMPLES, environment
from tests.packaging.test_wheels import ROOT, build

pytestmark = pytest.mark.prove

LOCK: Final = ROOT / "locks" / "prove.txt"
UV: Final = Path(sys.executable).with_name("uv")
TOOLS: Final = ("hypothesis", "pytest", "pytest-asyncio")
TESTS: Final = (
    *("test_events.py", "test_messages.py", "test_reasons.py", "test_streams.py"),
    *("dialects/test_key_masking.py", "dialects/test_rare_shapes.py", "publishing/test_admission.py"),
    *("teeing/test_asgi.py", "teeing/test_errors_of_sdks.py"),
)
"""Fast tests that need nothing but the library and tools."""

IMPORT_ALL: Final = """\
import deltaloom, pydantic, sys
names = {"LossReport", "Publisher", "PublisherCounters", "ResponseStream"}
for name in set(deltaloom.__all__) - names:
    getattr(deltaloom, name)
assert not {"handlers", "redis", "service"} & set(sys.modules), sys.modules
for name in names:
    try:
        getattr(deltaloom, name)
    except ImportError as error:
        assert "deltaloom[redis]" in str(error), error
    else:
        raise AssertionError(name)
"""


def run_in(folder: Path, *command: str | Path, **env: str) -> str:
    """Run a command in a folder, and return its output; AssertionError if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build(ROOT / "client", folder)
    (path,) = folder.glob("*.whl")
    return path


def python_with(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment with the requirements, and return its Python."""
    run_in(folder, UV, "venv", "--quiet", "--python", sys.executable, "venv")
    python = folder / "venv" / "bin" / "python"
    run_in(folder, UV, "pip", "install", "--quiet", "--python", python, "--constraint", LOCK, *requirements)
    return python


@pytest.fixture(scope="module")
def user_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel, its extra and tools for tests."""
    folder = tmp_path_factory.mktemp("user")
    return python_with(folder, f"deltaloom[redis] @ {wheel.as_uri()}", *TOOLS)


def test_without_extras(tmp_path: Path, wheel: Path) -> None:
    """Import all names with pydantic alone, and say what the publisher needs."""
    python = python_with(tmp_path, f"deltaloom @ {wheel.as_uri()}")
    run_in(tmp_path, python, "-W", "error", "-c", IMPORT_ALL)


@pytest.mark.timeout(300)
def test_own_tests(tmp_path: Path, user_python: Path) -> None:
    """Pass the library's tests without the worker."""
    shutil.copytree(ROOT / "tests" / "client", tmp_path / "tests" / "client")
    shutil.copy(ROOT / "tests" / "__init__.py", tmp_path / "tests")
    asyncio = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
    options = ("--quiet", "--noconftest", "-p", "no:cacheprovider", "-W", "error", *asyncio)
    run_in(tmp_path, user_python, "-m", "pytest", *options, *(f"tests/client/{name}" for name in TESTS))


@pytest.mark.parametrize(
    ("name", "printed"), [("publish_safely.py", "{}\n"), ("translate.py", "response.refusal.delta")]
)
def test_examples(
    tmp_path: Path, user_python: Path, redis_url: str, prefix: str, name: str, printed: str
) -> None:
    """Run examples without the worker's packages."""
    env = environment(redis_url, prefix)
    assert printed in run_in(tmp_path, user_python, "-W", "error", EXAMPLES / name, **env)


def test_types(tmp_path: Path, user_python: Path) -> None:
    """Give type checkers the types of all names: mypy checks programs of users against the wheel."""
    check = (sys.executable, "-m", "mypy", "--strict", "--python-executable", user_python)
    for name in ("publish_safely.py", "translate.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    run_in(tmp_path, *check, "publish_safely.py", "translate.py")
    wrong = "import deltaloom\n\nnumber: int = deltaloom.Publisher().counters\n"
    tmp_path.joinpath("wrong.py").write_text(wrong, "utf-8")
    with pytest.raises(AssertionError, match="PublisherCounters"):
        run_in(tmp_path, *check, "wrong.py")
