-- How much a job's items weigh, so that a generator that nobody reads does not fill the disk (G5.4). An ended job's row
-- changes no more, so what went is counted beside its floor.

ALTER TABLE jobs ADD COLUMN item_bytes bigint NOT NULL DEFAULT 0;  -- of all attempts, what was rotated away included

ALTER TABLE jobs DISABLE TRIGGER jobs_path_goes_on;
UPDATE jobs SET item_bytes = (SELECT coalesce(sum(size_bytes), 0) FROM item_segments WHERE stream = jobs.id)
WHERE item_count > 0;
ALTER TABLE jobs ENABLE TRIGGER jobs_path_goes_on;

-- The index has only the jobs that may be too large. It is on a value that changes once, not on the sum itself: an
-- append of items leaves all indexes of its job's row alone.
ALTER TABLE jobs ADD COLUMN yielded_much boolean GENERATED ALWAYS AS (item_bytes > 8388608) STORED;
CREATE INDEX jobs_that_yielded_much ON jobs (id) WHERE yielded_much;

ALTER TABLE stream_floors ADD COLUMN item_bytes_gone bigint NOT NULL DEFAULT 0;
