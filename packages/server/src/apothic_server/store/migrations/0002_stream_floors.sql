-- The oldest event kept of a job's stream; no row means that nothing was trimmed. A table of its own, because an ended
-- job's row changes no more.

CREATE TABLE stream_floors (
    stream       text COLLATE "C" PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    org          text COLLATE "C" NOT NULL,
    first_index  bigint NOT NULL CHECK (first_index > 0)
);
ALTER TABLE stream_floors ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_only ON stream_floors TO apothic_request USING (org = current_setting('apothic.org', true));
GRANT SELECT ON stream_floors TO apothic_request;
