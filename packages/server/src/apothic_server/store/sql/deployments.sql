-- Deployments that exist: list, stop, delete, and what the dispatcher does with their jobs afterwards.

-- name: list_deployments
SELECT deployment.id, app.name AS app_name, deployment.version, deployment.status,
    deployment.created_at, deployment.stopped_at, deployment.restored_from
FROM deployments AS deployment JOIN apps AS app ON app.id = deployment.app AND app.org = deployment.org
WHERE deployment.org = $1 AND deployment.id < $2 AND deployment.status <> 'deleted'
ORDER BY deployment.id DESC LIMIT $3;

-- name: list_versions
-- As `list_deployments`, of one app. Deploys at the same time get their versions in another order than their ids.
SELECT deployment.id, app.name AS app_name, deployment.version, deployment.status,
    deployment.created_at, deployment.stopped_at, deployment.restored_from
FROM deployments AS deployment JOIN apps AS app ON app.id = deployment.app AND app.org = deployment.org
WHERE deployment.org = $1 AND app.name = $4 AND deployment.status <> 'deleted'
    AND ($2 = '~' OR deployment.version < (SELECT version FROM deployments WHERE org = $1 AND id = $2))
ORDER BY deployment.version DESC LIMIT $3;

-- name: lock_app
-- As a deploy does, so that stops, deletes and deploys of one app follow each other.
SELECT app.id FROM apps AS app JOIN deployments AS deployment ON deployment.app = app.id AND deployment.org = app.org
WHERE deployment.org = $1 AND deployment.id = $2 FOR UPDATE OF app;

-- name: stop
UPDATE deployments SET status = 'stopped', stopped_at = $3 WHERE org = $1 AND id = $2;

-- name: delete
UPDATE deployments SET status = 'deleted', stopped_at = coalesce(stopped_at, $3), deleted_at = $3
WHERE org = $1 AND id = $2;

-- name: deactivate
UPDATE apps SET active_deployment = NULL WHERE org = $1 AND active_deployment = $2;

-- name: drain
-- `cancel` stays once it was asked for.
UPDATE deployments SET drain = CASE WHEN drain = 'cancel' THEN 'cancel' ELSE $3 END WHERE org = $1 AND id = $2;

-- name: count_unfinished
SELECT count(*) FROM jobs
WHERE org = $1 AND deployment = $2 AND status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out');

-- name: list_needed
SELECT manifest FROM deployments AS deployment
WHERE org = $1 AND (status = 'active' OR EXISTS (
    SELECT FROM jobs
    WHERE jobs.org = $1 AND jobs.deployment = deployment.id
        AND jobs.status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out')
) OR EXISTS (
    SELECT FROM groups WHERE groups.org = $1 AND groups.deployment = deployment.id AND groups.finished_at IS NULL
));

-- name: list_draining
-- Of all orgs, for the dispatcher.
SELECT id, status, drain FROM deployments WHERE drain IS NOT NULL ORDER BY id;

-- name: end_drain
-- Of all orgs, for the dispatcher.
UPDATE deployments SET drain = NULL
WHERE id = $1 AND drain IS NOT NULL AND NOT EXISTS (
    SELECT FROM jobs
    WHERE jobs.deployment = $1 AND jobs.status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out')
);
