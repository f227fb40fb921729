"""Usage in one SQLite file."""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Self

from shared.clock import to_text
from shared.database import Schema, Sqlite
from usage_service.store import Day, Event, OverLimit

SCHEMA = Schema(
    version=1,
    script="""
    CREATE TABLE usage_days (
        user_id TEXT NOT NULL,
        day TEXT NOT NULL,
        uploaded INTEGER NOT NULL CHECK (uploaded >= 0),
        streamed INTEGER NOT NULL CHECK (streamed >= 0),
        uploads INTEGER NOT NULL CHECK (uploads >= 0),
        deletions INTEGER NOT NULL CHECK (deletions >= 0),
        PRIMARY KEY (user_id, day)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE usage_events (
        kind TEXT NOT NULL CHECK (kind IN ('upload', 'deletion', 'stream')),
        id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        day TEXT NOT NULL,
        size INTEGER NOT NULL CHECK (size >= 0),
        PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE usage_reservations (
        upload_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        day TEXT NOT NULL,
        granted INTEGER NOT NULL CHECK (granted > 0),
        expires_at TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX usage_reservations_by_day ON usage_reservations (user_id, day, granted);
    CREATE INDEX usage_reservations_by_expiry ON usage_reservations (expires_at);
    CREATE INDEX usage_stream_events_by_day ON usage_events (day) WHERE kind = 'stream'
    """,
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
        self,
        upload_id: str,
        user_id: uuid.UUID,
        least: int,
        most: int,
        *,
        limit: int,
        day: date,
        now: datetime,
        expires: datetime,
    ) -> int | OverLimit | None:
        claim = {"id": upload_id, "user": str(user_id), "day": day.isoformat(), "expires": to_text(expires)}

        def work(connection: sqlite3.Connection) -> int | OverLimit | None:
            _drop_expired(connection, now)  # so that every reservation below is a live one
            known = connection.execute(
                """SELECT user_id, size FROM usage_events WHERE kind = 'upload' AND id = :id
                   UNION ALL SELECT user_id, granted FROM usage_reservations WHERE upload_id = :id""",
                claim,
            ).fetchone()
            if known and known["user_id"] != claim["user"]:
                return None
            if known:
                connection.execute("UPDATE usage_reservations SET expires_at = :expires WHERE upload_id = :id", claim)
                return int(known["size"])
            (used,) = connection.execute(
                """SELECT coalesce((SELECT uploaded FROM usage_days WHERE user_id = :user AND day = :day), 0)
                   + coalesce((SELECT sum(granted) FROM usage_reservations WHERE user_id = :user AND day = :day), 0)""",
                claim,
            ).fetchone()
            if used + least > limit:
                return OverLimit(int(used))
            granted = min(most, limit - int(used))
            connection.execute(
                """INSERT INTO usage_reservations (upload_id, user_id, day, granted, expires_at)
                   VALUES (:id, :user, :day, :granted, :expires)""",
                claim | {"granted": granted},
            )
            return granted

        return await self._database.write(work)

    async def release(self, upload_id: str) -> None:
        await self._database.execute("DELETE FROM usage_reservations WHERE upload_id = ?", (upload_id,))

    async def commit(self, upload: Event) -> None:
        def work(connection: sqlite3.Connection) -> None:
            dropped = connection.execute(
                "DELETE FROM usage_reservations WHERE upload_id = ? AND user_id = ? RETURNING day",
                (upload.id, str(upload.user_id)),
            ).fetchone()
            _count(connection, upload, dropped["day"] if dropped else upload.day.isoformat())

        await self._database.write(work)

    async def count(self, events: Sequence[Event]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for event in events:
                _count(connection, event, event.day.isoformat())

        await self._database.write(work)

    async def day(self, user_id: uuid.UUID, day: date) -> Day:
        row = await self._database.fetch_one(
            "SELECT uploaded, streamed, uploads, deletions FROM usage_days WHERE user_id = ? AND day = ?",
            (str(user_id), day.isoformat()),
        )
        return Day(**row) if row else Day()

    async def sweep(self, now: datetime) -> int:
        return await self._database.write(lambda connection: _drop_expired(connection, now))

    async def forget_streamed(self, before: date) -> int:
        return await self._database.execute(
            "DELETE FROM usage_events WHERE kind = 'stream' AND day < ?", (before.isoformat(),)
        )

    async def ping(self) -> None:
        await self._database.ping()


def _drop_expired(connection: sqlite3.Connection, now: datetime) -> int:
    return connection.execute("DELETE FROM usage_reservations WHERE expires_at <= ?", (to_text(now),)).rowcount


def _count(connection: sqlite3.Connection, event: Event, day: str) -> None:
    """The event's row is what makes it count once: only who inserts it raises the counters."""
    row = {
        "kind": event.kind,
        "id": event.id,
        "user": str(event.user_id),
        "day": day,
        "size": event.size,
    }
    inserted = connection.execute(
        """INSERT INTO usage_events (kind, id, user_id, day, size) VALUES (:kind, :id, :user, :day, :size)
           ON CONFLICT (kind, id) DO NOTHING""",
        row,
    )
    if inserted.rowcount != 1:
        return
    connection.execute(
        """INSERT INTO usage_days (user_id, day, uploaded, streamed, uploads, deletions)
           VALUES (:user, :day, iif(:kind = 'upload', :size, 0), iif(:kind = 'stream', :size, 0),
                   :kind = 'upload', :kind = 'deletion')
           ON CONFLICT (user_id, day) DO UPDATE SET
               uploaded = uploaded + excluded.uploaded,
               streamed = streamed + excluded.streamed,
               uploads = uploads + excluded.uploads,
               deletions = deletions + excluded.deletions""",
        row,
    )
