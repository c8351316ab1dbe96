"""Write and check heartbeat files: each process renews its own every second, while its event loop turns.

`deltaloom health` reads the files. It asks no server and imports only the standard library, so that a probe
costs little more than the start of Python.

The default place is a private folder in memory, since a container's root is often read-only. Ages are
measured with the system's monotonic clock; if another boot wrote the file, with its modification time.
"""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STALE_AFTER = 10.0
"""Seconds without a heartbeat after which a process is unhealthy."""

SETTING = "DELTALOOM_HEARTBEAT_FILE"
_SUFFIX = ".heartbeat"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Heartbeat(NamedTuple):
    """The content of a heartbeat file."""

    owner: int
    """Process id of the program: of this process, or of the one that started it as one of several."""
    processes: int
    """Number of processes that write heartbeats for this program."""
    started: bool
    not_ready: list[str]
    stuck: list[str]
    monotonic: float = 0.0
    boot: str = ""
    pid: int = 0
    """Process id of this process; 0 if an earlier version wrote the file."""


class HeartbeatFile:
    """The heartbeat file of a process.

    Args:
        path: its path; the file is replaced in one step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._boot = _boot_id()

    def write(self, heartbeat: Heartbeat) -> None:
        """Replace the file.

        Raises:
            OSError: the file cannot be written.
        """
        content = heartbeat._replace(monotonic=time.monotonic(), boot=self._boot, pid=os.getpid())
        new = self.path.with_name(f"{self.path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(new, flags, 0o600)
        try:
            os.write(descriptor, json.dumps(content._asdict()).encode())
        finally:
            os.close(descriptor)
        new.replace(self.path)

    def remove(self) -> None:
        """Remove the file, if it is there."""
        with suppress(OSError):
            self.path.unlink()


def path_of(environment: Mapping[str, str], owner: int, number: int | None = None) -> Path:
    """Return the path of a process's heartbeat file.

    Args:
        environment: environment variables.
        owner: process id of the program.
        number: number of the process, if it is one of several.

    Raises:
        OSError: there is no place for the file.
    """
    if given := environment.get(SETTING):
        return Path(given if number is None else f"{given}.{number}")
    name = f"{owner}" if number is None else f"{owner}.{number}"
    return private_folder(environment) / f"{name}{_SUFFIX}"


def private_folder(environment: Mapping[str, str]) -> Path:
    """Return a folder that only this user may read, and make it if it is missing.

    Raises:
        OSError: none of the possible places can be written.
    """
    for folder in _folders(environment):
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_private(folder) and os.access(folder, os.W_OK):
                return folder
    raise OSError(f"no folder can be written: {', '.join(map(str, _folders(environment)))}")


def remove_old(environment: Mapping[str, str]) -> None:
    """Remove the heartbeat files of programs that were killed."""
    with suppress(OSError):
        for path in private_folder(environment).iterdir():
            owner = path.name.partition(".")[0]
            if owner.isdecimal() and not _runs(int(owner)):
                path.unlink(missing_ok=True)


def age_of(path: Path) -> tuple[Heartbeat, float] | None:
    """Return a heartbeat and its age in seconds; None if there is no readable file."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        heartbeat = Heartbeat(**content)
        if heartbeat.boot and heartbeat.boot == _boot_id():
            return heartbeat, time.monotonic() - heartbeat.monotonic
        return heartbeat, time.time() - path.stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None


def silence_of(found: tuple[Heartbeat, float] | None) -> str | None:
    """Return why a process with this heartbeat and age gives no sign of life; None if it gives one."""
    if found is None:
        return "no sign of life yet"
    _, age = found
    return f"no sign of life for {age:.0f} s" if age > STALE_AFTER else None


def trouble_of(found: tuple[Heartbeat, float] | None) -> str | None:
    """Return why a process with this heartbeat and age is unhealthy; None if it is healthy."""
    if found is None or silence_of(found):
        return silence_of(found)
    return "; ".join(found[0].stuck) or None


def health(environment: Mapping[str, str]) -> tuple[bool, str]:
    """Return whether all processes here are healthy, and a line that says so, or why not."""
    files = sorted(_files(environment))
    if not files:
        where = environment.get(SETTING) or ", ".join(map(str, _folders(environment)))
        return False, _plain(f"unhealthy: no process has written a heartbeat file ({where})")
    found = [age_of(path) for path in files]
    troubles = [
        f"{path.name}{_pid_in(each)}: {trouble}"
        for path, each in zip(files, found, strict=True)
        if (trouble := trouble_of(each))
    ]
    read = [each[0] for each in found if each]
    expected = {heartbeat.owner: heartbeat.processes for heartbeat in read}
    for owner, count in expected.items():
        missing = count - sum(heartbeat.owner == owner for heartbeat in read)
        if missing > 0:
            troubles.append(f"{missing} of {count} processes without a heartbeat file")
    if troubles:
        return False, _plain(f"unhealthy: {', '.join(troubles)}")
    pids = ", ".join(str(heartbeat.pid) for heartbeat in read)
    return True, f"healthy: {len(files)} process{'es' if files[1:] else ''} (pid {pids})"


def _pid_in(found: tuple[Heartbeat, float] | None) -> str:
    """Return the process id in a heartbeat, in brackets; empty if it has none."""
    return f" (pid {found[0].pid})" if found and found[0].pid else ""


def _plain(line: str) -> str:
    """Return a line with invisible and non-ASCII characters escaped: paths and streams may have some."""
    return line.encode("unicode_escape").decode("ascii")


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the heartbeat files of running programs, or those that the setting names."""
    if given := environment.get(SETTING):
        path = Path(given)
        if path.exists():
            yield path
        yield from (each for each in path.parent.glob(f"{path.name}.*") if each.suffix[1:].isdecimal())
        return
    for folder in _folders(environment):
        with suppress(OSError):
            if _is_private(folder):
                for path in folder.glob(f"*{_SUFFIX}"):
                    if _runs(int(path.name.partition(".")[0])):
                        yield path


def _folders(environment: Mapping[str, str]) -> list[Path]:
    """Return the possible private folders: those for running programs, in memory, for temporary files."""
    places = (
        environment.get("RUNTIME_DIRECTORY", "").partition(":")[0],
        environment.get("XDG_RUNTIME_DIR"),
        "/dev/shm",  # noqa: S108 - the folder in it is private
        environment.get("TMPDIR") or "/tmp",  # noqa: S108 - as above
    )
    return [Path(place, f"deltaloom-{os.getuid()}") for place in places if place]


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
