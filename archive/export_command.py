"""`deltaloom export`: the same as `deltaloom archive export`, at the place where people look for it."""

from __future__ import annotations

from archive.archive_lookups import EXPORT_EXAMPLES, export

EXAMPLES = EXPORT_EXAMPLES.replace("archive export", "export")
run = export
