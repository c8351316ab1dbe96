-- The records, their keys, and what is kept beside them. Times are microseconds since 1970.

CREATE TABLE record_keys (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    digest BLOB, -- null once the record is gone
    gone_at INTEGER,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;
CREATE INDEX record_keys_gone ON record_keys (gone_at) WHERE gone_at IS NOT NULL;

CREATE TABLE records (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- numbers of deleted rows are not given out again
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    family TEXT NOT NULL,
    type TEXT NOT NULL,
    kind TEXT,
    response_id TEXT,
    item_id TEXT,
    upstream_response_id TEXT,
    tenant TEXT,
    model TEXT,
    safety_identifier TEXT,
    reference TEXT,
    at INTEGER NOT NULL,
    words TEXT NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE INDEX records_at ON records (at);
CREATE INDEX records_response ON records (response_id) WHERE response_id IS NOT NULL;
CREATE INDEX records_item ON records (item_id) WHERE item_id IS NOT NULL;
CREATE INDEX records_upstream ON records (upstream_response_id) WHERE upstream_response_id IS NOT NULL;
CREATE INDEX records_tenant ON records (tenant) WHERE tenant IS NOT NULL;
CREATE INDEX records_safety ON records (safety_identifier) WHERE safety_identifier IS NOT NULL;
CREATE INDEX records_reference ON records (reference) WHERE reference IS NOT NULL;

-- The index has no copy of the texts.
CREATE VIRTUAL TABLE record_words USING fts5 (
    words, content = 'records', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 0'
);
CREATE TRIGGER records_inserted AFTER INSERT ON records BEGIN
    INSERT INTO record_words (rowid, words) VALUES (new.number, new.words);
END;
CREATE TRIGGER records_deleted AFTER DELETE ON records BEGIN
    INSERT INTO record_words (record_words, rowid, words) VALUES ('delete', old.number, old.words);
END;

CREATE TABLE conflicts (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    family TEXT NOT NULL,
    type TEXT NOT NULL,
    kind TEXT,
    response_id TEXT,
    item_id TEXT,
    upstream_response_id TEXT,
    tenant TEXT,
    model TEXT,
    safety_identifier TEXT,
    reference TEXT,
    at INTEGER NOT NULL,
    words TEXT NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (source, id, digest)
) WITHOUT ROWID;

CREATE TABLE unreadable_entries (
    stream TEXT NOT NULL,
    entry_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    reason TEXT NOT NULL,
    response_id TEXT,
    body BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (stream, entry_id, digest)
) WITHOUT ROWID;

CREATE TABLE holds (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    at INTEGER NOT NULL,
    released_at INTEGER,
    released_by TEXT
);

CREATE TABLE erasures (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    name TEXT NOT NULL,
    value_digest BLOB NOT NULL, -- SHA-256: the value itself is erased
    counts TEXT NOT NULL
);

CREATE TABLE looks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    found INTEGER NOT NULL
);
