"""Test the Kubernetes manifests: what Kustomize builds, against the schemas, and against this program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.main import get_command

from archive.archive_settings import ArchiveSettings
from deltaloom.streams import GROUP, StreamNames
from service.cli import app
from service.observability.otel_environment import trace_target
from service.secret_files import file_variable
from service.settings import Settings, variable
from tap.tap_settings import TapSettings
from tests.docs.pages import ROOT
from tests.service.cli.command import deltaloom, environment
from tests.tiers import need

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = ROOT / "deploy/kubernetes"
EXAMPLE = FOLDER / "overlays/example"
MANIFESTS = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
VERSIONS = ("1.30", "1.37")
"""Versions of Kubernetes whose schemas the manifests must meet."""

PORT = 9464
HTTP = {"DELTALOOM_HTTP", "DELTALOOM_HTTP_TOKEN_FILE"}
SETTINGS_OF: dict[str, type[Settings]] = {"archive": ArchiveSettings, "tap": TapSettings}
"""Settings of commands that have some of their own."""


def documents() -> Iterator[dict[str, Any]]:
    """Yield all objects of the manifests."""
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text("utf-8"))


def pods() -> dict[str, dict[str, Any]]:
    """Return the specification of each pod, by the name of its Deployment or Job."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in documents()
        if "template" in each["spec"]
    }


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a pod, those first that prepare it."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


every_pod = pytest.mark.parametrize("pod", pods().values(), ids=pods().keys())


@every_pod
def test_pod_has_no_more_rights_than_it_needs(pod: dict[str, Any]) -> None:
    """Run without root, capabilities, a writable file system, a cluster token, or secrets in variables."""
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert (
        "hostNetwork" not in pod
    )  # pods of one node would have one host name, and so claim each other's entries
    of_pod = pod["securityContext"]
    assert (of_pod["runAsNonRoot"], of_pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    (_,) = pod["containers"]
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "cpu" not in container["resources"]["limits"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert not any("://" in each["value"] for each in container["env"])


@every_pod
def test_pod_runs_a_command_with_settings_that_exist(pod: dict[str, Any]) -> None:
    """Name only commands and settings of this version. Settings with other names would be ignored."""
    command: Any = get_command(app)
    known: set[str] = set()
    for container in containers(pod):
        first, *others = container["args"]
        assert first in command.commands
        if first == "archive":
            assert others[0] in command.commands[first].commands
        settings = SETTINGS_OF.get(first, Settings)
        secret = {file_variable(name) for names in settings.secrets.values() for name in names}
        known = {variable(name) for name in settings.model_fields} | secret | HTTP
        assert {each["name"] for each in container["env"]} <= known
    for text in (FOLDER / "base/kustomization.yaml", EXAMPLE / "kustomization.yaml"):
        generated = yaml.safe_load(text.read_text("utf-8"))["configMapGenerator"]
        for each in generated:
            assert {line.partition("=")[0] for line in each.get("literals", ())} <= known


@pytest.mark.parametrize(
    "name", ["deltaloom-worker", "deltaloom-relay", "deltaloom-tap", "deltaloom-archive"]
)
def test_probes_ask_the_server_of_health(name: str) -> None:
    """Probe the right path each. Other paths may fail while Redis is away, and restart all workers."""
    (container,) = pods()[name]["containers"]
    assert container["ports"][0] == {"name": "http", "containerPort": PORT}
    assert {"name": "DELTALOOM_HTTP", "value": f"0.0.0.0:{PORT}"} in container["env"]
    for probe, path in (("startup", "/startupz"), ("liveness", "/livez"), ("readiness", "/readyz")):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "http"}
    assert (
        pods()[name]["terminationGracePeriodSeconds"] >= Settings.model_fields["shutdown_timeout"].default + 5
    )


def test_autoscaler_reads_the_group_of_the_workers() -> None:
    """Scale by the lag of the workers' own group, and never to 0."""
    (scaled,) = [each["spec"] for each in documents() if each["kind"] == "ScaledObject"]
    assert scaled["minReplicaCount"] == 1
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["stream"] == StreamNames().deltas
    assert trigger["metadata"]["consumerGroup"] == GROUP
    assert {"lagCount", "activationLagCount"} <= trigger["metadata"].keys()
    (worker,) = [
        each["spec"]
        for each in documents()
        if each["metadata"]["name"] == scaled["scaleTargetRef"]["name"] and each["kind"] == "Deployment"
    ]
    assert "replicas" not in worker


def test_alerts_file_of_the_example_is_valid() -> None:
    """Have `deltaloom alerts check` accept the file of the example."""
    done = deltaloom("alerts", "check", "--no-secrets", str(EXAMPLE / "alerts.toml"), env=environment())
    assert done.returncode == 0, done.stderr


def built(overlay: Path = EXAMPLE) -> list[dict[str, Any]]:
    """Return the objects that Kustomize builds from an overlay."""
    kubectl = need("kubectl", what="kubectl", package="none; 1.27 or later")
    done = subprocess.run([kubectl, "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_kustomize_builds_the_example() -> None:
    """Build the example. Selectors must match the pods, and each volume must have its source."""
    found = built()
    names = {(each["kind"], each["metadata"]["name"]) for each in found}
    assert all(each["metadata"]["namespace"] == "deltaloom" for each in found)
    for each in found:
        if each["kind"] != "Deployment":
            continue
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()
        pod = each["spec"]["template"]["spec"]
        for source in pod["containers"][0]["envFrom"]:
            assert ("ConfigMap", source["configMapRef"]["name"]) in names
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
    policies = [each["spec"]["podSelector"] for each in found if each["kind"] == "NetworkPolicy"]
    assert {"matchLabels": {"app.kubernetes.io/name": "deltaloom"}} in policies
    (settings,) = [
        each["data"] for each in found if each["metadata"]["name"].startswith("deltaloom-settings")
    ]
    assert settings["DELTALOOM_RETENTION"] == "86400"
    assert settings["DELTALOOM_PREFIX"] == "deltaloom"


def test_component_of_traces(tmp_path: Path) -> None:
    """Add to the example the variables that turn traces on, and the way to the collector."""
    base, component = (os.path.relpath(path, tmp_path) for path in (EXAMPLE, FOLDER / "components/traces"))
    overlay = {"resources": [base], "components": [component], "kind": "Kustomization"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay), "utf-8")
    found = built(tmp_path)
    (settings,) = [
        each["data"] for each in found if each["metadata"]["name"].startswith("deltaloom-settings")
    ]
    assert settings["DELTALOOM_RETENTION"] == "86400"
    target = trace_target(settings)
    assert target is not None
    assert target.problem is None
    (policy,) = [each["spec"] for each in found if each["metadata"]["name"] == "deltaloom-collector"]
    (way,) = policy["egress"]
    host = urlsplit(target.url)
    assert way["ports"] == [{"protocol": "TCP", "port": host.port}]
    namespace = way["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert (host.hostname or "").split(".")[1] == namespace


def validate(kinds: Iterable[dict[str, Any]], version: str, file: Path) -> None:
    """Compare Kubernetes' own objects with the schemas of a version; unknown fields are errors."""
    file.write_text(yaml.safe_dump_all([each for each in kinds if "keda" not in each["apiVersion"]]), "utf-8")
    assert "deltaloom-worker" in file.read_text("utf-8")
    program = Path(sys.executable).with_name("kubernetes-validate")
    arguments = ["--strict", "--no-warn", "--kubernetes-version", version, str(file)]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prove
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_manifests(version: str, tmp_path: Path) -> None:
    """Meet the schemas of Kubernetes, without unknown fields."""
    validate(documents(), version, tmp_path / "all.yaml")


@pytest.mark.prove
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_example(version: str, tmp_path: Path) -> None:
    """Meet the schemas after Kustomize has applied the overlay."""
    validate(built(), version, tmp_path / "all.yaml")


@pytest.mark.prove
def test_keda_accepts_the_autoscaler(tmp_path: Path) -> None:
    """Meet the schemas of KEDA's objects, without unknown fields."""
    code = (
        "import sys, yaml\n"
        "from cloudcoil.models.keda import v1alpha1\n"
        "for each in yaml.safe_load_all(open(sys.argv[1])):\n"
        "    model = getattr(v1alpha1, each['kind']).model_validate(each)\n"
        "    kept = model.model_dump(by_alias=True, exclude_none=True, exclude_unset=True)\n"
        "    assert kept['spec'] == each['spec'], (kept['spec'], each['spec'])\n"
    )
    file = FOLDER / "components/keda/scaled-object.yaml"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
