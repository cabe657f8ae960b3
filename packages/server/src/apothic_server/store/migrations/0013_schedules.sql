-- Schedules, one for a function at most, and the ticks that made jobs (G10).

CREATE TABLE schedules (
    id           text COLLATE "C" PRIMARY KEY,
    org          text COLLATE "C" NOT NULL REFERENCES orgs,
    app          text COLLATE "C" NOT NULL REFERENCES apps,
    function     text COLLATE "C" NOT NULL UNIQUE REFERENCES functions,
    deployment   text COLLATE "C" NOT NULL REFERENCES deployments,
    created_by   text COLLATE "C" NOT NULL,       -- key of that deployment
    spec         jsonb NOT NULL,
    anchor       timestamptz NOT NULL,            -- what a period counts from
    next_due     timestamptz,                     -- first tick that nothing was decided about
    fire_at      timestamptz,                     -- when to look at it; null while it is paused or ended
    waiting_due  timestamptz,                     -- a tick that waits for the end of an earlier run
    jobs         text[] NOT NULL DEFAULT '{}',    -- its jobs that had not ended when it was looked at last
    revision     bigint NOT NULL DEFAULT 0,       -- a write names the one it has read
    created_at   timestamptz NOT NULL,
    paused_at    timestamptz,
    ended_at     timestamptz,
    CONSTRAINT schedule_at_rest_fires_not CHECK (
        paused_at IS NULL AND ended_at IS NULL OR fire_at IS NULL AND waiting_due IS NULL
    )
);
CREATE INDEX schedules_due ON schedules (fire_at) WHERE fire_at IS NOT NULL;
CREATE INDEX schedules_waiting ON schedules (id) WHERE waiting_due IS NOT NULL;
CREATE INDEX schedules_by_org ON schedules (org, id);
CREATE INDEX schedules_by_app ON schedules (app);

-- What made a job: the tick of a due time, at most one job for each (G10.1), or somebody's order, without a due time.
CREATE TABLE ticks (
    job       text COLLATE "C" PRIMARY KEY,
    org       text COLLATE "C" NOT NULL REFERENCES orgs,
    schedule  text COLLATE "C" NOT NULL REFERENCES schedules,
    due       timestamptz,
    CONSTRAINT tick_is_unique UNIQUE (schedule, due)
);
CREATE INDEX ticks_newest ON ticks (schedule, job);

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['schedules', 'ticks'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY org_only ON %I TO apothic_request USING (org = current_setting(''apothic.org'', true))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO apothic_request', name);
    END LOOP;
END
$$;
