-- Workers: one row per incarnation.

-- name: add_worker
INSERT INTO workers (id, org, name, machine, connected_at, lease_expires_at, enrolled)
VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7)
ON CONFLICT (id) DO UPDATE
SET name = excluded.name, machine = excluded.machine, lease_expires_at = excluded.lease_expires_at
WHERE workers.org = excluded.org AND workers.ended_at IS NULL
    AND workers.enrolled IS NOT DISTINCT FROM excluded.enrolled
RETURNING id;

-- name: renew_lease
UPDATE workers SET lease_expires_at = $3 WHERE org = $1 AND id = $2 AND ended_at IS NULL RETURNING id;

-- name: end_worker
UPDATE workers SET ended_at = $3, ended_reason = $4 WHERE org = $1 AND id = $2 AND ended_at IS NULL RETURNING id;

-- name: list_workers
SELECT id, org, name, machine, connected_at, lease_expires_at, ended_at, ended_reason, enrolled
FROM workers WHERE org = $1 AND (ended_at IS NULL OR ended_at > $2)
ORDER BY id;
