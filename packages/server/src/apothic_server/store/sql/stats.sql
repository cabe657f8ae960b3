-- How the calls of an app went. All look at the newest $4 jobs of the org that are not below $3, by the index
-- `jobs_by_org`, whatever app they are of, so that no question costs more than that.

-- name: count_statuses
-- A chunk of a group counts as the items it covers, an item whose own row came later (`overlays`) once.
SELECT function.name AS function_name, told.status, sum(told.jobs)::bigint AS jobs
FROM (
    SELECT app, function, status, coalesce(chunk_items, 1) AS items, coalesce(chunk_done, 0) AS done,
        coalesce(cardinality(failed_items), 0) AS failed, overlays
    FROM jobs WHERE org = $1 AND id >= $3 ORDER BY id DESC LIMIT $4
) AS looked JOIN functions AS function ON function.id = looked.function AND function.org = $1
    CROSS JOIN LATERAL (
        VALUES (looked.status, looked.items - looked.done), ('succeeded', looked.done - looked.failed),
            ('failed', looked.failed),
            (CASE looked.overlays WHEN 'F' THEN 'failed' ELSE 'succeeded' END, CASE WHEN looked.overlays <> '' THEN -1 END)
    ) AS told (status, jobs)
WHERE looked.app = $2 AND ($5::text IS NULL OR function.name = $5) AND told.jobs <> 0
GROUP BY function.name, told.status ORDER BY function.name, told.status;

-- name: measure_times
SELECT function.name AS function_name,
    percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY looked.queue_s) AS queue_s,
    percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY looked.run_s) AS run_s
FROM (
    SELECT app, function,
        CASE WHEN attempt = 1 AND chunk_items IS NULL
            THEN extract(epoch FROM started_at - created_at)::double precision END AS queue_s,
        CASE WHEN status IN ('succeeded', 'failed', 'timed_out')
            THEN extract(epoch FROM finished_at - started_at)::double precision / greatest(chunk_done, 1) END AS run_s
    FROM jobs WHERE org = $1 AND id >= $3 ORDER BY id DESC LIMIT $4
) AS looked JOIN functions AS function ON function.id = looked.function AND function.org = $1
WHERE looked.app = $2 AND ($5::text IS NULL OR function.name = $5)
GROUP BY function.name;

-- name: looked_since
-- When the oldest of the jobs that are looked at was made, when there may be older ones; else null.
SELECT CASE WHEN count(*) = $3 THEN min(created_at) END AS created_at FROM (
    SELECT created_at FROM jobs WHERE org = $1 AND id >= $2 ORDER BY id DESC LIMIT $3
) AS looked;

-- name: function_names_ever
SELECT name FROM functions WHERE org = $1 AND app = $2 ORDER BY name;
