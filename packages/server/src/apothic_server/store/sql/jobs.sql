-- Reading jobs and their streams. They are written by the batching writer only (`writer.sql`).

-- name: get_job
SELECT id, org, app, deployment, function, status, attempt, fence, losses, worker, term, run_at, error, created_by,
    created_at, started_at, finished_at, retry_of, parent, depth, waited_fence
FROM jobs WHERE org = $1 AND id = $2;

-- name: list_jobs
-- Looks at the newest $5 rows below $2 and not below $3, by the index `jobs_by_org`, whatever the filters leave of them.
-- Chunks of groups are no jobs.
WITH looked AS (
    SELECT id, app, deployment, function, status, attempt, created_at, started_at, finished_at, chunk_items
    FROM jobs WHERE org = $1 AND id < $2 AND id >= $3 ORDER BY id DESC LIMIT $5
)
SELECT looked.id, app.name AS app_name, function.name AS function_name, looked.deployment, looked.status,
    looked.attempt, looked.created_at, looked.started_at, looked.finished_at
FROM looked JOIN apps AS app ON app.id = looked.app AND app.org = $1
    JOIN functions AS function ON function.id = looked.function AND function.org = $1
WHERE looked.chunk_items IS NULL AND ($6::text IS NULL OR app.name = $6) AND ($7::text IS NULL OR function.name = $7)
    AND ($8::text IS NULL OR looked.status = $8) AND ($9::text IS NULL OR looked.deployment = $9)
ORDER BY looked.id DESC LIMIT $4;

-- name: list_unfinished
-- As `list_jobs`, but looks at jobs that have not ended only, by the index `jobs_unfinished_by_org`.
WITH looked AS (
    SELECT id, app, deployment, function, status, attempt, created_at, started_at, finished_at, chunk_items
    FROM jobs WHERE org = $1 AND id < $2 AND id >= $3
        AND status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out')
    ORDER BY id DESC LIMIT $5
)
SELECT looked.id, app.name AS app_name, function.name AS function_name, looked.deployment, looked.status,
    looked.attempt, looked.created_at, looked.started_at, looked.finished_at
FROM looked JOIN apps AS app ON app.id = looked.app AND app.org = $1
    JOIN functions AS function ON function.id = looked.function AND function.org = $1
WHERE looked.chunk_items IS NULL AND ($6::text IS NULL OR app.name = $6) AND ($7::text IS NULL OR function.name = $7)
    AND ($8::text IS NULL OR looked.status = $8) AND ($9::text IS NULL OR looked.deployment = $9)
ORDER BY looked.id DESC LIMIT $4;

-- name: looked_to
-- The oldest of the jobs that `list_jobs` looks at, when there may be more; else null.
SELECT CASE WHEN count(*) = $4 THEN min(id) END AS id FROM (
    SELECT id FROM jobs WHERE org = $1 AND id < $2 AND id >= $3 ORDER BY id DESC LIMIT $4
) AS looked;

-- name: unfinished_looked_to
-- The same of `list_unfinished`.
SELECT CASE WHEN count(*) = $4 THEN min(id) END AS id FROM (
    SELECT id FROM jobs WHERE org = $1 AND id < $2 AND id >= $3
        AND status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out')
    ORDER BY id DESC LIMIT $4
) AS looked;

-- name: get_arguments
SELECT arguments AS data, arguments_blob AS blob, arguments_encoding AS encoding, arguments_python AS python
FROM jobs WHERE org = $1 AND id = $2;

-- name: get_outcome
SELECT id, status, attempt, error, result AS data, result_blob AS blob, result_encoding AS encoding,
    result_python AS python
FROM jobs WHERE org = $1 AND id = $2;

-- name: list_outcomes
-- Of all orgs: those of the given jobs that have ended.
SELECT job.id, job.status, job.attempt, job.error, job.result AS data, job.result_blob AS blob,
    job.result_encoding AS encoding, job.result_python AS python
FROM unnest($1::text[], $2::text[]) AS given (id, org) JOIN jobs AS job ON job.id = given.id AND job.org = given.org
WHERE job.finished_at IS NOT NULL;

-- name: count_waiting
-- Not more than $4.
SELECT count(*) FROM (
    SELECT FROM jobs
    WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out') AND status IN ('queued', 'retrying')
        AND org = $1 AND deployment = $2 AND function = $3
    LIMIT $4
) AS waiting;

-- name: get_log_lines
SELECT index, kind, at, data FROM events
WHERE org = $1 AND stream = $2 AND index > $3 AND kind = 'job.log'
ORDER BY index LIMIT $4;

-- name: get_last_index
SELECT next_index - 1 AS last_index, status FROM jobs WHERE org = $1 AND id = $2;
