-- What the dispatcher reads and writes of groups across all orgs, as the tables' owner. Their rows in `jobs` are written by
-- the batching writer only (`writer.sql`).

-- name: list_unfinished
SELECT id, org, app, deployment, function, status, spread, key, stop_after, uploaded, uploaded_bytes, total, counts, error,
    created_by, parent, depth, created_at, finished_at, heard_at
FROM groups WHERE finished_at IS NULL AND id > $1 ORDER BY id LIMIT $2;

-- name: get_groups
SELECT id, org, app, deployment, function, status, spread, key, stop_after, uploaded, uploaded_bytes, total, counts, error,
    created_by, parent, depth, created_at, finished_at, heard_at
FROM groups WHERE id = ANY ($1::text[]);

-- name: one_snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;

-- name: count_items
-- How many items have ended how: own rows, and entries and rests of chunks without those that own rows lie over.
SELECT
    coalesce(sum(CASE WHEN chunk_items IS NULL THEN (status = 'succeeded')::int - (overlays IS NOT DISTINCT FROM 'S')::int
        ELSE coalesce(chunk_done, 0) - coalesce(cardinality(failed_items), 0) END), 0) AS succeeded,
    coalesce(sum(CASE WHEN chunk_items IS NULL THEN (status = 'failed')::int - (overlays IS NOT DISTINCT FROM 'F')::int
        ELSE coalesce(cardinality(failed_items), 0)
            + CASE WHEN status = 'failed' THEN chunk_items - coalesce(chunk_done, 0) ELSE 0 END END), 0) AS failed,
    coalesce(sum(CASE WHEN chunk_items IS NULL THEN 1 ELSE chunk_items - coalesce(chunk_done, 0) END)
        FILTER (WHERE status = 'cancelled'), 0) AS cancelled,
    coalesce(sum(CASE WHEN chunk_items IS NULL THEN 1 ELSE chunk_items - coalesce(chunk_done, 0) END)
        FILTER (WHERE status = 'timed_out'), 0) AS timed_out
FROM jobs WHERE group_id = $1 AND org = $2;

-- name: list_gaps
-- Items that no row covers, below the last one that a row does; and a last row without items: where those begin that follow.
WITH covering AS (
    SELECT first_item AS first, first_item + coalesce(chunk_items, 1) AS upto
    FROM jobs WHERE group_id = $1 AND org = $2 AND overlays IS NULL AND coalesce(chunk_items, 1) > 0
),
stepped AS (
    SELECT first, coalesce(max(upto) OVER (ORDER BY first ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
    FROM covering
)
SELECT before AS first, first AS upto FROM stepped WHERE before < first
UNION ALL
SELECT coalesce(max(upto), 0), coalesce(max(upto), 0) FROM covering
ORDER BY first, upto;

-- name: list_live_rows
SELECT id, first_item, chunk_items, overlays, arguments_encoding FROM jobs
WHERE group_id = $1 AND org = $2 AND status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out');

-- name: list_unretried
-- Ended chunks with a failed entry that no own row lies over.
SELECT id, first_item, chunk_items, fence, worker, created_at, started_at, failed_items,
    result AS data, result_blob AS blob, result_python AS python
FROM jobs AS chunk
WHERE group_id = $1 AND org = $2 AND first_item >= $3 AND chunk_items > 0 AND finished_at IS NOT NULL AND EXISTS (
    SELECT FROM unnest(failed_items) AS failed (place) WHERE NOT EXISTS (
        SELECT FROM jobs AS own WHERE own.id = chunk.group_id || '.' || (chunk.first_item + failed.place)
            AND own.org = chunk.org
    )
)
ORDER BY first_item LIMIT $4;

-- name: list_inputs
-- The segment that holds item $3, and those after it.
SELECT first, count, python, data, blob FROM group_inputs
WHERE group_id = $1 AND org = $2 AND first >= (
    SELECT max(first) FROM group_inputs WHERE group_id = $1 AND org = $2 AND first <= $3
)
ORDER BY first LIMIT $4;

-- name: stop_silent
-- Not when all its items were sent, or somebody was heard of after $4.
UPDATE groups SET status = 'cancelling', error = $3
WHERE id = $1 AND org = $2 AND status = 'running' AND total IS NULL AND heard_at <= $4
    AND $5 = (SELECT term FROM dispatcher FOR SHARE)
RETURNING id;

-- name: stop_group
UPDATE groups SET status = 'cancelling', error = $3
WHERE id = $1 AND org = $2 AND status = 'running' AND $4 = (SELECT term FROM dispatcher FOR SHARE)
RETURNING id;

-- name: end_group
-- Not when more came, or somebody decided otherwise, since memory was made.
WITH ended AS (
    UPDATE groups SET status = $3, counts = $4, error = $5, finished_at = $6
    WHERE id = $1 AND org = $2 AND finished_at IS NULL AND uploaded = $7
        AND $8 = (SELECT term FROM dispatcher FOR SHARE)
    RETURNING id
),
forgotten AS (
    DELETE FROM group_cancels USING ended WHERE group_id = ended.id AND org = $2
)
SELECT id FROM ended;

-- name: list_cancels
SELECT item FROM group_cancels WHERE group_id = $1 AND org = $2 ORDER BY item;

-- name: take_cancels
-- Those of these groups, of any org, that no dispatcher took in yet.
UPDATE group_cancels SET is_taken = true
WHERE group_id = ANY ($1::text[]) AND NOT is_taken AND $2 = (SELECT term FROM dispatcher FOR SHARE)
RETURNING group_id, item;
