"""Tests of the archive. The same tests run on SQLite, and with `make prove` on PostgreSQL."""
