-- What the dispatcher reads and ends across all orgs, as the tables' owner.

-- name: list_unfinished
SELECT id, status FROM jobs
WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out') AND id > $1
ORDER BY id LIMIT $2;

-- name: list_unfinished_jobs
SELECT id, org, app, deployment, function, status, attempt, fence, losses, worker, term, run_at, error, created_by,
    created_at, started_at, finished_at, retry_of, parent, depth, waited_fence,
    arguments AS data, arguments_blob AS blob, arguments_encoding AS encoding, arguments_python AS python,
    item_attempt, next_ordinal, group_id, first_item, chunk_items, overlays
FROM jobs WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out') AND id > $1
ORDER BY id LIMIT $2;

-- name: list_statuses
SELECT id, status FROM jobs WHERE id = ANY ($1::text[]);

-- name: get_jobs_with_arguments
SELECT id, org, app, deployment, function, status, attempt, fence, losses, worker, term, run_at, error, created_by,
    created_at, started_at, finished_at, retry_of, parent, depth, waited_fence,
    arguments AS data, arguments_blob AS blob, arguments_encoding AS encoding, arguments_python AS python,
    item_attempt, next_ordinal, group_id, first_item, chunk_items, overlays
FROM jobs WHERE id = ANY ($1::text[])
ORDER BY id;

-- name: get_any_job
SELECT id, org, app, deployment, function, status, attempt, fence, losses, worker, term, run_at, error, created_by,
    created_at, started_at, finished_at, retry_of, parent, depth, waited_fence
FROM jobs WHERE id = $1;

-- name: list_orphans
-- Unfinished jobs called by an attempt that waited for them and that has ended other than by success.
-- (`parent` of a child that an item of a chunk called: the chunk's id and, behind a colon, the item.)
SELECT child.id
FROM jobs AS child JOIN jobs AS parent ON parent.id = split_part(child.parent, ':', 1) AND parent.org = child.org
WHERE child.waited_fence IS NOT NULL AND child.finished_at IS NULL AND child.status <> 'cancelling'
  AND (
    parent.fence <> child.waited_fence OR parent.status IN ('queued', 'retrying', 'failed', 'cancelled', 'timed_out')
  );

-- name: get_deployed_function
SELECT function.id, function.org, function.app, app.name AS app_name, deployment.id AS deployment,
    deployment.archive, deployment.manifest ->> 'module' AS module,
    deployment.manifest ->> 'app_variable' AS app_variable, deployment.manifest ->> 'python' AS python,
    jsonb_path_query_first(
        deployment.manifest, '$.functions[*] ? (@.name == $name)', jsonb_build_object('name', function.name)
    ) AS spec
FROM functions AS function
    JOIN apps AS app ON app.id = function.app AND app.org = function.org
    JOIN deployments AS deployment ON deployment.app = app.id AND deployment.org = app.org
WHERE function.org = $1 AND deployment.id = $2 AND function.id = $3;

-- name: find_deployed_functions
SELECT function.id, function.org, function.app, app.name AS app_name, deployment.id AS deployment,
    deployment.archive, deployment.manifest ->> 'module' AS module,
    deployment.manifest ->> 'app_variable' AS app_variable, deployment.manifest ->> 'python' AS python,
    jsonb_path_query_first(
        deployment.manifest, '$.functions[*] ? (@.name == $name)', jsonb_build_object('name', function.name)
    ) AS spec
FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[]) AS t (org, deployment, name)) AS wanted
    JOIN deployments AS deployment ON deployment.id = wanted.deployment AND deployment.org = wanted.org
    JOIN apps AS app ON app.id = deployment.app AND app.org = deployment.org
    JOIN functions AS function ON function.app = app.id AND function.org = app.org AND function.name = wanted.name;

-- name: get_deployed_archive
SELECT org, archive FROM deployments WHERE id = $1;

-- name: count_lines
-- What the newest attempt of each job has written so far: the number of its last line and one, NULL without any.
SELECT wanted.job, (
    SELECT (newest.data ->> 'number')::int + 1 FROM events AS newest
    WHERE newest.org = wanted.org AND newest.stream = wanted.job
        AND (newest.kind = 'job.log' OR newest.kind = 'job.status' AND newest.data ->> 'status' = 'starting')
    ORDER BY newest.index DESC LIMIT 1
) AS lines
FROM unnest($1::text[], $2::text[]) AS wanted (org, job);

-- name: live_workers
SELECT id, lease_expires_at FROM workers WHERE ended_at IS NULL;

-- name: end_workers
UPDATE workers SET ended_at = $3, ended_reason = 'its lease ran out'
FROM unnest($1::text[], $2::timestamptz[]) AS silent (id, seen)
WHERE workers.id = silent.id AND workers.lease_expires_at = silent.seen AND workers.ended_at IS NULL
RETURNING workers.id;

-- name: end_workers_named
-- Workers beside servers only: of those on other hosts nobody here has proof.
UPDATE workers SET ended_at = $2, ended_reason = $3 WHERE name = $1 AND enrolled IS NULL AND ended_at IS NULL AND id <> $4
RETURNING id;

-- name: end_starts_of
-- Starts of a worker that joined, of which its next start has proof; of no other worker.
UPDATE workers SET ended_at = $3, ended_reason = $4 WHERE enrolled = $1 AND id = ANY ($2::text[]) AND ended_at IS NULL
RETURNING id;

-- name: lock_orgs
LOCK TABLE orgs IN SHARE ROW EXCLUSIVE MODE;
