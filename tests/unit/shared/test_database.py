"""SQLite: a transaction is a function, and a file may have more than one process."""

import asyncio
import contextlib
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.database import DatabaseError, Schema, Sqlite
from shared.errors import Unavailable

NUMBERS = "CREATE TABLE numbers (number INTEGER NOT NULL CHECK (number >= 0)) STRICT"
SCHEMA = Schema(1, NUMBERS)

SLOW = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n LIMIT 300000) SELECT sum(x) FROM n"

COUNTING = """
import asyncio, sys
from pathlib import Path
from shared.database import Schema, Sqlite

def one_more(connection):
    (number,) = connection.execute("SELECT coalesce(max(number), 0) FROM numbers").fetchone()
    connection.execute("INSERT INTO numbers VALUES (?)", (number + 1,))

async def main():
    async with Sqlite(Path(sys.argv[1]), Schema(1, sys.argv[2])) as database:
        for _ in range(100):
            await database.write(one_more)

asyncio.run(main())
"""

UPGRADING_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from shared.database import Schema, Sqlite

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

async def main():
    async with Sqlite(Path(sys.argv[1]), Schema(2, "", {1: f"INSERT INTO numbers VALUES (1); {ENDLESS}"})):
        pass

asyncio.run(main())
"""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Sqlite]:
    async with Sqlite(tmp_path / "folder" / "numbers.db", SCHEMA) as database:
        yield database


def add(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO numbers VALUES (?)", (number,))


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


async def test_nobody_else_may_read_what_is_kept(database: Sqlite, tmp_path: Path) -> None:
    await database.write(lambda connection: add(connection, 7))
    files = list((tmp_path / "folder").iterdir())
    assert len(files) > 1
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}


async def test_what_a_transaction_returns_is_committed(database: Sqlite) -> None:
    await database.write(lambda connection: add(connection, 7))
    assert await database.read(numbers) == [7]


@pytest.mark.parametrize("error", [RuntimeError("stop"), sqlite3.IntegrityError("stop"), KeyboardInterrupt()])
async def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(
    database: Sqlite, error: BaseException
) -> None:
    def half(connection: sqlite3.Connection) -> None:
        add(connection, 1)
        raise error

    with pytest.raises(type(error)):
        await database.write(half)
    await database.write(lambda connection: add(connection, 2))
    assert await database.read(numbers) == [2]


async def test_a_row_that_breaks_a_check_takes_the_whole_transaction_with_it(database: Sqlite) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(lambda connection: (add(connection, 1), add(connection, -1)))
    assert await database.read(numbers) == []


async def test_a_cancelled_request_leaves_its_transaction_whole(database: Sqlite) -> None:
    def slow(connection: sqlite3.Connection) -> None:
        add(connection, 1)
        connection.execute(SLOW)
        add(connection, 2)

    request = asyncio.create_task(database.write(slow))
    await asyncio.sleep(0.005)
    request.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await request
    await database.write(lambda connection: add(connection, 3))
    assert await database.read(numbers) in ([1, 2, 3], [3])


async def test_transactions_come_one_after_the_other(database: Sqlite) -> None:
    def one_more(connection: sqlite3.Connection) -> None:
        add(connection, len(numbers(connection)))

    await asyncio.gather(*(database.write(one_more) for _ in range(50)))
    assert await database.read(numbers) == list(range(50))


async def test_readers_see_one_snapshot_and_wait_for_no_writer(database: Sqlite) -> None:
    def read_twice(connection: sqlite3.Connection) -> tuple[list[int], list[int]]:
        first = numbers(connection)
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            add(other, 1)
        other.close()
        return first, numbers(connection)

    path = await database.read(lambda connection: connection.execute("PRAGMA database_list").fetchone()["file"])
    assert await database.read(read_twice) == ([], [])
    assert await database.read(numbers) == [1]


async def test_reading_inline_sees_the_last_commit_and_waits_for_no_writer(database: Sqlite) -> None:
    written, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        add(connection, 2)
        written.set()
        assert go_on.wait(10)

    await database.write(lambda connection: add(connection, 1))
    writing = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(written.wait)
    assert await database.read_inline(numbers) == [1]
    go_on.set()
    await writing
    assert await database.read_inline(numbers) == [1, 2]


async def test_reading_inline_that_would_have_to_wait_does_so_on_another_thread(database: Sqlite) -> None:
    threads = []

    def locked_at_first(connection: sqlite3.Connection) -> list[int]:
        threads.append(threading.current_thread())
        if len(threads) == 1:
            raise sqlite3.OperationalError("database is locked")
        return numbers(connection)

    await database.write(lambda connection: add(connection, 1))
    assert await database.read_inline(locked_at_first) == [1]
    assert threads[0] is threading.current_thread() is not threads[1]
    assert await database.read_inline(numbers) == [1]


async def test_a_database_that_does_not_answer_is_a_503(database: Sqlite) -> None:
    await database.ping()
    with pytest.raises(Unavailable):
        await database.read(lambda connection: connection.execute("SELECT * FROM nowhere"))
    with pytest.raises(Unavailable):
        await database.fetch_one("SELECT * FROM nowhere")


async def count_in_two_processes(path: Path) -> list[int]:
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTING, str(path), NUMBERS) for _ in range(2)
    ]
    return [await process.wait() for process in processes]


async def test_two_processes_over_one_file_lose_nothing(tmp_path: Path) -> None:
    async with Sqlite(tmp_path / "numbers.db", SCHEMA) as database:
        assert await count_in_two_processes(tmp_path / "numbers.db") == [0, 0]
        assert await database.read(numbers) == list(range(1, 201))


async def test_two_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    for attempt in range(3):
        assert await count_in_two_processes(tmp_path / f"{attempt}.db") == [0, 0]


async def test_a_step_that_several_make_at_once_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    async with Sqlite(path, SCHEMA):
        pass
    schema = Schema(2, NUMBERS, {1: f"INSERT INTO numbers VALUES (1); {SLOW}"})
    async with contextlib.AsyncExitStack() as stack:
        opening = (stack.enter_async_context(Sqlite(path, schema)) for _ in range(8))
        for database in await asyncio.gather(*opening):
            assert await database.read(numbers) == [1]


def upgraded(version: int) -> Schema:
    """Each version has one number more."""
    ones = [f"INSERT INTO numbers VALUES ({number})" for number in range(1, version)]
    return Schema(version, ";".join([NUMBERS, *ones]), dict(enumerate(ones, 1)))


async def test_a_file_of_any_version_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    for first in range(1, 5):
        path = tmp_path / f"{first}.db"
        for version in (first, 4, 4):
            async with Sqlite(path, upgraded(version)) as database:
                assert await database.read(numbers) == list(range(1, version))


@pytest.mark.parametrize("script", ["nonsense", "INSERT INTO numbers VALUES (-1)", "INSERT INTO nowhere VALUES (1)"])
async def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, script: str) -> None:
    path = tmp_path / "numbers.db"
    async with Sqlite(path, SCHEMA):
        pass
    broken = Schema(2, NUMBERS, {1: f"INSERT INTO numbers VALUES (1);\n{script}"})
    with pytest.raises(DatabaseError, match=r"numbers\.db"):
        async with Sqlite(path, broken):
            pass
    async with Sqlite(path, SCHEMA) as database:
        assert await database.read(numbers) == []


async def test_a_process_that_dies_in_a_step_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    async with Sqlite(path, SCHEMA):
        pass
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", UPGRADING_FOR_EVER, str(path))
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        while not is_locked(other):
            assert process.returncode is None
            await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    async with Sqlite(path, SCHEMA) as database:
        assert await database.read(numbers) == []


def is_locked(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    connection.execute("ROLLBACK")
    return False


async def test_a_file_that_a_newer_version_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    async with Sqlite(path, Schema(2, NUMBERS)):
        pass
    with pytest.raises(DatabaseError, match="newer version of this service"):
        async with Sqlite(path, SCHEMA):
            pass


async def test_a_file_from_which_no_upgrade_leads_on_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    async with Sqlite(path, SCHEMA):
        pass
    with pytest.raises(DatabaseError, match=r"schema 1\)") as refused:
        async with Sqlite(path, Schema(3, NUMBERS, {2: "DROP TABLE numbers"})):
            pass
    assert "\n" not in str(refused.value)
    async with Sqlite(path, SCHEMA) as database:
        assert await database.read(numbers) == []


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    path.write_text("not a database, and longer than its header would be " * 10)
    with pytest.raises(DatabaseError):
        async with Sqlite(path, SCHEMA):
            pass
