"""Logs in one SQLite file."""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Self

from logging_service.store import Log, Page, Row
from shared.database import Sqlite
from shared.ranked import EVERYBODY, Ranked

COLUMNS = ", ".join(Log._fields)
_user_and_time: Callable[[Row], tuple[str, str]] = itemgetter(
    Log._fields.index("user_id"), Log._fields.index("created_at")
)
CHECKPOINT_PAGES = 4000
"""Of 4 KiB. Every batch writes to the same pages again, the ends of the indexes: they are carried over from the log of
the database (which is on the disk at each commit, as ever) less often than by default, where it is every 1000 pages."""
AT_ONCE = 100
"""Rows that one statement inserts. SQLite works without Python's lock; a statement for each row would ask for it after
each, and wait every time until whoever computes lets go of it."""

RANKED = Ranked("logs", "created_at")
# A row's seq is the order of writing, and SQLite ends every index with it: both indexes give a page without sorting.
MIGRATIONS = [
    """
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
    CREATE TABLE logs_totals (
        user_id TEXT PRIMARY KEY,
        logs INTEGER NOT NULL CHECK (logs >= 0)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER count_logs AFTER INSERT ON logs BEGIN
        INSERT INTO logs_totals VALUES ('', 1), (new.user_id, 1)
        ON CONFLICT (user_id) DO UPDATE SET logs = logs + 1; END
    """,
    # A trigger cost more than the row. The lengths of all lists stand in logs_ranks now, beside what finds a page.
    f"DROP TRIGGER count_logs;\nDROP TABLE logs_totals;\n{RANKED.migration()}",
]


class SqliteStore:
    def __init__(self, database: Sqlite) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        async with Sqlite(path, MIGRATIONS) as database:
            await database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            yield cls(database)

    async def add(self, logs: Sequence[Row]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM logs").fetchone()
            inserted = 0
            for start in range(0, len(logs), AT_ONCE):
                some = logs[start : start + AT_ONCE]
                inserted += connection.execute(_insert(len(some)), list(chain.from_iterable(some))).rowcount
            if inserted == len(logs):
                RANKED.added(connection, map(_user_and_time, logs))
            else:
                rows = connection.execute("SELECT user_id, created_at FROM logs WHERE seq > ?", (last,)).fetchall()
                RANKED.added(connection, rows)

        await self._database.write(work)

    async def page(self, user_id: uuid.UUID | None, start: int, length: int) -> Page:
        whose = EVERYBODY if user_id is None else str(user_id)
        theirs = "" if user_id is None else "user_id = :whose AND"

        def work(connection: sqlite3.Connection) -> Page:
            total, before, skip = RANKED.seek(connection, whose, start)
            if start >= total:  # which is also what keeps start within SQLite's 64 bits
                return Page([], total)
            cursor = connection.cursor()
            cursor.row_factory = None  # tuples
            rows: list[Row] = cursor.execute(
                f"""SELECT {COLUMNS} FROM logs WHERE {theirs} created_at < :before
                    ORDER BY created_at DESC, seq DESC LIMIT :length OFFSET :skip""",  # noqa: S608
                {"whose": whose, "before": before, "length": length, "skip": skip},
            ).fetchall()
            return Page(rows, total)

        return await self._database.glance(work)

    async def ping(self) -> None:
        await self._database.ping()


@cache
def _insert(count: int) -> str:
    # What cannot be written undoes the whole transaction; by default SQLite would keep a journal of every statement of
    # many rows, to undo that alone.
    values = ", ".join(["(?, ?, ?, ?, ?, ?)"] * count)
    return f"INSERT OR ROLLBACK INTO logs ({COLUMNS}) VALUES {values} ON CONFLICT (id) DO NOTHING"  # noqa: S608
