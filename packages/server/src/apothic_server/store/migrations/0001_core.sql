-- Core tables. Every row has an org (G16.1); the two that belong to the installation itself say so.
-- Row-level security is forced for the role of the request path; the batching writer and the loops run as the owner and
-- carry the org in every statement.

CREATE TABLE orgs (
    org         text COLLATE "C" PRIMARY KEY,
    slug        text NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL
);

CREATE TABLE api_keys (
    id            text COLLATE "C" PRIMARY KEY,
    org           text COLLATE "C" NOT NULL REFERENCES orgs,
    kind          text NOT NULL CHECK (kind IN ('lk', 'lw')),
    digest        bytea NOT NULL UNIQUE,          -- SHA-256 keyed with the server's pepper (G17.2)
    name          text NOT NULL,
    prefix        text NOT NULL,
    last4         text NOT NULL,
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer', 'billing', 'worker')),
    scopes        text[] NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    revoked_at    timestamptz
);
CREATE INDEX api_keys_org ON api_keys (org);

CREATE TABLE archives (
    org         text COLLATE "C" NOT NULL REFERENCES orgs,
    sha256      text COLLATE "C" NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes  bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (org, sha256)
);

CREATE TABLE apps (
    id                 text COLLATE "C" PRIMARY KEY,
    org                text COLLATE "C" NOT NULL REFERENCES orgs,
    name               text NOT NULL,
    active_deployment  text COLLATE "C",
    versions           integer NOT NULL DEFAULT 0,
    created_at         timestamptz NOT NULL,
    UNIQUE (org, name)
);

CREATE TABLE deployments (
    id          text COLLATE "C" PRIMARY KEY,
    org         text COLLATE "C" NOT NULL REFERENCES orgs,
    app         text COLLATE "C" NOT NULL REFERENCES apps,
    version     integer NOT NULL,
    status      text NOT NULL CHECK (status IN ('active', 'superseded')),
    archive     text COLLATE "C" NOT NULL,
    manifest    jsonb NOT NULL,
    created_by  text COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL,
    UNIQUE (app, version),
    FOREIGN KEY (org, archive) REFERENCES archives
);
CREATE UNIQUE INDEX deployments_one_active ON deployments (app) WHERE status = 'active';
ALTER TABLE apps ADD FOREIGN KEY (active_deployment) REFERENCES deployments DEFERRABLE INITIALLY DEFERRED;

-- A function keeps its id over all deployments of its app; what it is lies in the active deployment's manifest.
CREATE TABLE functions (
    id          text COLLATE "C" PRIMARY KEY,
    org         text COLLATE "C" NOT NULL REFERENCES orgs,
    app         text COLLATE "C" NOT NULL REFERENCES apps,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL,
    UNIQUE (app, name)
);

-- One start of one worker (an incarnation). Belongs to the installation's first org unless enrolled by another.
CREATE TABLE workers (
    id                text COLLATE "C" PRIMARY KEY,
    org               text COLLATE "C" NOT NULL REFERENCES orgs,
    name              text NOT NULL,
    machine           jsonb NOT NULL,
    connected_at      timestamptz NOT NULL,
    lease_expires_at  timestamptz NOT NULL,
    ended_at          timestamptz,
    ended_reason      text
);
CREATE INDEX workers_live ON workers (lease_expires_at) WHERE ended_at IS NULL;

-- The one dispatcher (D4). Belongs to the installation, holds no tenant data.
CREATE TABLE dispatcher (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    term        bigint NOT NULL,
    holder      text COLLATE "C" NOT NULL,
    url         text NOT NULL,
    expires_at  timestamptz NOT NULL
);

CREATE TABLE jobs (
    id                text COLLATE "C" PRIMARY KEY,
    org               text COLLATE "C" NOT NULL,
    app               text COLLATE "C" NOT NULL,
    deployment        text COLLATE "C" NOT NULL,
    function          text COLLATE "C" NOT NULL,
    status            text NOT NULL,
    -- The statuses passed since the row was last written, one letter each, first and last included.
    path              text NOT NULL,
    attempt           integer NOT NULL DEFAULT 0,
    fence             bigint NOT NULL DEFAULT 0,
    losses            integer NOT NULL DEFAULT 0,       -- grants lost to infrastructure (G2.3)
    worker            text COLLATE "C",                 -- incarnation that holds the grant
    term              bigint,                           -- dispatcher's term that granted it
    run_at            timestamptz NOT NULL,             -- not granted before
    arguments         bytea,                            -- inline up to 64 KiB …
    arguments_blob    text COLLATE "C",                 -- … else in the blob store, by SHA-256
    arguments_encoding text NOT NULL,
    arguments_python  text,
    result            bytea,
    result_blob       text COLLATE "C",
    result_encoding   text,
    result_python     text,
    error             jsonb,
    next_index        bigint NOT NULL,
    created_by        text COLLATE "C" NOT NULL,
    created_at        timestamptz NOT NULL,
    started_at        timestamptz,
    finished_at       timestamptz,
    -- Table J, first part: which letter may follow which (n stands before the first status), and the path's last letter
    -- is the status.
    CONSTRAINT job_path_is_legal CHECK (path ~ (
        '^('
        'n(?=q)|'           -- J1
        'q(?=[sCTF])|'      -- J2, J7, J11, J12
        's(?=[rFykT])|'     -- J3, J5, J6, J8, J10
        'r(?=[SFykT])|'     -- J4, J5, J6, J8, J10
        'y(?=[sCTF])|'      -- J2, J7, J11, J12
        'k(?=C)'            -- J9
        ')+[qsrykSFCT]$'
    )),
    CONSTRAINT job_path_ends_in_status CHECK (right(path, 1) = CASE status
        WHEN 'queued' THEN 'q' WHEN 'starting' THEN 's' WHEN 'running' THEN 'r' WHEN 'retrying' THEN 'y'
        WHEN 'cancelling' THEN 'k' WHEN 'succeeded' THEN 'S' WHEN 'failed' THEN 'F' WHEN 'cancelled' THEN 'C'
        WHEN 'timed_out' THEN 'T' ELSE '' END),
    CONSTRAINT job_finished_at_fits_status CHECK (
        (finished_at IS NOT NULL) = (status IN ('succeeded', 'failed', 'cancelled', 'timed_out'))
    )
);
CREATE INDEX jobs_unfinished ON jobs (id)
    WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out');
CREATE INDEX jobs_by_org ON jobs (org, id);

CREATE TABLE events (
    stream  text COLLATE "C" NOT NULL,
    index   bigint NOT NULL,
    org     text COLLATE "C" NOT NULL,
    kind    text NOT NULL,
    at      timestamptz NOT NULL,
    data    jsonb NOT NULL,
    -- Flush that wrote the event: tells the batching writer whether a flush whose answer was lost is on disk.
    flush   bigint,
    PRIMARY KEY (stream, index)
);

-- Table J, second part: a first path begins with `n`, every other path where the last one ended, an ended job changes no
-- more. The conditions are plain expressions, so a legal write calls no function.
CREATE FUNCTION refuse_job_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        RAISE EXCEPTION 'illegal first path % of job %', NEW.path, NEW.id USING ERRCODE = 'AP001';
    ELSIF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'job % is not finished', OLD.id USING ERRCODE = 'AP001';
    END IF;
    RAISE EXCEPTION 'illegal move % -> % (%) of job %', OLD.status, NEW.status, NEW.path, NEW.id USING ERRCODE = 'AP001';
END
$$;
CREATE TRIGGER jobs_first_path BEFORE INSERT ON jobs FOR EACH ROW
    WHEN (left(NEW.path, 1) <> 'n') EXECUTE FUNCTION refuse_job_write();
CREATE TRIGGER jobs_path_goes_on BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (
        CASE WHEN NEW.path <> OLD.path OR NEW.status <> OLD.status
            THEN left(NEW.path, 1) <> right(OLD.path, 1)
            ELSE OLD.finished_at IS NOT NULL
        END
    ) EXECUTE FUNCTION refuse_job_write();
CREATE TRIGGER jobs_kept_until_finished BEFORE DELETE ON jobs FOR EACH ROW
    WHEN (OLD.finished_at IS NULL) EXECUTE FUNCTION refuse_job_write();

-- Row-level security for the request path (G16.1).
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['orgs', 'api_keys', 'archives', 'apps', 'deployments', 'functions', 'workers', 'jobs', 'events'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY org_only ON %I TO apothic_request USING (org = current_setting(''apothic.org'', true))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO apothic_request', name);
    END LOOP;
END
$$;
GRANT SELECT ON dispatcher TO apothic_request;
