"""Rules of the retention, as the setting writes them: `*=31536000,*/reasoning=86400,acme=7776000`."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final
from urllib.parse import unquote

from archive.archive_repository import Retention

SHORTEST: Final = 60
"""Minimum seconds of a retention."""

LONGEST: Final = int(timedelta(days=365_000).total_seconds())
"""Maximum seconds of a retention, a thousand years: a time so long ago can still be calculated and stored."""

_ANY: Final = "*"


def retentions_in(text: str) -> list[Retention]:
    """Return the rules in a text; none if it is empty.

    Raises:
        ValueError: a rule is not `tenant=seconds` or `tenant/kind=seconds`, or comes twice.
    """
    rules = [_rule_in(each.strip()) for each in text.split(",") if each.strip()]
    subjects = [(rule.tenant, rule.kind) for rule in rules]
    if len(set(subjects)) < len(subjects):
        raise ValueError("a tenant and a kind have one time only")
    return rules


def _rule_in(written: str) -> Retention:
    subject, _, number = written.rpartition("=")
    tenant, slash, kind = subject.partition("/")
    try:
        seconds = float(number)
    except ValueError:
        seconds = math.nan
    if not tenant or (slash and not kind) or not SHORTEST <= seconds <= LONGEST:
        raise ValueError(
            f"{written} is not like acme=86400 or */reasoning=3600, of {SHORTEST} to {LONGEST} seconds"
        )
    return Retention(seconds, kind=unquote(kind) or None, tenant=None if tenant == _ANY else unquote(tenant))
