-- Backup and restore, as the tables' owner. A new table needs nothing here, unless it has an index, a fence or a term.

-- name: list_migrations
SELECT sha256 FROM schema_migrations ORDER BY number;

-- name: list_tables
SELECT table_name::text AS name, array_agg(column_name::text ORDER BY ordinal_position) AS columns
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND is_generated = 'NEVER'
  AND table_name NOT IN ('schema_migrations', 'servers')
GROUP BY table_name ORDER BY table_name;

-- name: begin_load
-- Rows come in the order of their tables' names: neither references nor life cycles are looked at while they do.
BEGIN; SET LOCAL session_replication_role = replica;

-- name: raise_events
UPDATE events SET index = index + $1;

-- name: raise_items
UPDATE item_segments SET first_index = first_index + $1, last_index = last_index + $1;

-- name: raise_streams
UPDATE streams SET first_index = first_index + $1, next_index = next_index + $1;

-- name: raise_floors
INSERT INTO stream_floors (stream, org, first_index, first_item) SELECT id, org, $1, $1 FROM jobs
ON CONFLICT (stream) DO UPDATE
SET first_index = stream_floors.first_index + $1, first_item = stream_floors.first_item + $1;

-- name: raise_jobs
UPDATE jobs SET next_index = next_index + $1, fence = fence + $1, waited_fence = waited_fence + $1;

-- name: raise_term
UPDATE dispatcher SET term = term + $1, expires_at = clock_timestamp();
