"""The catalogue and its outbox in one SQLite file."""

import json
import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from shared.clock import to_text
from shared.cursor import Cursor
from shared.database import INLINE_ROWS, Schema, Sqlite
from shared.settings import MIB
from video_service.store import Listed, Owed, Page, Video, titles

LISTED = ", ".join(Listed._fields)
EVERYBODY = ""
"""The row of ``videos_totals`` that counts all live videos."""
_NEWEST_FIRST = "ORDER BY uploaded_at DESC, seq DESC"
# Two statements: for `(uploaded_at, seq) < (:time, :seq)` SQLite uses the first column of an index alone, and walks
# over all videos of that time.
_BEHIND = ("uploaded_at = :time AND seq < :seq", "uploaded_at < :time")
# To count a million live videos at every page would take 5 ms.
_TOTALS = """
    CREATE TABLE videos_totals (
        user_id TEXT PRIMARY KEY,
        live INTEGER NOT NULL CHECK (live >= 0)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER count_video AFTER INSERT ON videos WHEN new.deleted_at IS NULL BEGIN
        INSERT INTO videos_totals VALUES ('', 1), (new.user_id, 1)
        ON CONFLICT (user_id) DO UPDATE SET live = live + 1; END;
    CREATE TRIGGER uncount_video AFTER UPDATE OF deleted_at ON videos
    WHEN old.deleted_at IS NULL AND new.deleted_at IS NOT NULL BEGIN
        UPDATE videos_totals SET live = live - 1 WHERE user_id IN ('', new.user_id); END;
    """
_COUNT_ALL = """
    INSERT INTO videos_totals SELECT user_id, count(*) FROM videos WHERE deleted_at IS NULL GROUP BY user_id;
    INSERT INTO videos_totals SELECT '', count(*) FROM videos WHERE deleted_at IS NULL
    """
SCHEMA = Schema(
    version=5,
    script=f"""
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
    {titles.TABLE};
    {_TOTALS}
    """,
    upgrades={4: f"DROP TABLE videos_ranks; {_TOTALS} {_COUNT_ALL}"},
)


class SqliteStore:
    def __init__(self, database: Sqlite) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        async with Sqlite(path, SCHEMA) as database:
            yield cls(database)

    async def add(self, video: Video, owed: Sequence[Owed], lease: datetime) -> bool:
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

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute("SELECT 1 FROM videos WHERE id = :id", row).fetchone():
                return True  # a repetition
            added = connection.execute(
                """INSERT INTO videos (id, user_id, filename, filepath, title, uploaded_at, size_mb, duration, width,
                                       height, title_key)
                   SELECT :id, :user_id, :filename, :filepath, :title, :uploaded_at, :size_mb, :duration, :width,
                          :height, :title_key
                   WHERE NOT EXISTS (SELECT 1 FROM videos_settled WHERE filename = :filename)""",
                row,
            )
            if added.rowcount == 1:
                assert added.lastrowid is not None
                titles.added(connection, added.lastrowid, video.title.casefold())
                _owe(connection, owed, lease)
            return added.rowcount == 1

        return await self._database.write(work)

    async def settle(self, filename: str, now: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("SELECT deleted_at FROM videos WHERE filename = ?", (filename,)).fetchone()
            if row:
                return row["deleted_at"] is None
            row = (filename, to_text(now))
            connection.execute("INSERT INTO videos_settled VALUES (?, ?) ON CONFLICT DO NOTHING", row)
            return False

        return await self._database.write(work)

    async def find(self, filename: str) -> Video | None:
        row = await self._database.fetch_one("SELECT * FROM videos WHERE filename = ?", (filename,))
        return _video(row) if row else None

    async def page(
        self, *, owner: uuid.UUID | None, search: str, start: int, limit: int, after: Cursor | None = None
    ) -> Page:
        if after:
            start = 0
        if search:
            return await self._database.read(lambda connection: _search(connection, owner, search, start, limit, after))
        whose = str(owner) if owner else EVERYBODY

        def work(connection: sqlite3.Connection) -> Page:
            found = connection.execute("SELECT live FROM videos_totals WHERE user_id = ?", (whose,)).fetchone()
            total = found["live"] if found else 0
            conditions = ["deleted_at IS NULL", *(["user_id = :owner"] if owner else [])]
            return _page(connection, conditions, {"owner": whose}, total, start, limit, after)

        if start > INLINE_ROWS:
            return await self._database.read(work)
        return await self._database.read_inline(work)

    async def live_filenames(self, user_id: uuid.UUID, most: int) -> list[str]:
        rows = await self._database.fetch_all(
            "SELECT filename FROM videos WHERE user_id = ? AND deleted_at IS NULL LIMIT ?", (str(user_id), most)
        )
        return [row["filename"] for row in rows]

    async def delete(self, filenames: Sequence[str], owed: Sequence[Owed], now: datetime, lease: datetime) -> int:
        names = ", ".join("?" * len(filenames))
        going = f"""SELECT seq, title_key FROM videos
                    WHERE deleted_at IS NULL AND filename IN ({names})"""  # noqa: S608

        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute(going, list(filenames)).fetchall()
            titles.removed(connection, [(row["seq"], row["title_key"]) for row in rows])
            deleted = sum(
                connection.execute(
                    """UPDATE videos SET deleted_at = :now
                       WHERE filename = :filename AND (deleted_at IS NULL OR deleted_at = :now)""",
                    {"now": to_text(now), "filename": filename},
                ).rowcount
                for filename in filenames
            )
            if deleted:
                _owe(connection, owed, lease)
            return deleted

        return await self._database.write(work)

    async def owe(self, owed: Sequence[Owed], due_at: datetime) -> None:
        await self._database.write(lambda connection: _owe(connection, owed, due_at))

    async def claim_owed(self, now: datetime, lease: datetime, most: int) -> list[Owed]:
        def work(connection: sqlite3.Connection) -> list[Owed]:
            rows = connection.execute(
                """UPDATE videos_outbox SET due_at = ?
                   WHERE seq IN (SELECT seq FROM videos_outbox WHERE due_at <= ? ORDER BY due_at, seq LIMIT ?)
                   RETURNING *""",
                (to_text(lease), to_text(now), most),
            ).fetchall()
            return [Owed(row["kind"], row["body"], uuid.UUID(row["id"]), row["attempts"]) for row in rows]

        return await self._database.write(work)

    async def paid(self, owed: Owed) -> None:
        await self._database.execute("DELETE FROM videos_outbox WHERE id = ?", (str(owed.id),))

    async def postpone(self, owed: Owed, due_at: datetime) -> None:
        await self._database.execute(
            "UPDATE videos_outbox SET attempts = ?, due_at = ? WHERE id = ?",
            (owed.attempts + 1, to_text(due_at), str(owed.id)),
        )

    async def forget_settled(self, before: datetime) -> None:
        await self._database.execute("DELETE FROM videos_settled WHERE settled_at < ?", (to_text(before),))

    async def ping(self) -> None:
        await self._database.ping()


def _page(
    connection: sqlite3.Connection,
    conditions: list[str],
    values: dict[str, str],
    total: int,
    start: int,
    limit: int,
    after: Cursor | None,
) -> Page:
    if start >= total:  # which is also what keeps start within SQLite's 64 bits
        return Page([], total)
    cursor = connection.cursor()
    cursor.row_factory = None  # tuples
    rows: list[tuple[Any, ...]] = []
    for place in _BEHIND if after else ("TRUE",):
        where = " AND ".join([*conditions, place])
        rows += cursor.execute(
            f"SELECT {LISTED}, seq FROM videos WHERE {where} {_NEWEST_FIRST} LIMIT :most OFFSET :start",  # noqa: S608
            values | (after._asdict() if after else {}) | {"most": limit + 1 - len(rows), "start": start},
        ).fetchall()
    videos = [Listed._make(row[:-1]) for row in rows[:limit]]
    return Page(videos, total, Cursor(videos[-1].uploaded_at, rows[limit - 1][-1]) if len(rows) > limit else None)


def _search(
    connection: sqlite3.Connection,
    owner: uuid.UUID | None,
    search: str,
    start: int,
    limit: int,
    after: Cursor | None,
) -> Page:
    part = search.casefold()
    conditions = ["deleted_at IS NULL", "instr(title_key, :part) > 0", *(["user_id = :owner"] if owner else [])]
    values = {"part": part, "owner": str(owner)}
    asked = titles.phrase(part)
    few = titles.few(connection, asked) if asked else None
    condition = " AND ".join(conditions)
    if few is not None:
        rows = connection.execute(
            f"""SELECT uploaded_at, seq FROM json_each(:few) CROSS JOIN videos ON seq = value
                WHERE {condition} {_NEWEST_FIRST}""",  # noqa: S608
            values | {"few": json.dumps(few)},
        )
        found = [Cursor(*row) for row in rows]
        total = len(found)
        left = [one for one in found if one < after] if after else found
        conditions = ["seq IN (SELECT value FROM json_each(:page))"]
        values = {"page": json.dumps([one.seq for one in left[start : start + limit + 1]])}
        start, after = 0, None
    elif asked and not owner:
        total = titles.count(connection, asked)
    else:
        (total,) = connection.execute(f"SELECT count(*) FROM videos WHERE {condition}", values).fetchone()  # noqa: S608
    return _page(connection, conditions, values, total, start, limit, after)


def _owe(connection: sqlite3.Connection, owed: Sequence[Owed], lease: datetime) -> None:
    connection.executemany(
        "INSERT INTO videos_outbox (id, kind, body, due_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        [(str(one.id), one.kind, one.body, to_text(lease)) for one in owed],
    )


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
