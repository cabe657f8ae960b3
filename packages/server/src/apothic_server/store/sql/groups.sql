-- Groups as requests read and change them, and their inputs. Rows of `jobs` that cover items are the writer's. A chunk
-- begins less than 2,000 items before any that it covers (`CHUNK_ITEMS_MAX`).

-- name: add_group
-- Nothing when the function has a group with this key.
INSERT INTO groups (
    id, org, app, deployment, function, status, spread, key, stop_after, created_by, parent, depth, created_at,
    heard_at
)
VALUES ($1, $2, $3, $4, $5, 'running', $6, $7, $8, $9, $10, $11, $12, $12)
ON CONFLICT (org, function, key) DO NOTHING
RETURNING id;

-- name: find_group
SELECT id FROM groups WHERE org = $1 AND function = $2 AND key = $3;

-- name: count_unfinished
-- Groups of a deployed function that have not ended, $4 at most.
SELECT count(*) FROM (
    SELECT FROM groups
    WHERE finished_at IS NULL AND org = $1 AND deployment = $2 AND function = $3
    LIMIT $4
) AS unfinished;

-- name: get_group
SELECT id, org, app, deployment, function, status, spread, key, stop_after, uploaded, uploaded_bytes, total, counts,
    error, created_by, parent, depth, created_at, finished_at, heard_at
FROM groups WHERE org = $1 AND id = $2;

-- name: hold_group
-- The same, and nobody else changes the row before this transaction ends.
SELECT id, org, app, deployment, function, status, spread, key, stop_after, uploaded, uploaded_bytes, total, counts,
    error, created_by, parent, depth, created_at, finished_at, heard_at
FROM groups WHERE org = $1 AND id = $2 FOR NO KEY UPDATE;

-- name: list_groups
-- Looks at the newest $4 groups below $2, by the index `groups_by_org`, whatever the filters leave of them.
WITH looked AS (
    SELECT * FROM groups WHERE org = $1 AND id < $2 ORDER BY id DESC LIMIT $4
)
SELECT looked.id, looked.org, looked.app, looked.deployment, looked.function, looked.status, looked.spread, looked.key,
    looked.stop_after, looked.uploaded, looked.uploaded_bytes, looked.total, looked.counts, looked.error,
    looked.created_by, looked.parent, looked.depth, looked.created_at, looked.finished_at, looked.heard_at,
    app.name AS app_name, function.name AS function_name
FROM looked JOIN apps AS app ON app.id = looked.app AND app.org = $1
    JOIN functions AS function ON function.id = looked.function AND function.org = $1
WHERE ($5::text IS NULL OR app.name = $5) AND ($6::text IS NULL OR function.name = $6)
    AND ($7::text IS NULL OR looked.status = $7)
ORDER BY looked.id DESC LIMIT $3;

-- name: looked_to
-- The oldest of the groups that `list_groups` looks at, when there may be more; else null.
SELECT CASE WHEN count(*) = $3 THEN min(id) END AS id FROM (
    SELECT id FROM groups WHERE org = $1 AND id < $2 ORDER BY id DESC LIMIT $3
) AS looked;

-- name: get_names
SELECT app.name AS app_name, function.name AS function_name
FROM apps AS app, functions AS function
WHERE app.org = $1 AND app.id = $2 AND function.org = $1 AND function.id = $3;

-- name: waiting_bytes
-- Bytes of inputs that no row covers, within the size of one chunk.
WITH granted AS (
    SELECT coalesce(max(first_item + coalesce(chunk_items, 1)), 0) AS upto FROM (
        SELECT first_item, chunk_items FROM jobs WHERE org = $1 AND group_id = $2 ORDER BY first_item DESC LIMIT 1
    ) AS newest
)
SELECT $3::bigint - coalesce((
    SELECT segment.end_bytes FROM group_inputs AS segment, granted
    WHERE segment.org = $1 AND segment.group_id = $2 AND segment.first + segment.count <= granted.upto
        AND segment.first < granted.upto
    ORDER BY segment.first DESC LIMIT 1
), 0);

-- name: add_inputs
-- Only while the group's row is held.
WITH grown AS (
    UPDATE groups SET uploaded = uploaded + $4, uploaded_bytes = uploaded_bytes + $6, heard_at = $9
    WHERE org = $1 AND id = $2
    RETURNING uploaded_bytes
)
INSERT INTO group_inputs (group_id, first, count, org, python, size_bytes, end_bytes, data, blob)
SELECT $2, $3, $4, $1, $5, $6, uploaded_bytes, $7, $8 FROM grown;

-- name: hear
-- Of one that takes items still, unless somebody was heard of not long ago.
UPDATE groups SET heard_at = $3 WHERE org = $1 AND id = $2 AND total IS NULL AND finished_at IS NULL AND heard_at < $4;

-- name: close_group
UPDATE groups SET total = uploaded WHERE org = $1 AND id = $2;

-- name: cancel_group
UPDATE groups SET status = 'cancelling' WHERE org = $1 AND id = $2 AND status = 'running';

-- name: ask_to_cancel
INSERT INTO group_cancels (group_id, item, org) SELECT $2, item, $1 FROM unnest($3::int[]) AS asked (item)
ON CONFLICT DO NOTHING;

-- name: count_new_cancels
-- Of the given items.
SELECT count(*) FROM group_cancels WHERE org = $1 AND group_id = $2 AND NOT is_taken AND item = ANY ($3::int[]);

-- name: get_inputs
-- The segment that holds an item.
SELECT first, count, python, data, blob FROM group_inputs
WHERE org = $1 AND group_id = $2 AND first <= $3 ORDER BY first DESC LIMIT 1;

-- name: get_item
-- Of item $3, whose own row would be $4: its group, the chunk that covers it, and whether it has a row of its own, as of one
-- moment. The result of the chunk only when it is wanted ($5), tells why the item failed, or is small ($6 bytes) and final;
-- `own`: items of a chunk of an ended group that have a row of their own.
SELECT one.id, one.org, one.app, one.deployment, one.function, one.status, one.spread, one.key, one.stop_after,
    one.uploaded, one.uploaded_bytes, one.total, one.counts, one.error, one.created_by, one.parent, one.depth,
    one.created_at, one.finished_at, one.heard_at,
    EXISTS (SELECT FROM jobs WHERE org = $1 AND id = $4) AS has_row,
    one.finished_at IS NULL AND EXISTS (
        SELECT FROM group_cancels WHERE org = $1 AND group_id = $2 AND item = $3
    ) AS is_cancel_asked,
    chunk.first_item, chunk.chunk_items, chunk.status AS chunk_status, chunk.attempt, chunk.chunk_done, chunk.failed_items,
    chunk.error AS chunk_error, chunk.result_encoding, chunk.result_python, chunk.started_at,
    chunk.finished_at AS chunk_finished_at,
    CASE WHEN $5 OR $3 - chunk.first_item = ANY (chunk.failed_items)
        OR one.finished_at IS NOT NULL AND octet_length(chunk.result) <= $6 THEN chunk.result END AS result,
    chunk.result_blob,
    CASE WHEN one.finished_at IS NOT NULL AND chunk.first_item IS NOT NULL THEN ARRAY(
        SELECT own.first_item FROM jobs AS own
        WHERE own.org = $1 AND own.group_id = $2 AND own.chunk_items IS NULL
            AND own.first_item >= chunk.first_item AND own.first_item < chunk.first_item + chunk.chunk_items
    ) END AS own
FROM groups AS one LEFT JOIN LATERAL (
    SELECT * FROM jobs
    WHERE org = $1 AND group_id = $2 AND chunk_items IS NOT NULL
        AND first_item > $3::int - 2000 AND first_item <= $3::int AND first_item + chunk_items > $3::int
    ORDER BY first_item DESC LIMIT 1
) AS chunk ON true
WHERE one.org = $1 AND one.id = $2 AND $3::int < one.uploaded;

-- name: count_items
-- Items by what their rows say; an own row stands for its item whatever the entry of a chunk says (`overlays`).
SELECT status, sum(items)::bigint AS items FROM (
    SELECT status, count(*) AS items FROM jobs WHERE org = $1 AND group_id = $2 AND chunk_items IS NULL GROUP BY status
    UNION ALL
    SELECT CASE overlays WHEN 'F' THEN 'failed' ELSE 'succeeded' END, -count(*) FROM jobs
    WHERE org = $1 AND group_id = $2 AND overlays IS NOT NULL GROUP BY overlays
    UNION ALL
    SELECT status, sum(chunk_items - coalesce(chunk_done, 0)) FROM jobs
    WHERE org = $1 AND group_id = $2 AND chunk_items IS NOT NULL GROUP BY status
    UNION ALL
    SELECT 'failed', sum(coalesce(cardinality(failed_items), 0)) FROM jobs
    WHERE org = $1 AND group_id = $2 AND chunk_items IS NOT NULL
    UNION ALL
    SELECT 'succeeded', sum(coalesce(chunk_done, 0) - coalesce(cardinality(failed_items), 0)) FROM jobs
    WHERE org = $1 AND group_id = $2 AND chunk_items IS NOT NULL
) AS told GROUP BY status;

-- name: list_ends
-- Rows of the given ranges of items that tell of an end, after the place ($5, $6), up to $7 of them and about $8 bytes.
-- `own`: items of a chunk that have a row of their own, which alone tells of them; `looked_at`: how many rows there were.
WITH looked AS (
    SELECT DISTINCT ON (job.first_item, job.id) job.*, coalesce(
        octet_length(job.result), CASE WHEN job.result_blob IS NULL THEN 0 ELSE 1048576 END
    ) AS size_bytes
    FROM unnest($3::int[], $4::int[]) AS wanted (low, high) CROSS JOIN LATERAL (
        (SELECT id, first_item, chunk_items, chunk_done, failed_items, status, error, result, result_blob,
            result_encoding, result_python
        FROM jobs
        WHERE org = $1 AND group_id = $2 AND chunk_items IS NULL
            AND first_item >= wanted.low AND first_item < wanted.high
            AND (first_item, id) > ($5::int, $6::text)
            AND finished_at IS NOT NULL
        ORDER BY first_item, id LIMIT $7)
        UNION ALL
        (SELECT id, first_item, chunk_items, chunk_done, failed_items, status, error, result, result_blob,
            result_encoding, result_python
        FROM jobs
        WHERE org = $1 AND group_id = $2 AND chunk_items IS NOT NULL
            AND first_item > wanted.low - 2000 AND first_item < wanted.high
            AND first_item + chunk_items > wanted.low
            AND (first_item, id) > ($5::int, $6::text)
            AND finished_at IS NOT NULL
        ORDER BY first_item, id LIMIT $7)
    ) AS job
    ORDER BY job.first_item, job.id LIMIT $7
)
SELECT summed.*, CASE WHEN chunk_items IS NOT NULL THEN ARRAY(
    SELECT own.first_item FROM jobs AS own
    WHERE own.org = $1 AND own.group_id = $2 AND own.chunk_items IS NULL
        AND own.first_item >= summed.first_item AND own.first_item < summed.first_item + summed.chunk_items
    ORDER BY own.first_item
) END AS own
FROM (
    SELECT *, count(*) OVER () AS looked_at,
        sum(size_bytes) OVER (ORDER BY first_item, id) - size_bytes AS bytes_before
    FROM looked
) AS summed
WHERE bytes_before < $8
ORDER BY first_item, id;
