"""Test the search for handlers of installed packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Literal

import pytest
from pydantic.errors import PydanticSchemaGenerationError

from deltaloom.events import Event
from handlers.core.routing import Handler, Route
from service import handler_packages


class Unknown:
    """A class that pydantic cannot validate."""


class WrongEvent(Event):
    """An event with a field that pydantic cannot validate."""

    type: Literal["toy.wrong"]
    value: Unknown


handler = Handler("wrong", (Route(WrongEvent, lambda _event, _origin: ()),))


def test_a_wrong_model_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse a handler whose model cannot be built. Otherwise each of its events would be a dead letter."""
    point = EntryPoint("wrong", f"{__name__}:handler", "deltaloom.handlers")
    monkeypatch.setattr(handler_packages, "entry_points", lambda group: [point] * (group == point.group))
    with pytest.raises(PydanticSchemaGenerationError, match="Unknown"):
        handler_packages.known_handlers()
