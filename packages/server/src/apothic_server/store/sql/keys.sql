-- Orgs and API keys. `find_key` runs before the org is known, as the tables' owner; the digest names one key.

-- name: count_orgs
SELECT count(*) FROM orgs;

-- name: add_org
INSERT INTO orgs (org, slug, created_at) VALUES ($1, $2, $3);

-- name: get_org_slug
SELECT slug FROM orgs WHERE org = $1;

-- name: first_org
SELECT org FROM orgs ORDER BY created_at, org LIMIT 1;

-- name: add_key
INSERT INTO api_keys (id, org, kind, digest, name, prefix, last4, role, scopes, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: find_key
SELECT id, org, kind, name, prefix, last4, role, scopes, created_at, expires_at, revoked_at
FROM api_keys WHERE digest = $1;

-- name: get_key
SELECT id, org, kind, name, prefix, last4, role, scopes, created_at, expires_at, revoked_at
FROM api_keys WHERE org = $1 AND id = $2;

-- name: revoke_key
UPDATE api_keys SET revoked_at = $3 WHERE org = $1 AND id = $2 AND revoked_at IS NULL RETURNING id;
