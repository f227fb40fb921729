-- The data file of the release before lists went on by cursors: schema 4.
CREATE TABLE videos (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    filename TEXT NOT NULL UNIQUE,
    filepath TEXT NOT NULL,
    title TEXT NOT NULL,
    uploaded_at TEXT NOT NULL,
    deleted_at TEXT,
    size_mb REAL NOT NULL CHECK (size_mb >= 0),
    duration REAL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    title_key TEXT NOT NULL
) STRICT;
CREATE INDEX videos_newest ON videos (uploaded_at, seq) WHERE deleted_at IS NULL;
CREATE INDEX videos_newest_of_user ON videos (user_id, uploaded_at, seq) WHERE deleted_at IS NULL;
CREATE TABLE videos_settled (
    filename TEXT PRIMARY KEY,
    settled_at TEXT NOT NULL
) STRICT;
CREATE TABLE videos_outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at TEXT NOT NULL
) STRICT;
CREATE INDEX videos_outbox_due ON videos_outbox (due_at);
CREATE TABLE videos_ranks (
    list TEXT NOT NULL,
    level INTEGER NOT NULL,
    first TEXT NOT NULL,
    rows INTEGER NOT NULL CHECK (rows >= 0),
    PRIMARY KEY (list, level, first)
) STRICT, WITHOUT ROWID;
CREATE VIRTUAL TABLE videos_titles USING fts5 (
    title_key, content = '', columnsize = 0, tokenize = 'trigram case_sensitive 1'
);
PRAGMA user_version = 4;
