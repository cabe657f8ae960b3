-- Apps, deployments and functions.

-- name: list_apps
SELECT app.id, app.org, app.name, app.active_deployment AS active, app.created_at, active.version,
    coalesce((
        SELECT array_agg(spec ->> 'name' ORDER BY spec ->> 'name')
        FROM jsonb_array_elements(active.manifest -> 'functions') AS spec
    ), '{}') AS functions
FROM apps AS app LEFT JOIN deployments AS active ON active.id = app.active_deployment AND active.org = app.org
WHERE app.org = $1 AND app.id > $2
ORDER BY app.id LIMIT $3;

-- name: get_app
SELECT app.id, app.org, app.name, app.active_deployment AS active, app.created_at, active.version,
    coalesce((
        SELECT array_agg(spec ->> 'name' ORDER BY spec ->> 'name')
        FROM jsonb_array_elements(active.manifest -> 'functions') AS spec
    ), '{}') AS functions
FROM apps AS app LEFT JOIN deployments AS active ON active.id = app.active_deployment AND active.org = app.org
WHERE app.org = $1 AND app.name = $2;

-- name: get_app_by_id
SELECT app.id, app.org, app.name, app.active_deployment AS active, app.created_at, active.version,
    coalesce((
        SELECT array_agg(spec ->> 'name' ORDER BY spec ->> 'name')
        FROM jsonb_array_elements(active.manifest -> 'functions') AS spec
    ), '{}') AS functions
FROM apps AS app LEFT JOIN deployments AS active ON active.id = app.active_deployment AND active.org = app.org
WHERE app.org = $1 AND app.id = $2;

-- name: is_active
SELECT EXISTS (SELECT FROM apps WHERE org = $1 AND id = $2 AND active_deployment = $3);

-- name: list_app_names
SELECT name FROM apps WHERE org = $1 AND active_deployment IS NOT NULL ORDER BY name LIMIT $2;

-- name: get_deployment
SELECT deployment.id, deployment.org, deployment.app, app.name AS app_name, deployment.version, deployment.status,
    deployment.archive, deployment.manifest, deployment.created_by, deployment.created_at,
    deployment.stopped_at, deployment.deleted_at, deployment.restored_from
FROM deployments AS deployment JOIN apps AS app ON app.id = deployment.app AND app.org = deployment.org
WHERE deployment.org = $1 AND deployment.id = $2;

-- name: list_function_ids
SELECT name, id FROM functions WHERE org = $1 AND app = $2;

-- name: get_function
SELECT function.id, function.org, function.app, app.name AS app_name, deployment.id AS deployment,
    deployment.archive, deployment.manifest ->> 'module' AS module,
    deployment.manifest ->> 'app_variable' AS app_variable, deployment.manifest ->> 'python' AS python,
    jsonb_path_query_first(
        deployment.manifest, '$.functions[*] ? (@.name == $name)', jsonb_build_object('name', function.name)
    ) AS spec
FROM functions AS function
    JOIN apps AS app ON app.id = function.app AND app.org = function.org
    JOIN deployments AS deployment ON deployment.id = app.active_deployment AND deployment.org = function.org
WHERE function.org = $1 AND function.id = $2;

-- name: get_stopped_app
SELECT app.name
FROM functions AS function JOIN apps AS app ON app.id = function.app AND app.org = function.org
WHERE function.org = $1 AND function.id = $2 AND app.active_deployment IS NULL;

-- name: find_function
SELECT function.id, function.org, function.app, app.name AS app_name, deployment.id AS deployment,
    deployment.archive, deployment.manifest ->> 'module' AS module,
    deployment.manifest ->> 'app_variable' AS app_variable, deployment.manifest ->> 'python' AS python,
    jsonb_path_query_first(
        deployment.manifest, '$.functions[*] ? (@.name == $name)', jsonb_build_object('name', function.name)
    ) AS spec
FROM apps AS app
    JOIN functions AS function ON function.app = app.id AND function.org = app.org
    JOIN deployments AS deployment ON deployment.id = app.active_deployment AND deployment.org = app.org
WHERE app.org = $1 AND app.name = $2 AND function.name = $3;

-- name: list_function_names
SELECT array(
    SELECT spec ->> 'name' FROM jsonb_array_elements(deployment.manifest -> 'functions') AS spec ORDER BY 1
) AS names
FROM apps AS app JOIN deployments AS deployment ON deployment.id = app.active_deployment AND deployment.org = app.org
WHERE app.org = $1 AND app.name = $2;

-- name: add_app
INSERT INTO apps (id, org, name, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (org, name) DO NOTHING;

-- name: count_version
-- Locks the app until the deploy commits, so that two deploys of one app get their versions one after the other.
UPDATE apps SET versions = versions + 1 WHERE org = $1 AND name = $2 RETURNING id, versions;

-- name: supersede
UPDATE deployments SET status = 'superseded' WHERE org = $1 AND app = $2 AND status = 'active' RETURNING id;

-- name: add_deployment
INSERT INTO deployments (id, org, app, version, status, archive, manifest, created_by, created_at, restored_from)
VALUES ($1, $2, $3, $4, 'active', $5, $6::jsonb, $7, $8, $9);

-- name: lock_app_by_name
-- As a deploy does, so that who looks at the active deployment decides before anybody changes it.
SELECT id, active_deployment AS active FROM apps WHERE org = $1 AND name = $2 FOR UPDATE;

-- name: get_version
SELECT id FROM deployments WHERE org = $1 AND app = $2 AND version = $3 AND status <> 'deleted';

-- name: get_version_before
SELECT id FROM deployments WHERE org = $1 AND app = $2 AND version < $3 AND status <> 'deleted'
ORDER BY version DESC LIMIT 1;

-- name: add_functions
INSERT INTO functions (id, org, app, name, created_at)
SELECT given.id, $1, $2, given.name, $5 FROM unnest($3::text[], $4::text[]) AS given (id, name)
ON CONFLICT (app, name) DO NOTHING;

-- name: activate
UPDATE apps SET active_deployment = $3 WHERE org = $1 AND id = $2;
