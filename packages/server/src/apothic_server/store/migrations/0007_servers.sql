-- The control-plane processes that live now (D4): each renews its row, whoever misses `expires_at` counts as gone. Belongs
-- to the installation, holds no tenant data. Times are the store's own clock.
CREATE TABLE servers (
    id          text COLLATE "C" PRIMARY KEY,
    url         text NOT NULL,
    renewed_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
);
