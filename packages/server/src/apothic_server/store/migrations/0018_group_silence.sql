-- When somebody was last heard of who adds items to a group or reads what became of them (kept to within some minutes).

ALTER TABLE groups ADD COLUMN heard_at timestamptz NOT NULL DEFAULT now();
