"""The catalogue and its outbox in one SQLite file."""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Self

from shared.clock import to_text
from shared.database import Sqlite
from shared.settings import MIB
from video_service.store import Owed, Page, Video

MIGRATIONS = [
    """
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
    CREATE TABLE settled (
        filename TEXT PRIMARY KEY,
        settled_at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at TEXT NOT NULL
    ) STRICT;
    CREATE INDEX outbox_due ON outbox (due_at)
    """,
]


class SqliteStore:
    def __init__(self, database: Sqlite) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        async with Sqlite(path, MIGRATIONS) as database:
            yield cls(database)

    async def add(self, video: Video, owed: Sequence[Owed], lease: datetime) -> list[Owed] | None:
        row = {
            "id": str(video.id),
            "user_id": str(video.user_id),
            "filename": video.filename,
            "filepath": video.filepath,
            "title": video.title,
            "uploaded_at": to_text(video.uploaded_at),
            "size_mb": video.size / MIB,
            "duration": video.duration,
            "width": video.width,
            "height": video.height,
            "title_key": video.title.casefold(),
        }

        def work(connection: sqlite3.Connection) -> list[Owed] | None:
            added = connection.execute(
                """INSERT INTO videos (id, user_id, filename, filepath, title, uploaded_at, size_mb, duration, width,
                                       height, title_key)
                   SELECT :id, :user_id, :filename, :filepath, :title, :uploaded_at, :size_mb, :duration, :width,
                          :height, :title_key
                   WHERE NOT EXISTS (SELECT 1 FROM settled WHERE filename = :filename)""",
                row,
            )
            return _owe(connection, owed, lease) if added.rowcount == 1 else None

        return await self._database.write(work)

    async def settle(self, filename: str, now: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("SELECT deleted_at FROM videos WHERE filename = ?", (filename,)).fetchone()
            if row:
                return row["deleted_at"] is None
            connection.execute("INSERT INTO settled VALUES (?, ?) ON CONFLICT DO NOTHING", (filename, to_text(now)))
            return False

        return await self._database.write(work)

    async def find(self, filename: str) -> Video | None:
        row = await self._database.fetch_one("SELECT * FROM videos WHERE filename = ?", (filename,))
        return _video(row) if row else None

    async def page(self, *, owner: uuid.UUID | None, search: str, start: int, limit: int) -> Page:
        where = ["deleted_at IS NULL"]
        values: dict[str, str | int] = {"start": min(start, 2**63 - 1), "limit": limit}
        if owner:
            where.append("user_id = :owner")
            values["owner"] = str(owner)
        if search:
            where.append("instr(title_key, :search) > 0")
            values["search"] = search.casefold()
        condition = " AND ".join(where)

        def work(connection: sqlite3.Connection) -> Page:
            (total,) = connection.execute(f"SELECT count(*) FROM videos WHERE {condition}", values).fetchone()  # noqa: S608
            rows = connection.execute(
                f"""SELECT * FROM videos WHERE {condition}
                    ORDER BY uploaded_at DESC, seq DESC LIMIT :limit OFFSET :start""",  # noqa: S608  words of ours only
                values,
            ).fetchall()
            return Page([_video(row) for row in rows], total)

        return await self._database.read(work)

    async def live_filenames(self, user_id: uuid.UUID, most: int) -> list[str]:
        rows = await self._database.fetch_all(
            "SELECT filename FROM videos WHERE user_id = ? AND deleted_at IS NULL LIMIT ?", (str(user_id), most)
        )
        return [row["filename"] for row in rows]

    async def delete(
        self, filenames: Sequence[str], owed: Sequence[Owed], now: datetime, lease: datetime
    ) -> tuple[int, list[Owed]]:
        def work(connection: sqlite3.Connection) -> tuple[int, list[Owed]]:
            deleted = sum(
                connection.execute(
                    "UPDATE videos SET deleted_at = ? WHERE filename = ? AND deleted_at IS NULL",
                    (to_text(now), filename),
                ).rowcount
                for filename in filenames
            )
            return deleted, _owe(connection, owed, lease) if deleted else []

        return await self._database.write(work)

    async def claim_owed(self, now: datetime, lease: datetime, most: int) -> list[Owed]:
        def work(connection: sqlite3.Connection) -> list[Owed]:
            rows = connection.execute(
                """UPDATE outbox SET due_at = ?
                   WHERE id IN (SELECT id FROM outbox WHERE due_at <= ? ORDER BY due_at, id LIMIT ?) RETURNING *""",
                (to_text(lease), to_text(now), most),
            ).fetchall()
            return [Owed(row["kind"], row["body"], row["id"], row["attempts"]) for row in rows]

        return await self._database.write(work)

    async def paid(self, owed_id: int) -> None:
        await self._database.execute("DELETE FROM outbox WHERE id = ?", (owed_id,))

    async def postpone(self, owed_id: int, due_at: datetime) -> None:
        await self._database.execute(
            "UPDATE outbox SET attempts = attempts + 1, due_at = ? WHERE id = ?", (to_text(due_at), owed_id)
        )

    async def forget_settled(self, before: datetime) -> None:
        await self._database.execute("DELETE FROM settled WHERE settled_at < ?", (to_text(before),))

    async def ping(self) -> None:
        await self._database.ping()


def _owe(connection: sqlite3.Connection, owed: Sequence[Owed], lease: datetime) -> list[Owed]:
    standing = []
    for one in owed:
        inserted = connection.execute(
            "INSERT INTO outbox (kind, body, due_at) VALUES (?, ?, ?)", (one.kind, one.body, to_text(lease))
        )
        assert inserted.lastrowid is not None
        standing.append(replace(one, id=inserted.lastrowid))
    return standing


def _video(row: sqlite3.Row) -> Video:
    return Video(
        id=uuid.UUID(row["id"]),
        user_id=uuid.UUID(row["user_id"]),
        filename=row["filename"],
        title=row["title"],
        uploaded_at=datetime.fromisoformat(row["uploaded_at"]),
        deleted_at=datetime.fromisoformat(row["deleted_at"]) if row["deleted_at"] else None,
        size=round(row["size_mb"] * MIB),
        duration=row["duration"],
        width=row["width"],
        height=row["height"],
    )
