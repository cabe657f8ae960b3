-- Idempotency keys.

-- name: lock_key
-- The number is the key's alone but for collisions, which cost a needless 409.
SELECT pg_try_advisory_xact_lock(hashtextextended($1::text || encode($2::bytea, 'hex'), 0));

-- name: find_key
SELECT fingerprint, job, status, body FROM idempotency_keys WHERE org = $1 AND digest = $2;

-- name: add_key
INSERT INTO idempotency_keys (org, digest, fingerprint, job, status, body, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (org, digest) DO NOTHING;

-- name: forget_keys
-- Of all orgs: keys whose effect was complete before $1. A call is complete when its job has ended.
DELETE FROM idempotency_keys WHERE (org, digest) IN (
    SELECT held.org, held.digest FROM idempotency_keys AS held
    WHERE held.created_at < $1
        AND NOT EXISTS (
            SELECT FROM jobs
            WHERE jobs.id = held.job AND jobs.org = held.org AND (jobs.finished_at IS NULL OR jobs.finished_at >= $1)
        )
    LIMIT $2
) RETURNING digest;
