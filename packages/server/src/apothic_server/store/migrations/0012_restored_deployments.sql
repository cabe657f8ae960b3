-- A rollback makes a new deployment with the content of an earlier one; this is the version that content was first deployed as.

ALTER TABLE deployments ADD COLUMN restored_from integer;
