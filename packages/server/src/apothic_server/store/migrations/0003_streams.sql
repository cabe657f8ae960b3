-- Event streams of apps and deployments. The stream of a job keeps its bounds in the job's own row; every other stream
-- has them here. Who appends holds the row until the commit, so commits become readable in index order.

CREATE TABLE streams (
    stream       text COLLATE "C" PRIMARY KEY,
    org          text COLLATE "C" NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('app', 'deployment')),
    next_index   bigint NOT NULL,
    first_index  bigint NOT NULL DEFAULT 0,          -- the oldest event kept
    ended_at     timestamptz,
    CHECK (first_index >= 0 AND first_index <= next_index)
);
CREATE INDEX streams_ended ON streams (ended_at) WHERE ended_at IS NOT NULL;
ALTER TABLE streams ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_only ON streams TO apothic_request USING (org = current_setting('apothic.org', true));
GRANT SELECT, INSERT, UPDATE ON streams TO apothic_request;

-- What was deployed before has a stream without a past.
INSERT INTO streams (stream, org, kind, next_index) SELECT id, org, 'app', 0 FROM apps;
INSERT INTO streams (stream, org, kind, next_index) SELECT id, org, 'deployment', 0 FROM deployments;
