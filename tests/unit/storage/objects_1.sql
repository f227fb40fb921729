-- The data file of the release before uploads went to a target: schema 1.
CREATE TABLE storage_ledger (
    user_id TEXT PRIMARY KEY,
    kept INTEGER NOT NULL DEFAULT 0 CHECK (kept >= 0),
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0)
) STRICT;
CREATE TABLE storage_objects (
    filename TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES storage_ledger,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'stored', 'kept', 'deleted')),
    granted INTEGER NOT NULL CHECK (granted > 0),
    size INTEGER CHECK (size >= 0),
    content_type TEXT,
    duration REAL,
    width INTEGER,
    height INTEGER,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    remove_at TEXT,
    removals INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX storage_objects_reserved ON storage_objects (expires_at) WHERE state = 'reserved';
CREATE INDEX storage_objects_stored ON storage_objects (expires_at) WHERE state = 'stored';
CREATE INDEX storage_objects_removable ON storage_objects (remove_at) WHERE remove_at IS NOT NULL;
PRAGMA user_version = 1;
