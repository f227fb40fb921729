"""Logs in one SQLite file."""

import sqlite3
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Self

from logging_service.store import Log, Page
from shared.cursor import Cursor
from shared.database import INLINE_ROWS, Schema, Sqlite

COLUMNS = ", ".join(Log._fields)
EVERYBODY = ""
"""The row of ``logs_totals`` that counts all logs."""
# Two statements: for `(created_at, seq) < (:time, :seq)` SQLite uses the first column of an index alone, and walks
# over all logs of that time.
_BEHIND = ("created_at = :time AND seq < :seq", "created_at < :time")
CHECKPOINT_PAGES = 4000
"""Of 4 KiB. Every batch writes to the same pages again, the ends of the indexes: they are carried over from the log of
the database (which is on the disk at each commit, as ever) less often than by default, where it is every 1000 pages."""
AT_ONCE = 100
"""Rows that one statement inserts. SQLite works without Python's lock; a statement for each row would ask for it after
each, and wait every time until whoever computes lets go of it."""

# A trigger that counts cost more than the row: `add` counts a batch at a time.
_TOTALS = """
    CREATE TABLE logs_totals (
        user_id TEXT PRIMARY KEY,
        logs INTEGER NOT NULL CHECK (logs >= 0)
    ) STRICT, WITHOUT ROWID;
    """
COUNT_ALL = """
    DELETE FROM logs_totals;
    INSERT INTO logs_totals SELECT user_id, count(*) FROM logs GROUP BY user_id;
    INSERT INTO logs_totals SELECT '', count(*) FROM logs
    """
"""For rows that were not written by ``add``."""
# A row's seq is the order of writing, and SQLite ends every index with it: both indexes give a page without sorting.
SCHEMA = Schema(
    version=3,
    script=f"""
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
    {_TOTALS}
    """,
    upgrades={2: f"DROP TABLE logs_ranks; {_TOTALS} {COUNT_ALL}"},
)


class SqliteStore:
    def __init__(self, database: Sqlite) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        async with Sqlite(path, SCHEMA) as database:
            await database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            yield cls(database)

    async def add(self, logs: Sequence[Log]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM logs").fetchone()
            inserted = 0
            for start in range(0, len(logs), AT_ONCE):
                some = logs[start : start + AT_ONCE]
                inserted += connection.execute(_insert(len(some)), list(chain.from_iterable(some))).rowcount
            if inserted == len(logs):
                added = Counter(log.user_id for log in logs)
            else:
                rows = connection.execute("SELECT user_id, count(*) FROM logs WHERE seq > ? GROUP BY user_id", (last,))
                added = Counter(dict(rows.fetchall()))
            added[EVERYBODY] = inserted
            connection.executemany(
                """INSERT INTO logs_totals VALUES (?, ?)
                   ON CONFLICT (user_id) DO UPDATE SET logs = logs + excluded.logs""",
                added.items(),
            )

        await self._database.write(work)

    async def page(self, user_id: uuid.UUID | None, start: int, length: int, after: Cursor | None = None) -> Page:
        if after:
            start = 0
        whose = EVERYBODY if user_id is None else str(user_id)
        theirs = "" if user_id is None else "user_id = :whose AND"
        values = {"whose": whose, "start": start} | (after._asdict() if after else {})

        def work(connection: sqlite3.Connection) -> Page:
            cursor = connection.cursor()
            cursor.row_factory = None  # tuples
            found = cursor.execute("SELECT logs FROM logs_totals WHERE user_id = ?", (whose,)).fetchone()
            total = found[0] if found else 0
            if start >= total:  # which is also what keeps start within SQLite's 64 bits
                return Page([], total)
            rows: list[tuple[Any, ...]] = []
            for place in _BEHIND if after else ("TRUE",):
                rows += cursor.execute(
                    f"""SELECT {COLUMNS}, seq FROM logs WHERE {theirs} {place}
                        ORDER BY created_at DESC, seq DESC LIMIT :most OFFSET :start""",  # noqa: S608
                    values | {"most": length + 1 - len(rows)},
                ).fetchall()
            logs = [Log._make(row[:-1]) for row in rows[:length]]
            return Page(logs, total, Cursor(logs[-1].created_at, rows[length - 1][-1]) if len(rows) > length else None)

        if start > INLINE_ROWS:
            return await self._database.read(work)
        return await self._database.read_inline(work)

    async def ping(self) -> None:
        await self._database.ping()


@cache
def _insert(count: int) -> str:
    # What cannot be written undoes the whole transaction; by default SQLite would keep a journal of every statement of
    # many rows, to undo that alone.
    values = ", ".join(["(?, ?, ?, ?, ?, ?)"] * count)
    return f"INSERT OR ROLLBACK INTO logs ({COLUMNS}) VALUES {values} ON CONFLICT (id) DO NOTHING"  # noqa: S608
