"""Test the Dockerfile and the compose file, without an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT

FOLDER = ROOT / "deploy"


@pytest.mark.prove
def test_hadolint_has_nothing_to_say() -> None:
    """Follow the rules of hadolint for Dockerfiles, without exceptions."""
    program = Path(sys.executable).with_name("hadolint")
    arguments = ["--no-color", "--failure-threshold", "style", "Dockerfile"]
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_services_of_the_compose_file_have_no_more_rights_than_they_need() -> None:
    """Run every service read-only and without capabilities; publish no port but on loopback."""
    services: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
    assert services.keys() == {"redis", "worker", "relay", "tap", "archive", "console"}
    for service in services.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert services["relay"]["profiles"] == ["alerts"]
    assert services["tap"]["profiles"] == ["tap"]
    assert services["archive"]["profiles"] == ["archive"]
    assert services["console"]["profiles"] == ["console"]
    assert "DELTALOOM_CONSOLE_TOKEN_FILE" in services["console"]["environment"]
    for name in ("worker", "relay", "tap", "archive", "console"):
        assert services[name]["environment"]["REDIS_URL"] == "redis://redis:6379/0"
        assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"
