-- Workers on other hosts: join tokens and enrolled workers. `find_join_token` runs before the org is known, as the tables' owner.

-- name: prune_join_tokens
DELETE FROM join_tokens WHERE org = $1 AND expires_at < $2;

-- name: count_join_tokens
SELECT count(*) FROM join_tokens WHERE org = $1 AND expires_at > $2 AND used_by IS NULL;

-- name: add_join_token
INSERT INTO join_tokens (id, org, digest, created_by, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: list_join_tokens
-- Those that could still be used; their number is bounded where they are made.
SELECT id, created_at, expires_at FROM join_tokens WHERE org = $1 AND expires_at > $2 AND used_by IS NULL
ORDER BY created_at, id;

-- name: end_join_token
UPDATE join_tokens SET expires_at = least(expires_at, $3) WHERE org = $1 AND id = $2 AND used_by IS NULL
RETURNING id, created_at, expires_at;

-- name: find_join_token
SELECT id, org, expires_at, used_by FROM join_tokens WHERE digest = $1;

-- name: lock_join_token
SELECT id, org, expires_at, used_by FROM join_tokens WHERE org = $1 AND id = $2 FOR UPDATE;

-- name: use_join_token
UPDATE join_tokens SET used_by = $3 WHERE org = $1 AND id = $2 AND used_by IS NULL;

-- name: count_enrolled
SELECT count(*) FROM enrolled_workers WHERE org = $1 AND removed_at IS NULL;

-- name: add_credential
INSERT INTO api_keys (id, org, kind, digest, name, prefix, last4, role, scopes, created_at)
VALUES ($1, $2, 'lw', $3, $4, $5, $6, 'worker', '{}', $7)
ON CONFLICT (digest) DO NOTHING
RETURNING id;

-- name: add_enrolled
INSERT INTO enrolled_workers (id, org, name, key, joined_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (org, name) WHERE removed_at IS NULL DO NOTHING
RETURNING id, org, name, key, is_draining, joined_at, removed_at;

-- name: get_enrolled
SELECT id, org, name, key, is_draining, joined_at, removed_at FROM enrolled_workers WHERE org = $1 AND id = $2;

-- name: has_credential
SELECT true FROM enrolled_workers AS worker JOIN api_keys AS key ON key.id = worker.key AND key.org = worker.org
WHERE worker.org = $1 AND worker.id = $2 AND key.digest = $3;

-- name: find_enrolled_by_key
SELECT id, org, name, key, is_draining, joined_at, removed_at FROM enrolled_workers WHERE org = $1 AND key = $2;

-- name: find_enrolled_by_name
-- The worker of this name; without one, the one of this name that was removed last.
SELECT id, org, name, key, is_draining, joined_at, removed_at FROM enrolled_workers WHERE org = $1 AND name = $2
ORDER BY removed_at DESC NULLS FIRST LIMIT 1
FOR UPDATE;

-- name: list_enrolled
-- Each with its newest start, where that has not ended.
SELECT worker.id, worker.org, worker.name, worker.key, worker.is_draining, worker.joined_at, worker.removed_at,
    start.id AS start, start.lease_expires_at
FROM enrolled_workers AS worker
    LEFT JOIN LATERAL (
        SELECT id, lease_expires_at FROM workers WHERE enrolled = worker.id AND org = worker.org AND ended_at IS NULL
        ORDER BY lease_expires_at DESC, id DESC LIMIT 1
    ) AS start ON true
WHERE worker.org = $1 AND worker.removed_at IS NULL AND ($2::text IS NULL OR worker.id = $2)
ORDER BY worker.name;

-- name: set_draining
UPDATE enrolled_workers SET is_draining = $3 WHERE org = $1 AND id = $2 AND removed_at IS NULL;

-- name: remove_enrolled
UPDATE enrolled_workers SET removed_at = $3 WHERE org = $1 AND id = $2 AND removed_at IS NULL;

-- name: orders_of
-- What was ordered of the workers that a dispatcher sees, of all orgs; as the tables' owner.
SELECT id, is_draining, removed_at IS NOT NULL AS is_removed FROM enrolled_workers WHERE id = ANY ($1::text[]);

-- name: is_removed
SELECT true FROM workers AS start JOIN enrolled_workers AS worker ON worker.id = start.enrolled AND worker.org = start.org
WHERE start.id = $1 AND worker.removed_at IS NOT NULL;

-- name: forget_starts
-- Starts of all workers, also of those beside servers, of all orgs; those of unfinished jobs stay.
DELETE FROM workers WHERE id IN (
    SELECT start.id FROM workers AS start WHERE start.ended_at < $1 AND NOT EXISTS (
        SELECT FROM jobs WHERE jobs.worker = start.id AND jobs.org = start.org AND jobs.finished_at IS NULL
    ) ORDER BY start.id LIMIT $2
);

-- name: forget_enrolled
DELETE FROM enrolled_workers AS worker WHERE worker.removed_at < $1
    AND NOT EXISTS (SELECT FROM workers AS start WHERE start.enrolled = worker.id);

-- name: forget_credentials
DELETE FROM api_keys AS key WHERE key.kind = 'lw' AND key.revoked_at < $1
    AND NOT EXISTS (SELECT FROM enrolled_workers AS worker WHERE worker.key = key.id);
