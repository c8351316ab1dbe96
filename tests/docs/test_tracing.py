"""Test docs/tracing.md against the code."""

from __future__ import annotations

import tomllib

from service.observability.tracing import conventions
from service.observability.tracing.otel_spans import MAX_LINKS
from service.observability.tracing.trace_export import FLUSH_SECONDS
from service.pipeline.batch import LETTERS_TRACED
from tests.docs.pages import ROOT, Page, quoted

TRACING = Page(ROOT / "docs/tracing.md")


def test_attributes_are_on_the_page() -> None:
    """List all attributes of spans, and no others."""
    listed = [name for row in TRACING.table("Spans") for name in quoted(row[0])]
    names = {
        value
        for name, value in vars(conventions).items()
        if name.isupper() and isinstance(value, str) and "." in value and "/" not in value
    }
    assert sorted(listed) == sorted(names)


def test_constants_are_on_the_page() -> None:
    """Name the schema, the limits and the extra of the code."""
    page = " ".join(TRACING.path.read_text("utf-8").split())
    assert conventions.SCHEMA_URL in page
    assert f"among the batch's first {LETTERS_TRACED} dead letters" in page
    assert f"It has at most {MAX_LINKS} links" in page
    assert f"because there are more than {MAX_LINKS}" in page
    assert f"takes at most {FLUSH_SECONDS:g} seconds" in page
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert "otel" in extras
    assert all((ROOT / "locks" / f"{extra}.txt").exists() for extra in extras)
