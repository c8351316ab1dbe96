"""A temporary copy of the tree, with its own virtual environment.

The environment uses the installed packages of the original one, but imports the project's packages from the
copy. It lists the folder of packages as a path, so that the `.pth` files there, which point to the original
tree, are not read.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mutation.change import Change

ROOT = Path(__file__).parents[1]
PACKAGES = ("archive", "deltaloom", "demo", "embedded", "handlers", "service", "tap")
NOT_PASSED_ON = frozenset(
    {
        "ARGS",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPATH",
        "VIRTUAL_ENV",
    }
)
"""Variables to leave out: they would make tests slow or use the original tree, or are for this program."""
STAMPS = (".demo", ".dev")
"""Files that tell the Makefile that the environment is up to date."""


class CheckoutError(Exception):
    """An error: the tree cannot be copied, or the tests would not import the copy."""


def _installed() -> Path:
    """Return the folder of the installed packages; in a copy, that of the original tree."""
    spec = importlib.util.find_spec("pytest")
    if spec is None or spec.origin is None:
        raise CheckoutError("pytest is not installed here: run make venv")
    return Path(spec.origin).parents[1]


class Checkout:
    """A copy of the tree, to be used as a context manager that removes it at the end."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self.folder = Path(tempfile.mkdtemp(prefix="deltaloom-mutation-")).resolve()
        self.python = self.folder / ".venv" / "bin" / "python"

    def __enter__(self) -> Self:
        """Copy the tree, make the environment, and check it.

        Raises:
            CheckoutError: the tree cannot be copied, or the tests would not import the copy.
        """
        try:
            self._copy_files()
            self._make_environment()
            self._check()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy_files(self) -> None:
        """Copy the files that git tracks or does not ignore, and the history, which some tests need."""
        self._git("clone", "--quiet", "--shared", "--no-checkout", str(self._root), str(self.folder))
        listed = self._git(
            "-C", str(self._root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"
        )
        for name in filter(None, listed.split("\0")):
            source, target = self._root / name, self.folder / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def _git(self, *arguments: str) -> str:
        try:
            run = subprocess.run(("git", *arguments), check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
            raise CheckoutError(f"git cannot copy {self._root}: {reason}") from error
        return run.stdout

    def _make_environment(self) -> None:
        folder = self.folder / ".venv"
        venv.create(folder, with_pip=False, symlinks=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        paths = [self.folder, self.folder / "client", _installed()]
        (packages / "tree.pth").write_text("".join(f"{path}\n" for path in paths), "utf-8")
        command = folder / "bin" / "deltaloom"
        command.write_text(
            f"#!{self.python}\nimport sys\nfrom service.__main__ import main\nsys.exit(main())\n", "utf-8"
        )
        command.chmod(0o755)
        for tool in Path(sys.executable).parent.iterdir():
            if not (folder / "bin" / tool.name).exists():
                (folder / "bin" / tool.name).symlink_to(tool)
        for stamp in STAMPS:
            (folder / stamp).touch()

    def _check(self) -> None:
        """Check that tests import the copy."""
        code = f"import {', '.join(PACKAGES)}\nfor each in {', '.join(PACKAGES)}: print(each.__file__)"
        run = subprocess.run(
            [self.python, "-c", code],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        found = [Path(file) for file in run.stdout.splitlines()]
        if len(found) != len(PACKAGES) or not all(file.is_relative_to(self.folder) for file in found):
            raise CheckoutError(
                f"tests would import the original tree instead of the copy: {run.stdout or run.stderr}"
            )

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables for programs in the copy."""
        return {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Change a file for the duration of a block."""
        path = self.folder / change.file
        source = path.read_text("utf-8")
        self._write(path, change.apply(source))
        try:
            yield
        finally:
            self._write(path, source)

    @staticmethod
    def _write(path: Path, source: str) -> None:
        """Write a file, and remove its compiled form, which Python would still use within the same second."""
        path.write_text(source, "utf-8")
        if path.suffix == ".py":
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
