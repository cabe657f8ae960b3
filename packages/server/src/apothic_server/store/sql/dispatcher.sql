-- The one dispatcher of the installation (D4). Its times are the store's own clock, which all processes share.

-- name: take_term
INSERT INTO dispatcher (term, holder, url, expires_at) VALUES (1, $1, $2, clock_timestamp() + $3::interval)
ON CONFLICT (only_row) DO UPDATE
SET term = dispatcher.term + 1, holder = excluded.holder, url = excluded.url, expires_at = excluded.expires_at
WHERE dispatcher.expires_at <= clock_timestamp() OR dispatcher.holder = excluded.holder
RETURNING term;

-- name: renew_term
UPDATE dispatcher SET expires_at = clock_timestamp() + $3::interval WHERE term = $1 AND holder = $2 RETURNING term;

-- name: release_term
UPDATE dispatcher SET expires_at = clock_timestamp() WHERE term = $1 AND holder = $2 RETURNING term;

-- name: get_dispatcher
SELECT term, holder, url, expires_at > clock_timestamp() AS is_live FROM dispatcher;
