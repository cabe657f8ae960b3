-- Values that were uploaded before the call or the result that names them. Their bytes are files; a row comes before the
-- file and goes after it. Jobs name them in their arguments and results, as `sha256 size`, with the encoding `large`.
CREATE TABLE large_values (
    org         text COLLATE "C" NOT NULL REFERENCES orgs,
    sha256      text COLLATE "C" NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes  bigint,                     -- none while it is uploaded
    used_at     timestamptz NOT NULL,
    PRIMARY KEY (org, sha256)
);
CREATE INDEX large_values_by_use ON large_values (used_at);
CREATE INDEX jobs_by_large_arguments ON jobs (org, arguments) WHERE arguments_encoding = 'large';
CREATE INDEX jobs_by_large_result ON jobs (org, result) WHERE result_encoding = 'large';

ALTER TABLE large_values ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_only ON large_values TO apothic_request USING (org = current_setting('apothic.org', true));
GRANT SELECT, INSERT, UPDATE ON large_values TO apothic_request;
