-- The processes of one cloud, as the tables' owner. Times are the store's own clock, which all processes share.

-- name: renew_server
INSERT INTO servers (id, url, renewed_at, expires_at)
VALUES ($1, $2, clock_timestamp(), clock_timestamp() + $3::interval)
ON CONFLICT (id) DO UPDATE
SET url = excluded.url, renewed_at = excluded.renewed_at, expires_at = excluded.expires_at;

-- name: list_servers
SELECT id, url FROM servers WHERE expires_at > clock_timestamp() ORDER BY id;

-- name: store_now
SELECT clock_timestamp();

-- name: count_unaware
-- Other live processes that have not read this table since $2.
SELECT count(*) FROM servers WHERE id <> $1 AND expires_at > clock_timestamp() AND renewed_at < $2;

-- name: remove_server
DELETE FROM servers WHERE id = $1;

-- name: remove_gone
DELETE FROM servers WHERE expires_at < clock_timestamp() - $1::interval;
