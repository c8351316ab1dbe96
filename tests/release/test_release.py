"""Test the release: one version, the same bytes again, and a complete list of contents."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from typing import TYPE_CHECKING, Any

import pytest

import release.__main__ as release
from release.image_contents import LISTING_PROGRAM, Image, list_image
from tests.docs.pages import CHANGELOG, ROOT

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = release.Commit("0123abc", 1_700_000_000, ("v0.2.0",))


def test_the_version_is_in_one_place() -> None:
    """Take the version of both packages from the library's, and accept that library in the worker."""
    worker = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" in worker["project"]["dynamic"]
    assert version("deltaloom") == version("deltaloom-worker") == release.version()
    major, minor, _ = map(int, release.version().split("."))
    wanted = [each for each in requires("deltaloom-worker") or () if re.match(r"deltaloom\b(?!-)", each)]
    assert set(wanted[0].removeprefix("deltaloom").split(",")) == {
        f">={major}.{minor}",
        f"<{major}.{minor + 1}",
    }
    assert any(title.startswith(f"{release.version()}, ") for title in CHANGELOG.titles)


@pytest.mark.parametrize(
    ("tags", "changelog", "error"),
    [
        ((), "## 0.2.0, 2026-12-01", "no tag v"),
        ((f"v{release.version()}",), f"## {release.version()}, not yet released", "no section"),
    ],
)
def test_only_a_release_is_built(tags: tuple[str, ...], changelog: str, error: str) -> None:
    """Refuse a commit without its tag, or without its date in the changelog."""
    with pytest.raises(release.ReleaseError, match=error):
        release.check(COMMIT._replace(tags=tags), changelog)


def test_image_has_its_tags_and_labels() -> None:
    """Tag the image with the version, and label it with version, revision and the time of the commit."""
    command = release.image_command(COMMIT, "https://example.org/deltaloom")
    tags = [command[n + 1] for n, word in enumerate(command) if word == "--tag"]
    number = release.version()
    assert tags == [f"deltaloom:{number}", f"deltaloom:{number.rpartition('.')[0]}", "deltaloom:latest"]
    given = dict(command[n + 1].split("=", 1) for n, word in enumerate(command) if word == "--build-arg")
    assert given == {
        "VERSION": number,
        "REVISION": "0123abc",
        "CREATED": "2023-11-14T22:13:20+00:00",
        "SOURCE": "https://example.org/deltaloom",
        "SOURCE_DATE_EPOCH": "1700000000",
    }
    dockerfile = (ROOT / "deploy/Dockerfile").read_text("utf-8")
    for name in ("version", "revision", "created", "source", "licenses", "title", "description"):
        assert f"org.opencontainers.image.{name}=" in dockerfile
    for name in ("VERSION", "REVISION", "CREATED", "SOURCE"):
        assert f"{name}=" in dockerfile


def built(folder: Path) -> dict[str, bytes]:
    """Build a release, and return its files."""
    subprocess.run(
        [sys.executable, "-m", "release", "--dry-run", "--output", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.slow
def test_the_same_commit_gives_the_same_bytes(tmp_path: Path) -> None:
    """Build the same files twice, with their checksums and lists of contents."""
    files = built(tmp_path / "one")
    assert files == built(tmp_path / "two")
    number = release.version()
    assert set(files) == {
        f"deltaloom-{number}-py3-none-any.whl",
        f"deltaloom-{number}.tar.gz",
        f"deltaloom-{number}.cdx.json",
        f"deltaloom_worker-{number}-py3-none-any.whl",
        f"deltaloom_worker-{number}.tar.gz",
        f"deltaloom-worker-{number}.cdx.json",
        "SHA256SUMS",
    }
    sums = dict(line.split("  ")[::-1] for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "SHA256SUMS"
    }
    listed: Any = json.loads(files[f"deltaloom-worker-{number}.cdx.json"])
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "deltaloom-worker")
    assert listed["metadata"]["component"]["version"] == number
    locked = re.findall(
        r"^([\w.-]+)(?:\[[^]]*\])?==([\w.]+)", (ROOT / "locks/runtime.txt").read_text(), re.MULTILINE
    )
    assert sorted((each["name"], each["version"]) for each in listed["components"]) == sorted(locked)
    (only,) = json.loads(files[f"deltaloom-{number}.cdx.json"])["components"]
    assert only["name"] == "pydantic"


def test_contents_of_the_image() -> None:
    """List Python, its packages and Debian's, as the program finds them here, and the same each time."""
    done = subprocess.run([sys.executable, "-c", LISTING_PROGRAM], check=True, capture_output=True, text=True)
    image = Image("deltaloom", "1.2.3", 1_700_000_000)
    written = list_image(image, done.stdout)
    assert written == list_image(image, done.stdout)
    bom = json.loads(written)
    about = bom["metadata"]
    assert (bom["bomFormat"], about["component"]["name"], about["component"]["version"]) == (
        "CycloneDX",
        "deltaloom",
        "1.2.3",
    )
    assert about["timestamp"] == "2023-11-14T22:13:20+00:00"
    packages = {each["purl"] for each in bom["components"]}
    runtime = ".".join(map(str, sys.version_info[:3]))
    assert {f"pkg:generic/python@{runtime}", f"pkg:pypi/redis@{version('redis')}"} <= packages
    assert any(each.startswith("pkg:pypi/deltaloom-worker@") for each in packages)
    assert any(each.startswith("pkg:deb/debian/") for each in packages) == bool(shutil.which("dpkg-query"))


def test_an_image_is_built_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the image, run the program in it, and sum up the list with the other files."""
    commands: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        commands.append(command)
        return json.dumps({"runtime": "3.13.1", "python": [["redis", "8.0"]], "debian": []})

    monkeypatch.setattr(release, "_run", run)
    (tmp_path / "a.whl").write_bytes(b"a")
    release.build_image(tmp_path, COMMIT, "here")
    assert [command[:2] for command in commands] == [("docker", "build"), ("docker", "run")]
    assert f"deltaloom:{release.version()}" in commands[1]
    name = f"deltaloom-image-{release.version()}.cdx.json"
    assert {each["name"] for each in json.loads((tmp_path / name).read_text())["components"]} == {
        "python",
        "redis",
    }
    sums = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in sums] == ["a.whl", name]
