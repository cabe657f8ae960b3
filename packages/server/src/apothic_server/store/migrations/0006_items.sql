-- Items that generators yield, packed: a row holds neighbouring items of one attempt, which have neighbouring indexes of
-- the job's stream. The columns of `jobs` say how far the items are, so that none is appended twice.

ALTER TABLE jobs
    ADD COLUMN item_attempt integer NOT NULL DEFAULT 0,     -- newest attempt that published an item
    ADD COLUMN next_ordinal bigint NOT NULL DEFAULT 0,      -- of that attempt
    ADD COLUMN item_count bigint NOT NULL DEFAULT 0;        -- of all attempts, what was rotated away included

ALTER TABLE stream_floors ADD COLUMN first_item bigint NOT NULL DEFAULT 0;  -- oldest index whose item is kept
ALTER TABLE stream_floors DROP CONSTRAINT stream_floors_first_index_check;
ALTER TABLE stream_floors ADD CHECK (first_index >= 0);

CREATE TABLE item_segments (
    stream         text COLLATE "C" NOT NULL REFERENCES jobs ON DELETE CASCADE,
    first_index    bigint NOT NULL,
    last_index     bigint NOT NULL CHECK (last_index >= first_index),
    org            text COLLATE "C" NOT NULL,
    attempt        integer NOT NULL,
    first_ordinal  bigint NOT NULL,
    at             timestamptz NOT NULL,
    encoding       text NOT NULL,
    python         text,
    size_bytes     integer NOT NULL,
    data           bytea,                       -- inline, or ...
    blob           text COLLATE "C",            -- ... in the blob store, by SHA-256
    flush          bigint,
    PRIMARY KEY (stream, last_index),
    CHECK ((data IS NULL) <> (blob IS NULL))
);
-- Packed and often hard to compress; the time is better spent on the next batch.
ALTER TABLE item_segments ALTER COLUMN data SET STORAGE EXTERNAL;

ALTER TABLE item_segments ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_only ON item_segments TO apothic_request USING (org = current_setting('apothic.org', true));
GRANT SELECT ON item_segments TO apothic_request;
