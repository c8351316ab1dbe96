-- The roles of the archive in PostgreSQL 15 or later, as a superuser in its database, before the first migration:
--
--   psql --dbname deltaloom --file deploy/postgresql/roles.sql
--   psql --dbname deltaloom --command '\password archiver' --command '\password archive_reader'
--
-- docs/archive.md says what each may do. Names are those of the whole server: choose others if it has several archives.

CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;

-- The archivers, and whoever holds and erases. The tables are this role's, since it adds a partition for each month.
CREATE ROLE archiver LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE SCHEMA archive AUTHORIZATION archiver;
ALTER ROLE archiver SET search_path = archive, public;

-- Whoever searches, shows and exports: may read, and add looks that it cannot remove.
CREATE ROLE archive_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
GRANT USAGE ON SCHEMA archive TO archive_reader;
ALTER ROLE archive_reader SET search_path = archive, public;
ALTER DEFAULT PRIVILEGES FOR ROLE archiver IN SCHEMA archive GRANT SELECT ON TABLES TO archive_reader;
