"""A data file of the release before opens with all that it has; its lists are counted and paged through."""

import random
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from datafiles import schema

from logging_service.store import Log
from logging_service.store.sqlite import SqliteStore
from shared.clock import to_text

ANNE, BORIS = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
BEFORE = Path(__file__).with_name("logs_2.sql").read_text()


@pytest.mark.parametrize("count", [0, 3, 2000])
async def test_logs_from_before_are_there_page_by_page_and_not_written_again(tmp_path: Path, count: int) -> None:
    random.seed(count)
    logs = [
        Log(
            str(uuid.uuid4()),
            str(BORIS if number % 5 == 0 else ANNE),
            "LOGIN",
            str(number),
            "UserAccountService",
            to_text(NOON + timedelta(seconds=random.choice([7, number, random.randrange(10**6)]))),
        )
        for number in range(count)
    ]
    path = tmp_path / "logs.db"
    database = sqlite3.connect(path)
    database.executescript(BEFORE)
    database.executemany(
        """INSERT INTO logs (id, user_id, action_type, description, service_name, created_at)
           VALUES (?, ?, ?, ?, ?, ?)""",
        logs,
    )
    database.execute("INSERT INTO logs_ranks VALUES ('', 0, '', ?)", (count,))
    database.commit()
    database.close()
    async with SqliteStore.open(path) as store:
        for start in range(0, len(logs), 900):
            await store.add(logs[start : start + 900])  # all of them are there
        one_more = Log(str(uuid.uuid4()), str(ANNE), "LOGIN", "new", "UserAccountService", to_text(NOON))
        await store.add([*logs[:3], one_more, one_more])
    logs.append(one_more)
    async with SqliteStore.open(path) as store:
        for user in (ANNE, BORIS, None):
            true = [log for log in logs if user in (None, uuid.UUID(log.user_id))]
            true.reverse()
            true.sort(key=lambda log: log.created_at, reverse=True)  # the last written first
            for start in {0, len(true), *range(0, len(true), 97)}:
                page = await store.page(user, start, 100)
                assert page.logs == true[start : start + 100]
                assert page.total == len(true)
                if page.next:
                    assert (await store.page(user, 0, 100, page.next)).logs == true[start + 100 : start + 200]


async def test_a_file_from_before_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "old.db")
    database.executescript(BEFORE)
    database.close()
    for name in ("old.db", "new.db"):
        async with SqliteStore.open(tmp_path / name):
            pass
    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")
