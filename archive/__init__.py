"""The archive: keeps finished texts, alerts and deliveries in a database, for months.

Theory of operation:

1. The archiver (`archiver.py`) reads the output streams of all partitions in a consumer group of its own.
   An entry becomes a `Record` (`record.py`), or an `UnreadableEntry` with the reason.
2. A batch is written in one transaction (`sql_archive.py`), and acknowledged after its COMMIT. If the
   archiver or a server dies in between, the entries are pending, and are read again.
3. Each record is inserted by its key, `(source, id)`, with `ON CONFLICT DO NOTHING`. So an entry that comes
   again changes nothing. If its content differs, it is kept beside the first one as a conflict.
4. The key of an erased record stays as a tombstone without content, so that an entry that comes again does
   not bring the record back.

The statements are the same for PostgreSQL and SQLite; `postgres_database.py` and `sqlite_database.py` have
what differs. `migrations/` has the tables.
"""
