-- Schedules and their ticks. A job and its tick are inserted in one transaction, the job by `insert_jobs` of `writer.sql`.

-- name: list_schedules
SELECT schedule.id, schedule.org, schedule.app, schedule.function, app.name AS app_name, function.name AS function_name,
    schedule.deployment, schedule.created_by, schedule.spec, schedule.anchor, schedule.next_due, schedule.fire_at,
    schedule.waiting_due, schedule.jobs, schedule.revision, schedule.created_at, schedule.paused_at, schedule.ended_at
FROM schedules AS schedule
    JOIN apps AS app ON app.id = schedule.app AND app.org = schedule.org
    JOIN functions AS function ON function.id = schedule.function AND function.org = schedule.org
WHERE schedule.org = $1 AND schedule.id > $2 AND schedule.ended_at IS NULL AND ($3::text IS NULL OR app.name = $3)
ORDER BY schedule.id LIMIT $4;

-- name: get_schedule
SELECT schedule.id, schedule.org, schedule.app, schedule.function, app.name AS app_name, function.name AS function_name,
    schedule.deployment, schedule.created_by, schedule.spec, schedule.anchor, schedule.next_due, schedule.fire_at,
    schedule.waiting_due, schedule.jobs, schedule.revision, schedule.created_at, schedule.paused_at, schedule.ended_at
FROM schedules AS schedule
    JOIN apps AS app ON app.id = schedule.app AND app.org = schedule.org
    JOIN functions AS function ON function.id = schedule.function AND function.org = schedule.org
WHERE schedule.org = $1 AND schedule.id = $2;

-- name: lock_schedules
-- Ids of an app's schedules, which nobody changes until the transaction ends.
SELECT id FROM schedules WHERE org = $1 AND app = $2 ORDER BY id FOR UPDATE;

-- name: add_schedule
INSERT INTO schedules (
    id, org, app, function, deployment, created_by, spec, anchor, next_due, fire_at, created_at
) VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11);

-- name: set_schedule
-- Nothing happens unless the row is as it was read.
UPDATE schedules SET
    deployment = $4, created_by = $5, spec = $6::jsonb, anchor = $7, next_due = $8, fire_at = $9, waiting_due = $10,
    jobs = $11, paused_at = $12, ended_at = $13, revision = revision + 1
WHERE org = $1 AND id = $2 AND revision = $3
RETURNING id;

-- name: list_due
-- Of all orgs: those to be looked at.
SELECT id, org FROM schedules WHERE fire_at <= $1
UNION
SELECT id, org FROM schedules WHERE waiting_due IS NOT NULL
LIMIT $2;

-- name: next_fire
-- Of all orgs.
SELECT min(fire_at) FROM schedules WHERE fire_at IS NOT NULL;

-- name: add_tick
INSERT INTO ticks (job, org, schedule, due) VALUES ($1, $2, $3, $4)
ON CONFLICT ON CONSTRAINT tick_is_unique DO NOTHING RETURNING job;

-- name: get_tick
SELECT schedule, due FROM ticks WHERE org = $1 AND job = $2;

-- name: list_runs
-- The newest jobs of a schedule.
SELECT tick.job, tick.due, job.status, job.created_at
FROM ticks AS tick JOIN jobs AS job ON job.id = tick.job AND job.org = tick.org
WHERE tick.org = $1 AND tick.schedule = $2
ORDER BY tick.job DESC LIMIT $3;

-- name: list_unended
SELECT id FROM jobs WHERE org = $1 AND id = ANY ($2::text[]) AND finished_at IS NULL ORDER BY id;
