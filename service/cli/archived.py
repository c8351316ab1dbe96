"""Look into the archive beside Redis, if one is configured; the service knows it by name only."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from service.cli.command_errors import CommandError
from service.cli.knowledge import Known, alert_in, text_in
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deltaloom.messages import AssembledText

_VARIABLES = ("DELTALOOM_ARCHIVE_URL", "DELTALOOM_ARCHIVE_URL_FILE")


def archive_is_configured() -> bool:
    """Return whether the environment names an archive."""
    return any(os.environ.get(name) for name in _VARIABLES)


def with_archived(found: Sequence[Known], wanted: str) -> tuple[list[Known], str | None]:
    """Add what the archive has of a response, and what it has of others with this id.

    Return also the reason why the archive could not be read; None if it was, or if none is configured.
    """
    if not archive_is_configured():
        return list(found), None
    try:
        bodies = import_module("archive.looking_up").bodies_of(wanted)
    except (CommandError, SettingsError) as error:
        return list(found), str(error)
    return merged(found, bodies), None


def merged(found: Iterable[Known], bodies: Iterable[tuple[str, bytes]]) -> list[Known]:
    """Return the knowledge with archived messages: family and JSON of each; known ones are left out."""
    by_id = {known.id: known for known in found}
    for family, body in bodies:
        if family == "text" and (text := text_in(body)):
            known = by_id.setdefault(_owner_of(text), Known(_owner_of(text)))
            if all(each.id != text.id for each in known.texts):
                known.texts.append(text)
        elif family == "alert" and (alert := alert_in(body)) and alert.response_id:
            known = by_id.setdefault(alert.response_id, Known(alert.response_id))
            if not known.texts and all(each.id != alert.id for each in known.alerts):
                known.alerts.append(alert)
    for known in by_id.values():
        known.complete()
    return list(by_id.values())


def _owner_of(text: AssembledText) -> str:
    return text.response_id or str(text.item_id)
