-- Chunks alone: which one covers an item is found without a look at the rows that items before it have of their own.

CREATE INDEX jobs_chunks ON jobs (group_id, first_item) WHERE chunk_items IS NOT NULL;
