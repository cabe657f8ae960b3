-- Reading jobs and their streams. They are written by the batching writer only (`writer.sql`).

-- name: get_job
SELECT id, org, app, deployment, function, status, attempt, fence, losses, worker, term, run_at, error, created_by,
    created_at, started_at, finished_at
FROM jobs WHERE org = $1 AND id = $2;

-- name: get_arguments
SELECT arguments AS data, arguments_blob AS blob, arguments_encoding AS encoding, arguments_python AS python
FROM jobs WHERE org = $1 AND id = $2;

-- name: get_outcome
SELECT id, status, attempt, error, result AS data, result_blob AS blob, result_encoding AS encoding,
    result_python AS python
FROM jobs WHERE org = $1 AND id = $2;

-- name: get_log_lines
SELECT index, kind, at, data FROM events
WHERE org = $1 AND stream = $2 AND index > $3 AND kind = 'job.log'
ORDER BY index LIMIT $4;

-- name: get_last_index
SELECT next_index - 1 AS last_index, status FROM jobs WHERE org = $1 AND id = $2;
