-- The records, their keys, and what is kept beside them.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- A unique constraint of a partitioned table needs the time, and the same id may come with another time. So the
-- keys have a table of their own, which is not partitioned.
CREATE TABLE record_keys (
    source text NOT NULL,
    id text NOT NULL,
    digest bytea, -- null once the record is gone
    gone_at timestamptz,
    PRIMARY KEY (source, id)
);
CREATE INDEX record_keys_gone ON record_keys (gone_at) WHERE gone_at IS NOT NULL;

-- An identity column of a partitioned table needs PostgreSQL 17.
CREATE SEQUENCE record_numbers;

CREATE TABLE records (
    number bigint NOT NULL DEFAULT nextval('record_numbers'),
    source text NOT NULL,
    id text NOT NULL,
    family text NOT NULL,
    type text NOT NULL,
    kind text,
    response_id text,
    item_id text,
    upstream_response_id text,
    tenant text,
    model text,
    safety_identifier text,
    reference text,
    at timestamptz NOT NULL,
    words text NOT NULL,
    body bytea NOT NULL, -- the JSON as it was written; it may have NUL, which text and jsonb may not
    digest bytea NOT NULL,
    lexemes tsvector GENERATED ALWAYS AS (to_tsvector('simple', words)) STORED,
    PRIMARY KEY (number, at)
) PARTITION BY RANGE (at);
ALTER SEQUENCE record_numbers OWNED BY records.number;
CREATE INDEX records_at ON records (at);
-- Ids may have 4 KB, which a btree refuses.
CREATE INDEX records_response ON records USING hash (response_id) WHERE response_id IS NOT NULL;
CREATE INDEX records_item ON records USING hash (item_id) WHERE item_id IS NOT NULL;
CREATE INDEX records_upstream ON records USING hash (upstream_response_id) WHERE upstream_response_id IS NOT NULL;
CREATE INDEX records_tenant ON records (tenant) WHERE tenant IS NOT NULL;
CREATE INDEX records_safety ON records (safety_identifier) WHERE safety_identifier IS NOT NULL;
CREATE INDEX records_reference ON records (reference) WHERE reference IS NOT NULL;
CREATE INDEX records_lexemes ON records USING gin (lexemes);
CREATE INDEX records_trigrams ON records USING gin (words gin_trgm_ops);

CREATE TABLE conflicts (
    source text NOT NULL,
    id text NOT NULL,
    family text NOT NULL,
    type text NOT NULL,
    kind text,
    response_id text,
    item_id text,
    upstream_response_id text,
    tenant text,
    model text,
    safety_identifier text,
    reference text,
    at timestamptz NOT NULL,
    words text NOT NULL,
    body bytea NOT NULL,
    digest bytea NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (source, id, digest)
);

CREATE TABLE unreadable_entries (
    stream text NOT NULL,
    entry_id text NOT NULL,
    digest bytea NOT NULL,
    reason text NOT NULL,
    response_id text,
    body bytea NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (stream, entry_id, digest)
);

CREATE TABLE holds (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    value text NOT NULL,
    who text NOT NULL,
    why text NOT NULL,
    at timestamptz NOT NULL,
    released_at timestamptz,
    released_by text
);

CREATE TABLE erasures (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    who text NOT NULL,
    name text NOT NULL,
    value_digest bytea NOT NULL, -- SHA-256: the value itself is erased
    counts text NOT NULL
);

CREATE TABLE looks (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    who text NOT NULL,
    what text NOT NULL,
    found bigint NOT NULL
);
