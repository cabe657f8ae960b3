-- Workers on other hosts: tokens to join with, and the workers that joined (one row for each, over all its starts).

CREATE TABLE join_tokens (
    id          text COLLATE "C" PRIMARY KEY,
    org         text COLLATE "C" NOT NULL REFERENCES orgs,
    digest      bytea NOT NULL UNIQUE,            -- keyed as those of API keys are (G17.2)
    created_by  text COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    used_by     text COLLATE "C"                  -- the worker that joined with it
);
CREATE INDEX join_tokens_org ON join_tokens (org, expires_at);

CREATE TABLE enrolled_workers (
    id           text COLLATE "C" PRIMARY KEY,
    org          text COLLATE "C" NOT NULL REFERENCES orgs,
    name         text NOT NULL,
    key          text COLLATE "C" NOT NULL UNIQUE REFERENCES api_keys,   -- its credential
    is_draining  boolean NOT NULL DEFAULT false,
    joined_at    timestamptz NOT NULL,
    removed_at   timestamptz
);
CREATE UNIQUE INDEX enrolled_workers_name ON enrolled_workers (org, name) WHERE removed_at IS NULL;

ALTER TABLE workers ADD COLUMN enrolled text COLLATE "C" REFERENCES enrolled_workers;
CREATE INDEX workers_enrolled ON workers (enrolled, id) WHERE enrolled IS NOT NULL;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['join_tokens', 'enrolled_workers'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY org_only ON %I TO apothic_request USING (org = current_setting(''apothic.org'', true))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO apothic_request', name);
    END LOOP;
END
$$;
GRANT DELETE ON join_tokens TO apothic_request;
