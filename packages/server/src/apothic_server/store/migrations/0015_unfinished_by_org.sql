-- What one org has not ended yet, newest first, is read without looking at the jobs of others.

CREATE INDEX jobs_unfinished_by_org ON jobs (org, id)
    WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out');
