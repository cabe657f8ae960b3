-- Which archives an org has uploaded. The bytes are in the blob store.

-- name: archive_size
SELECT size_bytes FROM archives WHERE org = $1 AND sha256 = $2;

-- name: add_archive
INSERT INTO archives (org, sha256, size_bytes, created_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (org, sha256) DO NOTHING RETURNING sha256;
