-- The ended job that this one was made from by hand (G1.4).

ALTER TABLE jobs ADD COLUMN retry_of text COLLATE "C";
