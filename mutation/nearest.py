"""The tests that probably notice a change: those of the same module, then those of its neighbours."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_STORED: Final = (
    "storage",
    "test_storage.py",
    "test_flow.py",
    "test_several_workers.py",
    "test_reclaiming.py",
    "test_contract_rules.py",
    "test_kind_retention.py",
    "test_state_format.py",
    "test_stopped_responses.py",
    "test_confirmation.py",
    "test_cli_dead_letters.py",
)
_SENT: Final = ("test_outbox.py", "test_relay.py", "test_rates.py", "test_spikes.py")

_INTEGRATION: Final[Mapping[str, Sequence[str]]] = {
    "handlers": ("test_flow.py", "test_stopped_responses.py"),
    "service/alerts": _SENT,
    "service/cli": ("test_cli_*.py",),
    "service/ports/outbox.py": _SENT,
    "service/pipeline": _STORED,
    "service/apps/relay_app.py": _SENT,
    "service/storage": (*_STORED, *_SENT, "test_partitions.py"),
    "": ("test_flow.py",),
}
"""Files and folders of tests in `tests/integration`, by the beginning of the changed file's path."""


def nearest_tests(root: Path, file: str) -> list[str]:
    """Return the existing files and folders of tests, nearest first."""
    return list(dict.fromkeys(path.relative_to(root).as_posix() for path in _nearest(root, file)))


def _nearest(root: Path, file: str) -> Iterator[Path]:
    path = PurePosixPath(file)
    tests, stem = root / "tests", path.stem.strip("_")
    folder = tests / path.parent.as_posix().replace("client/deltaloom", "client").removesuffix("/lua")
    if stem != "init":
        yield from sorted(folder.glob(f"test_{stem}.py"))
        yield from sorted(folder.glob(f"test_{stem}_*.py"))
        yield from sorted(tests.rglob(f"test_{stem}.py"))
    if path.suffix != ".lua" and any(folder.glob("test_*.py")):
        yield folder
    for prefix, patterns in _INTEGRATION.items():
        if file.startswith(prefix):
            for pattern in patterns:
                yield from sorted((tests / "integration").glob(pattern))
