"""The catalogue and its outbox in one SQLite file."""

import json
import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from shared.clock import to_text
from shared.database import Sqlite
from shared.ranked import EVERYBODY, Ranked
from shared.settings import MIB
from video_service.store import Listed, Owed, Page, Video, titles

RANKED = Ranked("videos", "uploaded_at", listed="deleted_at IS NULL")
LISTED = ", ".join(Listed._fields)
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
    CREATE INDEX videos_outbox_due ON videos_outbox (due_at)
    """,
    # How many live videos there are, of each owner and of all: to count a million at every page takes 5 ms.
    """
    CREATE TABLE videos_totals (
        user_id TEXT PRIMARY KEY,
        live INTEGER NOT NULL CHECK (live >= 0)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO videos_totals SELECT user_id, count(*) FROM videos WHERE deleted_at IS NULL GROUP BY user_id;
    INSERT INTO videos_totals SELECT '', count(*) FROM videos WHERE deleted_at IS NULL;
    CREATE TRIGGER count_video AFTER INSERT ON videos WHEN new.deleted_at IS NULL BEGIN
        INSERT INTO videos_totals VALUES ('', 1), (new.user_id, 1)
        ON CONFLICT (user_id) DO UPDATE SET live = live + 1; END;
    CREATE TRIGGER uncount_video AFTER UPDATE OF deleted_at ON videos
    WHEN old.deleted_at IS NULL AND new.deleted_at IS NOT NULL BEGIN
        UPDATE videos_totals SET live = live - 1 WHERE user_id IN ('', new.user_id); END
    """,
    # They stand in videos_ranks now, beside what finds a page.
    f"DROP TRIGGER count_video;\nDROP TRIGGER uncount_video;\nDROP TABLE videos_totals;\n{RANKED.migration()}",
    titles.MIGRATION,
]


class SqliteStore:
    def __init__(self, database: Sqlite) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        async with Sqlite(path, MIGRATIONS) as database:
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
                RANKED.added(connection, [(str(video.user_id), to_text(video.uploaded_at))])
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

    async def page(self, *, owner: uuid.UUID | None, search: str, start: int, limit: int) -> Page:
        if search:
            return await self._database.read(lambda connection: _search(connection, owner, search, start, limit))
        whose = str(owner) if owner else EVERYBODY
        theirs = "user_id = :whose AND" if owner else ""

        def work(connection: sqlite3.Connection) -> Page:
            total, before, skip = RANKED.seek(connection, whose, start)
            if start >= total:  # which is also what keeps start within SQLite's 64 bits
                return Page([], total)
            cursor = connection.cursor()
            cursor.row_factory = None  # tuples
            rows = cursor.execute(
                f"""SELECT {LISTED} FROM videos WHERE {theirs} deleted_at IS NULL AND uploaded_at < :before
                    ORDER BY uploaded_at DESC, seq DESC LIMIT :limit OFFSET :skip""",  # noqa: S608  words of ours only
                {"whose": whose, "before": before, "limit": limit, "skip": skip},
            ).fetchall()
            return Page(list(map(Listed._make, rows)), total)

        return await self._database.glance(work)

    async def live_filenames(self, user_id: uuid.UUID, most: int) -> list[str]:
        rows = await self._database.fetch_all(
            "SELECT filename FROM videos WHERE user_id = ? AND deleted_at IS NULL LIMIT ?", (str(user_id), most)
        )
        return [row["filename"] for row in rows]

    async def delete(self, filenames: Sequence[str], owed: Sequence[Owed], now: datetime, lease: datetime) -> int:
        names = ", ".join("?" * len(filenames))
        going = f"""SELECT user_id, uploaded_at, seq, title_key FROM videos
                    WHERE deleted_at IS NULL AND filename IN ({names})"""  # noqa: S608

        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute(going, list(filenames)).fetchall()
            RANKED.removed(connection, [(row["user_id"], row["uploaded_at"]) for row in rows])
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


def _search(connection: sqlite3.Connection, owner: uuid.UUID | None, search: str, start: int, limit: int) -> Page:
    part = search.casefold()
    condition = "deleted_at IS NULL AND instr(title_key, :part) > 0" + (" AND user_id = :owner" if owner else "")
    newest = "ORDER BY uploaded_at DESC, seq DESC"
    values: dict[str, str | int] = {"part": part, "owner": str(owner)}
    asked = titles.phrase(part)
    few = titles.few(connection, asked) if asked else None
    if few is not None:
        found = connection.execute(
            f"SELECT seq FROM json_each(:few) CROSS JOIN videos ON seq = value WHERE {condition} {newest}",  # noqa: S608
            values | {"few": json.dumps(few)},
        ).fetchall()
        total = len(found)
        condition = "seq IN (SELECT value FROM json_each(:page))"
        values = {"page": json.dumps([row["seq"] for row in found[start : start + limit]]), "skip": 0}
    elif asked and not owner:
        total = titles.count(connection, asked)
    else:
        (total,) = connection.execute(f"SELECT count(*) FROM videos WHERE {condition}", values).fetchone()  # noqa: S608
    if start >= total:
        return Page([], total)
    rows = connection.execute(
        f"SELECT {LISTED} FROM videos WHERE {condition} {newest} LIMIT :limit OFFSET :skip",  # noqa: S608
        {"skip": start, "limit": limit} | values,
    ).fetchall()
    return Page([Listed(*row) for row in rows], total)


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
