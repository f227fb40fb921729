"""A database from before the lists were counted keeps what it has, and has any page of it."""

import random
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from logging_service.store import Log
from logging_service.store.sqlite import MIGRATIONS, SqliteStore
from shared.clock import to_text
from shared.database import Sqlite

ANNE, BORIS = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


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
    async with Sqlite(path, MIGRATIONS[:1]) as database:
        for log in logs:
            await database.execute(
                """INSERT INTO logs (id, user_id, action_type, description, service_name, created_at)
                   VALUES (?, ?, ?, ?, ?, ?)""",
                log,
            )
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
