-- Large values of an org: uploaded, named by jobs, removed when no job names them any more.

-- name: begin_value
INSERT INTO large_values (org, sha256, used_at) VALUES ($1, $2, $3)
ON CONFLICT (org, sha256) DO UPDATE SET used_at = greatest(large_values.used_at, $3);

-- name: finish_value
INSERT INTO large_values AS value (org, sha256, size_bytes, used_at) VALUES ($1, $2, $4, $3)
ON CONFLICT (org, sha256) DO UPDATE SET size_bytes = $4, used_at = greatest(value.used_at, $3);

-- name: known_value
SELECT size_bytes, used_at FROM large_values WHERE org = $1 AND sha256 = $2 AND size_bytes IS NOT NULL;

-- name: use_value
-- Keeps it for another while; nothing when the org has not uploaded it.
UPDATE large_values SET used_at = greatest(used_at, $3) WHERE org = $1 AND sha256 = $2 AND size_bytes IS NOT NULL
RETURNING size_bytes;

-- name: bytes_of_values
SELECT coalesce(sum(size_bytes), 0)::bigint FROM large_values WHERE org = $1;

-- name: unused_values
SELECT org, sha256 FROM large_values AS value
WHERE used_at < $1
    AND NOT EXISTS (
        SELECT FROM jobs WHERE jobs.org = value.org AND jobs.arguments_encoding = 'large'
            AND jobs.arguments = convert_to(value.sha256 || ' ' || value.size_bytes, 'UTF8')
    )
    AND NOT EXISTS (
        SELECT FROM jobs WHERE jobs.org = value.org AND jobs.result_encoding = 'large'
            AND jobs.result = convert_to(value.sha256 || ' ' || value.size_bytes, 'UTF8')
    )
ORDER BY org, sha256 LIMIT $2;

-- name: forget_value
DELETE FROM large_values WHERE org = $1 AND sha256 = $2 AND used_at < $3 RETURNING sha256;
