DROP TABLE looks;
DROP TABLE erasures;
DROP TABLE holds;
DROP TABLE unreadable_entries;
DROP TABLE conflicts;
DROP TABLE records;
DROP TABLE record_keys;
-- The extension stays: other programs may use it.
