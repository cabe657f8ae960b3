-- Statements of the batching writer. `rows.py` makes the documents they read.
--
-- Their plans are made once per connection (`plan_cache_mode = force_generic_plan`, `enable_seqscan = off`), often while
-- the table is still empty, and must stay good at any size. `= ANY (ARRAY[…])` is an equality that no hash or merge join
-- can use: what is left is one probe of the primary key per given row, in the given order. That order is sorted by key,
-- so two writers lock rows in the same order and never wait in a circle.
--
-- `flush` marks the events of one flush; `find_flush` reads it when an answer was lost.

-- name: insert_jobs
WITH dispatch AS (
    -- Shared until the commit, so that a change of the dispatcher falls before or after this flush, never into it (D4).
    SELECT term FROM dispatcher FOR SHARE
),
fresh AS MATERIALIZED (
    SELECT given.*
    FROM ROWS FROM (
        jsonb_to_recordset($1::jsonb) AS (
            id text, org text, app text, deployment text, function text, status text, path text,
            attempt int, fence bigint, losses int, worker text, term bigint, run_at timestamptz,
            arguments_blob text, arguments_encoding text, arguments_python text,
            result_blob text, result_encoding text, result_python text, error jsonb,
            created_by text, created_at timestamptz, started_at timestamptz, finished_at timestamptz, retry_of text,
            parent text, depth int, waited_fence bigint,
            group_id text, first_item int, chunk_items int, chunk_done int, failed_items int[], overlays text,
            guard_term bigint, event_count int, events jsonb,
            key_digest bytea, key_fingerprint bytea
        ),
        unnest($2::bytea[]), unnest($3::bytea[])
    ) AS given (
        id, org, app, deployment, function, status, path,
        attempt, fence, losses, worker, term, run_at,
        arguments_blob, arguments_encoding, arguments_python,
        result_blob, result_encoding, result_python, error,
        created_by, created_at, started_at, finished_at, retry_of,
        parent, depth, waited_fence,
        group_id, first_item, chunk_items, chunk_done, failed_items, overlays,
        guard_term, event_count, events, key_digest, key_fingerprint,
        arguments, result
    )
    WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = ANY (ARRAY[given.id]))
      AND (given.guard_term IS NULL OR given.guard_term = (SELECT term FROM dispatch))
      AND (given.key_digest IS NULL OR NOT EXISTS (
          SELECT FROM idempotency_keys AS held
          WHERE held.org = ANY (ARRAY[given.org]) AND held.digest = ANY (ARRAY[given.key_digest])
      ))
),
made AS (
    INSERT INTO jobs (
        id, org, app, deployment, function, status, path, attempt, fence, losses, worker, term, run_at,
        arguments, arguments_blob, arguments_encoding, arguments_python,
        result, result_blob, result_encoding, result_python, error,
        next_index, created_by, created_at, started_at, finished_at, retry_of, parent, depth, waited_fence,
        group_id, first_item, chunk_items, chunk_done, failed_items, overlays, flush
    )
    SELECT
        id, org, app, deployment, function, status, path, coalesce(attempt, 0), coalesce(fence, 0), coalesce(losses, 0),
        worker, term, coalesce(run_at, created_at),
        arguments, arguments_blob, arguments_encoding, arguments_python,
        result, result_blob, result_encoding, result_python, error,
        event_count, created_by, created_at, started_at, finished_at, retry_of, parent, coalesce(depth, 0), waited_fence,
        group_id, first_item, chunk_items, chunk_done, failed_items, overlays,
        CASE WHEN chunk_items IS NOT NULL THEN $4::bigint END
    FROM fresh
),
kept AS (
    -- The key of a call is taken in the commit of its job, so that there is no call that is made and not recorded (G6.1).
    INSERT INTO idempotency_keys (org, digest, fingerprint, job, created_at)
    SELECT org, key_digest, key_fingerprint, id, created_at FROM fresh WHERE key_digest IS NOT NULL
),
noted AS (
    INSERT INTO events (stream, index, org, kind, at, data, flush)
    SELECT
        fresh.id, event.place - 1, fresh.org,
        event.value ->> 'kind', (event.value ->> 'at')::timestamptz, event.value -> 'data', $4::bigint
    FROM fresh, jsonb_array_elements(fresh.events) WITH ORDINALITY AS event (value, place)
)
SELECT id FROM fresh;

-- name: insert_job
-- One new job, without the columns that few have: the same as `insert_jobs` with a document of one row.
WITH fresh AS MATERIALIZED (
    SELECT
    WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = $1)
      AND ($23::bigint IS NULL OR $23 = (SELECT term FROM dispatcher FOR SHARE))
      AND ($24::text IS NULL OR NOT EXISTS (
          SELECT FROM idempotency_keys AS held WHERE held.org = $2 AND held.digest = $24::bytea
      ))
),
kept AS (
    INSERT INTO idempotency_keys (org, digest, fingerprint, job, created_at)
    SELECT $2, $24::bytea, $25::text::bytea, $1, $20 FROM fresh WHERE $24 IS NOT NULL
),
noted AS (
    INSERT INTO events (stream, index, org, kind, at, data, flush)
    SELECT $1, event.place - 1, $2, event.kind, event.at, event.data, $29::bigint
    FROM fresh, unnest($26::text[], $27::timestamptz[], $28::jsonb[]) WITH ORDINALITY AS event (kind, at, data, place)
)
INSERT INTO jobs (
    id, org, app, deployment, function, status, path, attempt, fence, worker, term,
    arguments, arguments_encoding, arguments_python, result, result_encoding, result_python,
    next_index, created_by, created_at, run_at, started_at, finished_at
)
SELECT
    $1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::int, $9::bigint, $10::text, $11::bigint,
    $12::bytea, $13::text, $14::text, $15::bytea, $16::text, $17::text,
    $18::int, $19::text, $20::timestamptz, $20, $21::timestamptz, $22::timestamptz
FROM fresh
RETURNING id;

-- name: change_jobs
WITH dispatch AS (
    SELECT term FROM dispatcher FOR SHARE
),
moved AS (
    UPDATE jobs SET
        status = coalesce(given.status, jobs.status),
        path = coalesce(given.path, jobs.path),
        attempt = coalesce(given.attempt, jobs.attempt),
        fence = coalesce(given.fence, jobs.fence),
        losses = coalesce(given.losses, jobs.losses),
        worker = coalesce(given.worker, jobs.worker),
        term = coalesce(given.term, jobs.term),
        run_at = coalesce(given.run_at, jobs.run_at),
        result = coalesce(given.result, jobs.result),
        result_blob = coalesce(given.result_blob, jobs.result_blob),
        result_encoding = coalesce(given.result_encoding, jobs.result_encoding),
        result_python = coalesce(given.result_python, jobs.result_python),
        error = coalesce(given.error, jobs.error),
        started_at = coalesce(given.started_at, jobs.started_at),
        finished_at = coalesce(given.finished_at, jobs.finished_at),
        chunk_items = coalesce(given.chunk_items, jobs.chunk_items),
        chunk_done = coalesce(given.chunk_done, jobs.chunk_done),
        failed_items = coalesce(given.failed_items, jobs.failed_items),
        flush = CASE WHEN jobs.chunk_items IS NOT NULL THEN $3::bigint END,
        next_index = jobs.next_index + given.event_count
    FROM ROWS FROM (
        jsonb_to_recordset($1::jsonb) AS (
            id text, org text, expect_status text, expect_fence bigint, status text, path text,
            attempt int, fence bigint, losses int, worker text, term bigint, run_at timestamptz,
            result_blob text, result_encoding text, result_python text, error jsonb,
            started_at timestamptz, finished_at timestamptz,
            chunk_items int, chunk_done int, failed_items int[], guard_term bigint, event_count int, events jsonb,
            key_digest bytea, key_fingerprint bytea, key_status smallint, key_body bytea, key_at timestamptz
        ),
        unnest($2::bytea[])
    ) AS given (
        id, org, expect_status, expect_fence, status, path,
        attempt, fence, losses, worker, term, run_at,
        result_blob, result_encoding, result_python, error,
        started_at, finished_at, chunk_items, chunk_done, failed_items, guard_term, event_count, events,
        key_digest, key_fingerprint, key_status, key_body, key_at,
        result
    )
    WHERE jobs.id = ANY (ARRAY[given.id])
      AND jobs.org = ANY (ARRAY[given.org])
      AND jobs.status = given.expect_status
      AND jobs.fence = given.expect_fence
      AND (given.guard_term IS NULL OR given.guard_term = (SELECT term FROM dispatch))
      AND (given.key_digest IS NULL OR NOT EXISTS (
          SELECT FROM idempotency_keys AS held
          WHERE held.org = ANY (ARRAY[given.org]) AND held.digest = ANY (ARRAY[given.key_digest])
      ))
    RETURNING jobs.id, jobs.org, jobs.next_index - given.event_count AS first_index, given.events,
        given.key_digest, given.key_fingerprint, given.key_status, given.key_body, given.key_at
),
kept AS (
    INSERT INTO idempotency_keys (org, digest, fingerprint, status, body, created_at)
    SELECT org, key_digest, key_fingerprint, key_status, key_body, key_at FROM moved WHERE key_digest IS NOT NULL
),
noted AS (
    INSERT INTO events (stream, index, org, kind, at, data, flush)
    SELECT
        moved.id, moved.first_index + event.place - 1, moved.org,
        event.value ->> 'kind', (event.value ->> 'at')::timestamptz, event.value -> 'data', $3::bigint
    FROM moved, jsonb_array_elements(moved.events) WITH ORDINALITY AS event (value, place)
)
SELECT id FROM moved;

-- name: append_items
-- $1: one row per job, sorted; $2 to $8: one entry per segment, whose first number is the place of its job in $1.
WITH moved AS (
    UPDATE jobs SET
        next_index = jobs.next_index + given.item_count,
        item_attempt = given.attempt,
        next_ordinal = given.first_ordinal + given.item_count,
        item_count = jobs.item_count + given.item_count,
        item_bytes = jobs.item_bytes + given.item_bytes
    FROM jsonb_to_recordset($1::jsonb) AS given (
        place int, id text, org text, expect_status text, expect_fence bigint, attempt int, first_ordinal bigint,
        item_count bigint, item_bytes bigint
    )
    WHERE jobs.id = ANY (ARRAY[given.id])
      AND jobs.org = ANY (ARRAY[given.org])
      AND jobs.status = given.expect_status
      AND jobs.fence = given.expect_fence
      AND given.first_ordinal = CASE WHEN jobs.item_attempt = given.attempt THEN jobs.next_ordinal ELSE 0 END
    RETURNING
        jobs.id, jobs.org, given.place, given.attempt,
        jobs.next_index - jobs.next_ordinal AS ordinal_to_index
),
noted AS (
    INSERT INTO item_segments (
        stream, first_index, last_index, org, attempt, first_ordinal, at, encoding, python, size_bytes, data, flush
    )
    SELECT
        moved.id, moved.ordinal_to_index + part.first_ordinal,
        moved.ordinal_to_index + part.first_ordinal + part.item_count - 1, moved.org, moved.attempt,
        part.first_ordinal, part.at, part.encoding, part.python, octet_length(part.data), part.data, $9::bigint
    FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::bytea[])
        AS part (place, first_ordinal, item_count, at, encoding, python, data)
        JOIN moved ON moved.place = part.place
)
SELECT id FROM moved;

-- name: find_flush
-- Which of the given jobs were written by a flush.
SELECT given.id
FROM unnest($1::text[], $2::text[]) AS given (id, org)
WHERE EXISTS (
    SELECT FROM events WHERE events.stream = given.id AND events.org = given.org AND events.flush = $3::bigint
)
OR EXISTS (
    SELECT FROM item_segments AS part
    WHERE part.stream = given.id AND part.org = given.org AND part.flush = $3::bigint
)
OR EXISTS (
    SELECT FROM jobs WHERE jobs.id = given.id AND jobs.org = given.org AND jobs.flush = $3::bigint
);

-- name: own_backend
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid();

-- name: end_backend
-- Ends a lost connection's server process and waits up to $3 milliseconds for it; no row when it is gone already.
SELECT pg_terminate_backend(pid, $3::bigint) AS is_gone FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2;
