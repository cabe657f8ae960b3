-- Who called a job: the job whose user code did (G2.7), how many stand above it, and, for a blocking call, the fence of the
-- attempt that waits. No foreign key: a blocking call's row may be written before its parent's.

ALTER TABLE jobs
    ADD COLUMN parent text COLLATE "C",
    ADD COLUMN depth integer NOT NULL DEFAULT 0 CHECK (depth BETWEEN 0 AND 32),
    ADD COLUMN waited_fence bigint;
CREATE INDEX jobs_waited_for ON jobs (parent) WHERE waited_fence IS NOT NULL AND finished_at IS NULL;
