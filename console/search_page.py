"""The page of the search in the archive."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any, Final

from archive.archive_repository import Filter
from console.console_errors import not_found
from console.json_bodies import ms_of

if TYPE_CHECKING:
    from archive.archive_repository import Archived
    from console.archive_reading import ArchiveReader
    from console.looks import Looks
    from console.site import PageRequest
    from console.text_access import TextAccess
    from console.text_policy import TextPolicy

PARAMETERS: Final = ("q", "kind", "model", "tenant", "before", "texts")
_HITS: Final = 50
_BEFORE_WORD, _EXCERPT = 120, 400
"""Characters of an excerpt before the first word that was found, and in all."""


class SearchPage:
    """The answers of `api/search`.

    Args:
        archive: the archive; None without one.
        texts: decides who sees texts.
        looks: records who searches, not for what.
    """

    def __init__(self, archive: ArchiveReader | None, texts: TextAccess, looks: Looks) -> None:
        self._archive = archive
        self._texts = texts
        self._looks = looks

    async def answer(self, page: PageRequest) -> dict[str, Any]:
        """Return the texts that have all words, the latest archived ones first.

        Raises:
            ConsoleError: there is no archive, or it is away.
        """
        if self._archive is None:
            raise not_found("there is no archive: set DELTALOOM_ARCHIVE_URL to search in one")
        query = page.query
        policy = await self._texts.policy(page, "search")
        where = Filter(
            kind=query.text("kind"),
            model=query.text("model"),
            tenant=query.text("tenant"),
        )
        before = query.number("before", 0, 0, 2**62) or None
        words = query.text("q") or ""
        found = await self._archive.search(words, where, before, _HITS)
        await self._looks.add(page.visitor, "console search", len(found))
        return {
            "at": round(time.time() * 1000),
            "hits": [_hit(each, words, policy) for each in found],
            "next": str(found[-1].number) if len(found) == _HITS else None,
            "unknown": [],
        }


def _hit(archived: Archived, words: str, policy: TextPolicy) -> dict[str, Any]:
    record = archived.record
    excerpt, marks = _excerpt(policy.prose(record.words), words)
    message = _message(record.body)
    return {
        "response_id": record.response_id or record.item_id,
        "family": record.family,
        "kind": record.kind,
        "type": record.type,
        "model": policy.name(record.model),
        "tenant": policy.name(record.tenant),
        "at": ms_of(record.at),
        "status": message.get("status"),
        "integrity": message.get("integrity"),
        "excerpt": excerpt,
        "hidden": excerpt is None,
        "marks": marks,
    }


def _message(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _excerpt(text: str | None, words: str) -> tuple[str | None, list[tuple[int, int]]]:
    """Return the part of a text around the first word that was found, and the places of all words in it."""
    if text is None:
        return None, []
    wanted = [re.escape(word) for word in words.split()][:20]
    pattern = re.compile("|".join(wanted), re.IGNORECASE) if wanted else None
    first = pattern.search(text) if pattern else None
    begin = max(0, first.start() - _BEFORE_WORD) if first else 0
    excerpt = text[begin : begin + _EXCERPT]
    marks = [found.span() for found in pattern.finditer(excerpt)] if pattern else []
    return excerpt, marks[:50]
