"""SQLite opened the way every service needs it: one file, one writer, a few readers, and transactions as functions.

A transaction is a plain function over a ``sqlite3.Connection``. It runs on the writer's own thread between BEGIN
IMMEDIATE and COMMIT: nothing of another request can come between its statements, a cancelled request cannot leave it
half done, and it costs one hop between threads however many statements it has. (It is what one SQL function is on
PostgreSQL.)
"""

import asyncio
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from shared.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
Parameters = Sequence[str | int | float | None] | Mapping[str, str | int | float | None]
BUSY_SECONDS = 10
READERS = 2
INLINE_ROWS = 1000
"""As many rows are skipped in 0.1 ms, which the event loop can spare: see ``Sqlite.read_inline``."""


class DatabaseError(Exception):
    """The database cannot be opened; the text is for the person who starts the service."""


@dataclass(frozen=True)
class Schema:
    """What a file holds. ``script`` makes ``version`` in an empty file; SQLite keeps the number as ``user_version``.

    ``upgrades`` lead from older versions, each to the one after it. A version without a way to this one is refused.
    """

    version: int
    script: str
    upgrades: Mapping[int, str] = field(default_factory=dict)


class Sqlite:
    """One SQLite file in WAL mode. Every failure of the database itself is raised as ``Unavailable`` (503)."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path = path
        self._schema = schema
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._here: sqlite3.Connection | None = None
        self._opened: list[sqlite3.Connection] = []

    async def __aenter__(self) -> Self:
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._migrate)
            self._here = self._open(wait=0)
        except (OSError, sqlite3.Error) as error:
            await self.__aexit__()
            raise DatabaseError(f"the database {self._path} cannot be opened: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._close)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` as one transaction. It is committed and on the disk when this returns.

        What ``work`` returns leaves its thread: rows and values, never a cursor.
        """
        return await self._run(self._writer, lambda: _transaction(self._connection(), "BEGIN IMMEDIATE", work))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work``, which only reads, over one snapshot of the last commit, on a reader's thread."""
        return await self._run(self._readers, lambda: _transaction(self._connection(), "BEGIN", work))

    async def read_inline(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``read`` for a few rows that an index finds, in the event loop itself.

        The way to a thread and back costs a request for a page of videos 1.4 times its processor time. A reader waits
        for no writer in WAL mode; what cannot be read at once all the same is left to ``read``, which may wait.
        """
        assert self._here is not None, "the database is not open"
        try:
            return _transaction(self._here, "BEGIN", work)
        except sqlite3.DatabaseError:
            return await self.read(work)

    async def execute(self, statement: str, parameters: Parameters = ()) -> int:
        """One statement as a transaction; how many rows it changed."""
        return await self.write(lambda connection: connection.execute(statement, parameters).rowcount)

    async def fetch_all(self, query: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        return await self.read(lambda connection: connection.execute(query, parameters).fetchall())

    async def fetch_one(self, query: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The row that an index finds, or None."""
        assert self._here is not None, "the database is not open"
        try:
            row: sqlite3.Row | None = self._here.execute(query, parameters).fetchone()  # a snapshot by itself
        except sqlite3.DatabaseError:
            return await self.read(lambda connection: connection.execute(query, parameters).fetchone())
        return row

    async def ping(self) -> None:
        """Raise ``Unavailable`` unless the database answers."""
        await self.fetch_one("SELECT 1")

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError):
            raise  # ours, not the database's
        except sqlite3.DatabaseError as error:  # locked, disk full, file gone or damaged
            log.exception("the database does not answer")
            raise Unavailable("The database does not answer; please try again.", reason=str(error)) from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection: the writer has one thread, each reader its own."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._open(wait=BUSY_SECONDS)
        return self._local.connection  # type: ignore[no-any-return]

    def _open(self, *, wait: float) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=wait, isolation_level=None, check_same_thread=False)
        self._opened.append(connection)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _migrate(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _one_process(self._path.parent):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's other files take this mode, too
            connection = self._connection()
            connection.execute("PRAGMA journal_mode = WAL")  # the file keeps it
            while (version := connection.execute("PRAGMA user_version").fetchone()[0]) != self._schema.version:
                script, next_version = self._step(version)
                with connection:
                    # ``executescript`` commits what was begun before it, so the transaction is a part of the script.
                    connection.executescript(
                        f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {next_version}; COMMIT;"
                    )

    def _step(self, version: int) -> tuple[str, int]:
        """The script that leads on from ``version``, and the version that it leads to."""
        if version == 0:
            return self._schema.script, self._schema.version
        if version in self._schema.upgrades:
            return self._schema.upgrades[version], version + 1
        which = "a newer version of this service"
        if version < self._schema.version:
            which = "a version of this service that is too old"
        raise sqlite3.DatabaseError(f"it was written by {which} (schema {version})")

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        for connection in self._opened:
            connection.close()


@contextmanager
def _one_process(folder: Path) -> Iterator[None]:
    """Wait until no other process, nor thread, is in here with this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _transaction(connection: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
    with connection:  # it commits, or rolls back after an error
        connection.execute(begin)
        return work(connection)
