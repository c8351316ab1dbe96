"""Test that the chaos sabotages match the scripts and the code that they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.sabotaged_worker import SABOTAGES
from service.storage import scripts
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=SABOTAGES)
def test_a_sabotage_changes_a_script(sabotage: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a script.

    Otherwise the sabotaged worker would not start, and the bench would seem to find it.
    """
    monkeypatch.setattr(scripts, "source", scripts.source)
    monkeypatch.setattr(RedisStorage, "commit", RedisStorage.commit)
    before = {name: scripts.source(name) for name in ("commit", "settle")}
    sabotage()
    assert {name: scripts.source(name) for name in before} != before
