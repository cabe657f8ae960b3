-- What a request with an idempotency key did (G6.1), written in the commit of its effect: the job it made, or its answer.

CREATE TABLE idempotency_keys (
    org          text COLLATE "C" NOT NULL,
    digest       bytea NOT NULL,           -- SHA-256 of method, route and key
    fingerprint  bytea NOT NULL,           -- SHA-256 of what was asked for
    job          text COLLATE "C",
    status       smallint,
    body         bytea,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (org, digest),
    CONSTRAINT idempotency_key_tells_one_thing CHECK (
        (job IS NULL) = (status IS NOT NULL) AND (status IS NULL) = (body IS NULL)
    )
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_only ON idempotency_keys TO apothic_request USING (org = current_setting('apothic.org', true));
GRANT SELECT, INSERT ON idempotency_keys TO apothic_request;
