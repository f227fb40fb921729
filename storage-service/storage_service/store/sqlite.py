"""The ledger in one SQLite file."""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from shared.clock import to_text
from shared.contracts import StoredVideo
from shared.database import Schema, Sqlite
from shared.errors import Conflict
from storage_service.store import Claim, StoredObject

SCHEMA = Schema(
    version=2,
    script="""
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
        removals INTEGER NOT NULL DEFAULT 0,
        session TEXT
    ) STRICT;
    CREATE INDEX storage_objects_reserved ON storage_objects (expires_at) WHERE state = 'reserved';
    CREATE INDEX storage_objects_stored ON storage_objects (expires_at) WHERE state = 'stored';
    CREATE INDEX storage_objects_removable ON storage_objects (remove_at) WHERE remove_at IS NOT NULL
    """,
    upgrades={1: "ALTER TABLE storage_objects ADD COLUMN session TEXT"},
)


class SqliteStore:
    def __init__(self, database: Sqlite) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        async with Sqlite(path, SCHEMA) as database:
            yield cls(database)

    async def reserve(
        self, filename: str, user_id: uuid.UUID, least: int, most: int, *, limit: int, now: datetime, until: datetime
    ) -> Claim | None:
        user = str(user_id)

        def work(connection: sqlite3.Connection) -> Claim | None:
            known = connection.execute(
                "SELECT user_id, state, granted, session FROM storage_objects WHERE filename = ?", (filename,)
            ).fetchone()
            if known:
                if known["user_id"] != user or known["state"] != "reserved":
                    raise Conflict("This upload has been given up; please start it again.", code="upload_gone")
                connection.execute(
                    "UPDATE storage_objects SET expires_at = ? WHERE filename = ?", (to_text(until), filename)
                )
                return Claim(known["granted"], known["session"])
            connection.execute("INSERT INTO storage_ledger (user_id) VALUES (?) ON CONFLICT DO NOTHING", (user,))
            (left,) = connection.execute(
                "SELECT ? - kept - reserved FROM storage_ledger WHERE user_id = ?", (limit, user)
            ).fetchone()
            if left < least:
                return None
            granted = min(most, int(left))
            connection.execute("UPDATE storage_ledger SET reserved = reserved + ? WHERE user_id = ?", (granted, user))
            connection.execute(
                """INSERT INTO storage_objects (filename, user_id, state, granted, created_at, expires_at)
                   VALUES (?, ?, 'reserved', ?, ?, ?)""",
                (filename, user, granted, to_text(now), to_text(until)),
            )
            return Claim(granted, None)

        return await self._database.write(work)

    async def note_session(self, filename: str, session: str) -> bool:
        noted = await self._database.execute(
            """UPDATE storage_objects SET session = :session
               WHERE filename = :filename AND state = 'reserved' AND coalesce(session, :session) = :session""",
            {"filename": filename, "session": session},
        )
        return noted == 1

    async def store(self, filename: str, video: StoredVideo) -> bool:
        stored = await self._database.execute(
            """UPDATE storage_objects SET state = 'stored', size = :size, content_type = :content_type,
                      duration = :duration, width = :width, height = :height, session = NULL
               WHERE filename = :filename
                   AND (state = 'reserved' AND granted >= :size OR state = 'stored' AND size = :size)""",
            {"filename": filename, **video.model_dump()},
        )
        return stored == 1

    async def keep(self, filenames: Sequence[str]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for filename in filenames:
                row = connection.execute(
                    "UPDATE storage_objects SET state = 'kept' WHERE filename = ? AND state = 'stored' RETURNING *",
                    (filename,),
                ).fetchone()
                if row:
                    connection.execute(
                        "UPDATE storage_ledger SET reserved = reserved - ?, kept = kept + ? WHERE user_id = ?",
                        (row["granted"], row["size"], row["user_id"]),
                    )

        await self._database.write(work)

    async def delete(self, filenames: Sequence[str], now: datetime) -> Mapping[str, str]:
        def work(connection: sqlite3.Connection) -> Mapping[str, str]:
            sessions = {}
            for filename in filenames:
                row = connection.execute("SELECT * FROM storage_objects WHERE filename = ?", (filename,)).fetchone()
                if row and row["session"]:
                    sessions[filename] = row["session"]
                if row and row["state"] != "deleted":
                    _delete(connection, row, now)
            return sessions

        return await self._database.write(work)

    async def delete_expired(self, now: datetime, most: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                """SELECT * FROM storage_objects WHERE state = 'reserved' AND expires_at <= ?
                   ORDER BY expires_at LIMIT ?""",
                (to_text(now), most),
            ).fetchall()
            for row in rows:
                _delete(connection, row, now)
            return len(rows)

        return await self._database.write(work)

    async def unkept(self, now: datetime, most: int) -> list[str]:
        rows = await self._database.fetch_all(
            """SELECT filename FROM storage_objects WHERE state = 'stored' AND expires_at <= ?
               ORDER BY expires_at LIMIT ?""",
            (to_text(now), most),
        )
        return [row["filename"] for row in rows]

    async def removable(self, now: datetime, most: int) -> Mapping[str, str | None]:
        rows = await self._database.fetch_all(
            "SELECT filename, session FROM storage_objects WHERE remove_at <= ? ORDER BY remove_at LIMIT ?",
            (to_text(now), most),
        )
        return {row["filename"]: row["session"] for row in rows}

    async def removed(self, filename: str, now: datetime, again_at: datetime) -> None:
        due = "filename = ? AND state = 'deleted' AND remove_at <= ?"

        def work(connection: sqlite3.Connection) -> None:
            which = (filename, to_text(now))
            connection.execute(f"DELETE FROM storage_objects WHERE {due} AND removals > 0", which)  # noqa: S608
            connection.execute(
                f"UPDATE storage_objects SET removals = 1, remove_at = ? WHERE {due}",  # noqa: S608  words of ours only
                (to_text(again_at), *which),
            )

        await self._database.write(work)

    async def find(self, filename: str) -> StoredObject | None:
        row = await self._database.fetch_one("SELECT * FROM storage_objects WHERE filename = ?", (filename,))
        if row is None:
            return None
        return StoredObject(
            filename=row["filename"],
            user_id=uuid.UUID(row["user_id"]),
            state=row["state"],
            granted=row["granted"],
            video=StoredVideo.model_validate(dict(row)) if row["size"] is not None else None,
            session=row["session"],
            created_at=datetime.fromisoformat(row["created_at"]),
        )

    async def kept_bytes(self, user_id: uuid.UUID) -> int:
        row = await self._database.fetch_one("SELECT kept FROM storage_ledger WHERE user_id = ?", (str(user_id),))
        return row["kept"] if row else 0

    async def ping(self) -> None:
        await self._database.ping()


def _delete(connection: sqlite3.Connection, row: sqlite3.Row, now: datetime) -> None:
    """Give the bytes back as they were held: a kept object its size, any other its grant."""
    connection.execute(
        "UPDATE storage_objects SET state = 'deleted', remove_at = ? WHERE filename = ?",
        (to_text(now), row["filename"]),
    )
    held, column = (row["size"], "kept") if row["state"] == "kept" else (row["granted"], "reserved")
    connection.execute(
        f"UPDATE storage_ledger SET {column} = {column} - ? WHERE user_id = ?",  # noqa: S608  one of two words of ours
        (held, row["user_id"]),
    )
