-- Items of groups that somebody asked to cancel: what is executed in a chunk has no row of its own that could say so.

CREATE TABLE group_cancels (
    group_id    text COLLATE "C" NOT NULL REFERENCES groups ON DELETE CASCADE,
    item        integer NOT NULL,
    org         text COLLATE "C" NOT NULL,
    is_taken    boolean NOT NULL DEFAULT false,     -- the dispatcher has it in memory
    PRIMARY KEY (group_id, item)
);
CREATE INDEX group_cancels_new ON group_cancels (group_id) WHERE NOT is_taken;

ALTER TABLE group_cancels ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_only ON group_cancels TO apothic_request USING (org = current_setting('apothic.org', true));
GRANT SELECT, INSERT ON group_cancels TO apothic_request;
