"""Whose entries a worker may take over at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.pipeline.reclaiming import is_gone


def ended_process() -> int:
    """The id of a process that ran and is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_former_process_of_this_host_is_gone() -> None:
    """A worker that is started again would wait for the claim time, with its own entries in sight."""
    assert is_gone(f"host-{ended_process()}-0a1b2c", f"host-{os.getpid()}-d4e5f6")


def test_the_same_process_id_under_another_name_is_gone() -> None:
    """In a container a worker is always process 1: its predecessor had that id, and cannot live."""
    assert is_gone("pod-1-0a1b2c", "pod-1-d4e5f6")


@pytest.mark.parametrize(
    "name",
    [
        f"host-{os.getppid()}-0a1b2c",
        f"other-{2**22 - 1}-0a1b2c",
        f"host-{os.getpid()}-d4e5f6",
        "named-by-an-operator",
        f"host-{10**30}-0a1b2c",
    ],
    ids=["alive", "another host", "itself", "given", "no process id"],
)
def test_who_may_be_alive_keeps_its_entries(name: str) -> None:
    """Two live workers that take each other's entries would do everything twice."""
    assert not is_gone(name, f"host-{os.getpid()}-d4e5f6")
