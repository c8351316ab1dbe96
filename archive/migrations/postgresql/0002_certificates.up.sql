-- Digests of the certificates of erasures, each chained to the one before. The certificates themselves name people,
-- so they are not kept.

CREATE TABLE certificates (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure bigint NOT NULL,
    digest bytea NOT NULL,
    chain bytea NOT NULL
);
