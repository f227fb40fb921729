-- The data file of the release before lists went on by cursors: schema 2.
CREATE TABLE logs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    action_type TEXT NOT NULL,
    description TEXT NOT NULL,
    service_name TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX logs_by_user ON logs (user_id, created_at);
CREATE INDEX logs_by_time ON logs (created_at);
CREATE TABLE logs_ranks (
    list TEXT NOT NULL,
    level INTEGER NOT NULL,
    first TEXT NOT NULL,
    rows INTEGER NOT NULL CHECK (rows >= 0),
    PRIMARY KEY (list, level, first)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
