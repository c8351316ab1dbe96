"""The sabotages of the chaos bench fit the scripts and the code that they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.sabotaged_worker import SABOTAGES
from service.storage import scripts
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=SABOTAGES)
def test_a_sabotage_fits_what_it_changes(
    sabotage: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise no sabotaged worker starts, and the bench seems to notice what nobody did."""
    monkeypatch.setattr(scripts, "source", scripts.source)
    monkeypatch.setattr(RedisStorage, "commit", RedisStorage.commit)
    before = {name: scripts.source(name) for name in ("commit", "settle")}
    sabotage()
    assert {name: scripts.source(name) for name in before} != before
