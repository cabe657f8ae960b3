-- Event streams: those of jobs have their bounds in the job's row, all others in `streams`.

-- name: get_job_bounds
SELECT jobs.next_index - 1 AS newest, coalesce(floor.first_index, 0) AS oldest,
    coalesce(floor.first_item, 0) AS oldest_item, jobs.item_count > 0 AS has_items,
    jobs.finished_at IS NOT NULL AS is_final
FROM jobs LEFT JOIN stream_floors AS floor ON floor.stream = jobs.id AND floor.org = jobs.org
WHERE jobs.org = $1 AND jobs.id = $2;

-- name: get_bounds
SELECT next_index - 1 AS newest, first_index AS oldest, ended_at IS NOT NULL AS is_final
FROM streams WHERE org = $1 AND stream = $2 AND kind = $3;

-- name: is_first
-- Whether the event at an index is the one that its stream began with, so that nothing before it was ever told.
SELECT true FROM events WHERE org = $1 AND stream = $2 AND index = $3 AND (
    kind IN ('job.queued', 'group.created', 'deployment.created') OR (kind = 'app.deployed' AND data ->> 'version' = '1')
);

-- name: hold
-- Nobody appends until this transaction ends, so what it reads next is as of that index.
SELECT next_index - 1 AS newest, ended_at IS NOT NULL AS is_final
FROM streams WHERE org = $1 AND stream = $2 AND kind = $3 FOR SHARE;

-- name: append
WITH grown AS (
    INSERT INTO streams (stream, org, kind, next_index, ended_at) VALUES ($1, $2, $3, cardinality($4::text[]), $7)
    ON CONFLICT (stream) DO UPDATE SET
        next_index = streams.next_index + excluded.next_index, ended_at = coalesce(streams.ended_at, excluded.ended_at)
        WHERE streams.org = excluded.org AND streams.kind = excluded.kind
    RETURNING next_index - cardinality($4::text[]) AS first_index
)
INSERT INTO events (stream, index, org, kind, at, data)
SELECT $1, grown.first_index + given.place - 1, $2, given.kind, given.at, given.data::jsonb
FROM grown, unnest($4::text[], $5::timestamptz[], $6::text[]) WITH ORDINALITY AS given (kind, at, data, place);

-- name: count_build_lines
-- How many lines of the build under way on a worker are stored: those since it last said that one had ended.
SELECT count(*) FROM events
WHERE org = $1 AND stream = $2 AND kind = 'deployment.build_log'
    AND data ->> 'worker' = $3 AND data ->> 'environment' = $4
    AND index > coalesce((
        SELECT max(index) FROM events
        WHERE org = $1 AND stream = $2 AND kind IN ('deployment.built', 'deployment.build_failed')
            AND data ->> 'worker' = $3 AND data ->> 'environment' = $4
    ), -1);

-- name: list_events
-- A page ends with the event that exceeds $6 bytes, so a reader holds little however long the lines are (G5.7).
SELECT index, kind, at, data FROM (
    SELECT page.*, coalesce(sum(octet_length(data::text)) OVER (
        ORDER BY index ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), 0) AS bytes_before
    FROM (
        SELECT index, kind, at, data FROM events
        WHERE org = $1 AND stream = $2 AND index > $3 AND index <= $4
        ORDER BY index LIMIT $5
    ) AS page
) AS page
WHERE bytes_before < $6 ORDER BY index;

-- name: list_items
-- Segments that end after $3, in order, up to about $4 bytes; the first in any case. Few rows are looked at for it.
SELECT part.first_index, part.attempt, part.first_ordinal, part.last_index, part.at, part.encoding, part.python,
    part.data, part.blob
FROM (
    SELECT last_index, sum(size_bytes) OVER (ORDER BY last_index) - size_bytes AS before_bytes
    FROM (
        SELECT last_index, size_bytes FROM item_segments
        WHERE org = $1 AND stream = $2 AND last_index > $3 AND first_index <= $5
        ORDER BY last_index LIMIT $6
    ) AS near
) AS chosen
    JOIN item_segments AS part ON part.org = $1 AND part.stream = $2 AND part.last_index = chosen.last_index
WHERE chosen.before_bytes < $4
ORDER BY part.last_index;

-- name: get_next_ordinal
-- One more than the greatest ordinal among the items up to an index; null without any.
SELECT max(first_ordinal + least(last_index, $3) - first_index + 1) AS next_ordinal FROM item_segments
WHERE org = $1 AND stream = $2 AND first_index <= $3;

-- name: get_job_and_index
SELECT id, org, app, deployment, function, status, attempt, fence, losses, worker, term, run_at, error, created_by,
    created_at, started_at, finished_at, retry_of, parent, depth, waited_fence, next_index - 1 AS newest,
    result AS data, result_blob AS blob, result_encoding AS encoding, result_python AS python
FROM jobs WHERE org = $1 AND id = $2;

-- name: list_long_streams
-- Of all orgs: unfinished jobs whose stream, without its items, is longer than $1.
SELECT id, org,
    CASE WHEN item_count = 0 THEN next_index - $1::bigint
        ELSE 1 + (SELECT index FROM events WHERE stream = jobs.id ORDER BY index DESC OFFSET $1 LIMIT 1)
    END AS first_index
FROM jobs
WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out') AND next_index - item_count > $1 AND id > $2
ORDER BY id LIMIT $3;

-- name: list_old_streams
-- Of all orgs: jobs that ended before $1 and whose stream was not trimmed to its end yet.
SELECT jobs.id, jobs.org, jobs.next_index AS first_index
FROM jobs LEFT JOIN stream_floors AS floor ON floor.stream = jobs.id
WHERE jobs.finished_at < $1 AND coalesce(floor.first_index, 0) < jobs.next_index AND jobs.id > $2
ORDER BY jobs.id LIMIT $3;

-- name: list_growing_streams
-- Of all orgs: unfinished jobs that have enough events to be too large.
SELECT jobs.id, jobs.org, jobs.next_index, coalesce(floor.first_index, 0) AS first_index
FROM jobs LEFT JOIN stream_floors AS floor ON floor.stream = jobs.id
WHERE jobs.status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out')
    AND jobs.next_index - coalesce(floor.first_index, 0) > $1 AND jobs.id > $2
ORDER BY jobs.id LIMIT $3;

-- name: get_heavy_floor
-- The index behind the newest event that no longer fits into $4 bytes; null when all fit.
SELECT max(index) + 1 AS first_index FROM (
    SELECT index, sum(octet_length(data::text)) OVER (ORDER BY index DESC) AS bytes FROM events
    WHERE stream = $1 AND org = $2 AND index >= $3 AND kind <> 'job.stream_item'
) AS weighed WHERE bytes > $4;

-- name: list_heavy_items
-- Of all orgs: jobs whose kept items have more than $1 bytes; few lie in the index.
SELECT jobs.id, jobs.org, jobs.item_bytes - coalesce(floor.item_bytes_gone, 0) AS size_bytes
FROM jobs LEFT JOIN stream_floors AS floor ON floor.stream = jobs.id
WHERE jobs.yielded_much AND jobs.item_bytes - coalesce(floor.item_bytes_gone, 0) > $1 AND jobs.id > $2
ORDER BY jobs.id LIMIT $3;

-- name: rotate_items
-- Deletes the oldest segments that hold $3 bytes, at most $4 segments, and raises the floor behind them.
WITH weighed AS (
    SELECT last_index, sum(size_bytes) OVER (ORDER BY last_index) - size_bytes AS before_bytes
    FROM (
        SELECT last_index, size_bytes FROM item_segments
        WHERE org = $2 AND stream = $1 ORDER BY last_index LIMIT $4
    ) AS oldest
),
gone AS (
    DELETE FROM item_segments AS part USING weighed
    WHERE part.org = $2 AND part.stream = $1 AND part.last_index = weighed.last_index AND weighed.before_bytes < $3
    RETURNING part.last_index, part.size_bytes
),
raised AS (
    INSERT INTO stream_floors (stream, org, first_index, first_item, item_bytes_gone)
    SELECT $1, $2, 0, max(last_index) + 1, sum(size_bytes) FROM gone HAVING count(*) > 0
    ON CONFLICT (stream) DO UPDATE SET
        first_item = greatest(stream_floors.first_item, excluded.first_item),
        item_bytes_gone = stream_floors.item_bytes_gone + excluded.item_bytes_gone
)
SELECT coalesce(sum(size_bytes), 0) AS size_bytes FROM gone;

-- name: list_long_others
-- Of all orgs: streams of apps and deployments that are longer than $1.
SELECT stream AS id, org, next_index - $1::bigint AS first_index FROM streams
WHERE next_index - first_index > $1 AND stream > $2
ORDER BY stream LIMIT $3;

-- name: list_old_others
-- Of all orgs: streams of deployments that ended before $1 and were not trimmed to their end yet.
SELECT stream AS id, org, next_index AS first_index FROM streams
WHERE ended_at < $1 AND first_index < next_index AND stream > $2
ORDER BY stream LIMIT $3;

-- name: raise_floor_of_other
UPDATE streams SET first_index = greatest(first_index, $3) WHERE stream = $1 AND org = $2;

-- name: raise_floor
INSERT INTO stream_floors (stream, org, first_index) VALUES ($1, $2, $3)
ON CONFLICT (stream) DO UPDATE SET first_index = greatest(stream_floors.first_index, excluded.first_index);

-- name: trim_events
-- Results, errors and ends stay as long as their job; items of generators lie in segments and have rules of their own.
DELETE FROM events
WHERE stream = $1 AND org = $2 AND index < $3
    AND kind NOT IN ('job.result', 'job.error', 'job.end', 'deployment.end');
