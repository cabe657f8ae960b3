-- How many bytes all inputs up to the end of a segment have, so that what waits of a group is known without adding up.

ALTER TABLE group_inputs ADD COLUMN end_bytes bigint NOT NULL DEFAULT 0;
