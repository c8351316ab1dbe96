"""List what the image contains: Python, its packages, and the packages of Debian (SBOM, in CycloneDX).

A program in the image prints what is installed there, so that the list is true of any base.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTING_PROGRAM = """
import json, platform, shutil, subprocess, sys, sysconfig
from importlib.metadata import distributions
base = sysconfig.get_path("purelib", vars={"base": sys.base_prefix})
python = {(each.name, each.version) for path in (sys.path, [base]) for each in distributions(path=path)}
debian = []
if shutil.which("dpkg-query"):
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    debian = [line.split(" ") for line in output.splitlines()]
json.dump({"runtime": platform.python_version(), "python": sorted(python), "debian": debian}, sys.stdout)
"""
"""The program, for Python 3.11 and later, with the standard library only. It prints JSON."""


class Image(NamedTuple):
    """The image that is listed."""

    name: str
    version: str
    seconds: int
    """Time of its commit, in seconds since 1970."""


def list_image(image: Image, listed: str) -> str:
    """Return the SBOM of an image as JSON: the same for the same image.

    Args:
        image: the image.
        listed: output of `LISTING_PROGRAM` in the image.
    """
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"{image.name}:{image.version} {listed}"))
    bom.metadata.timestamp = datetime.fromtimestamp(image.seconds, UTC)
    whole = Component(
        type=ComponentType.CONTAINER, name=image.name, version=image.version, bom_ref=image.name
    )
    parts = [
        Component(name=each.name, version=each.version, purl=each, bom_ref=each.to_string())
        for each in _packages(listed)
    ]
    bom.metadata.component = whole
    bom.components.update(parts)
    bom.register_dependency(whole, parts)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2) + "\n"


def _packages(listed: str) -> Iterator[PackageURL]:
    found = json.loads(listed)
    yield PackageURL("generic", None, "python", found["runtime"])
    for name, version in found["python"]:
        yield PackageURL("pypi", None, name, version)
    for name, version, architecture in found["debian"]:
        yield PackageURL("deb", "debian", name, version, {"arch": architecture})
