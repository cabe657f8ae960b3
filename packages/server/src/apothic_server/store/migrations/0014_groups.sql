-- Groups: what one `map` makes. The inputs lie in segments; a row in `jobs` covers consecutive items once they are about to
-- be executed. No row covers an item that was not cut yet, so nothing else has to be remembered of how far a group is.

CREATE TABLE groups (
    id              text COLLATE "C" PRIMARY KEY,
    org             text COLLATE "C" NOT NULL REFERENCES orgs,
    app             text COLLATE "C" NOT NULL REFERENCES apps,
    deployment      text COLLATE "C" NOT NULL REFERENCES deployments,
    function        text COLLATE "C" NOT NULL REFERENCES functions,
    status          text NOT NULL CHECK (status IN ('running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    spread          boolean NOT NULL,                -- each item holds all positional arguments of its call
    key             text,                            -- under which a client finds it again
    stop_after      integer CHECK (stop_after >= 1), -- cancelled after so many failed items
    uploaded        integer NOT NULL DEFAULT 0,      -- items whose inputs are stored
    uploaded_bytes  bigint NOT NULL DEFAULT 0,
    total           integer,                         -- set when the client has sent all
    counts          jsonb,                           -- items by status, once it has ended
    error           jsonb,
    created_by      text COLLATE "C" NOT NULL,
    parent          text COLLATE "C",                -- the job whose user code made it
    depth           integer NOT NULL DEFAULT 0 CHECK (depth BETWEEN 0 AND 32),
    created_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    UNIQUE (org, function, key),
    CONSTRAINT group_total_is_uploaded CHECK (total = uploaded),
    CONSTRAINT group_finished_at_fits_status CHECK (
        (finished_at IS NOT NULL) = (status IN ('succeeded', 'failed', 'cancelled'))
        AND (counts IS NOT NULL) = (finished_at IS NOT NULL)
    )
);
CREATE INDEX groups_unfinished ON groups (id) WHERE finished_at IS NULL;
CREATE INDEX groups_by_org ON groups (org, id);

-- Packed inputs of `count` items (`apothic.wire.chunks`), as the client sent them; never changed.
CREATE TABLE group_inputs (
    group_id    text COLLATE "C" NOT NULL REFERENCES groups ON DELETE CASCADE,
    first       integer NOT NULL,
    count       integer NOT NULL CHECK (count >= 1),
    org         text COLLATE "C" NOT NULL,
    python      text,
    size_bytes  integer NOT NULL,
    data        bytea,                               -- inline, or ...
    blob        text COLLATE "C",                    -- ... in the blob store, by SHA-256
    PRIMARY KEY (group_id, first),
    CHECK ((data IS NULL) <> (blob IS NULL))
);
ALTER TABLE group_inputs ALTER COLUMN data SET STORAGE EXTERNAL;

-- A row with `group_id` is an item's own (`chunk_items` is null, its id is that of the item), or a chunk of several.
-- What became of an item: its own row tells; without one the entry of its chunk; without an entry the chunk's status.
ALTER TABLE jobs
    ADD COLUMN group_id text COLLATE "C",
    ADD COLUMN first_item integer,
    ADD COLUMN chunk_items integer,     -- items that a chunk covers; fewer than it was given when some went back
    ADD COLUMN chunk_done integer,      -- how many of them, from the first on, have an entry in its result
    ADD COLUMN failed_items integer[],  -- offsets of entries that tell of a failure
    ADD COLUMN overlays text,           -- of an own row whose item has an entry, too: that entry's letter, S or F
    ADD COLUMN flush bigint,            -- that wrote the row of a chunk last: such a row has no events
    ADD CONSTRAINT job_of_group_is_whole CHECK (
        (group_id IS NULL) = (first_item IS NULL)
        AND (chunk_items IS NULL OR first_item IS NOT NULL AND overlays IS NULL)
        AND (chunk_items IS NOT NULL OR chunk_done IS NULL AND failed_items IS NULL AND flush IS NULL)
        AND chunk_done <= chunk_items
    );
CREATE INDEX jobs_by_group ON jobs (group_id, first_item) WHERE group_id IS NOT NULL;

ALTER TABLE streams DROP CONSTRAINT streams_kind_check;
ALTER TABLE streams ADD CONSTRAINT streams_kind_check CHECK (kind IN ('app', 'deployment', 'group'));

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['groups', 'group_inputs'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY org_only ON %I TO apothic_request USING (org = current_setting(''apothic.org'', true))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO apothic_request', name);
    END LOOP;
END
$$;
