-- Deployments can be stopped and deleted. Rows of deleted ones stay: the records of their jobs need them.

ALTER TABLE deployments DROP CONSTRAINT deployments_status_check;
ALTER TABLE deployments ADD CONSTRAINT deployments_status_check
    CHECK (status IN ('active', 'superseded', 'stopped', 'deleted'));
ALTER TABLE deployments ADD COLUMN stopped_at timestamptz;
ALTER TABLE deployments ADD COLUMN deleted_at timestamptz;
-- What the dispatcher still has to do with unfinished jobs after a stop or a delete: end those that wait and let the
-- others finish, or cancel those too; NULL when nothing is left to do.
ALTER TABLE deployments ADD COLUMN drain text CHECK (drain IN ('finish', 'cancel'));
CREATE INDEX deployments_draining ON deployments (id) WHERE drain IS NOT NULL;
CREATE INDEX deployments_by_org ON deployments (org, id);
CREATE INDEX jobs_unfinished_by_deployment ON jobs (deployment)
    WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out');
