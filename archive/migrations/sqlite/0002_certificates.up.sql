-- Digests of the certificates of erasures, each chained to the one before. The certificates themselves name people,
-- so they are not kept.

CREATE TABLE certificates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    erasure INTEGER NOT NULL,
    digest BLOB NOT NULL,
    chain BLOB NOT NULL
);
