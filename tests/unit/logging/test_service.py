"""The rules of the log, over a store that remembers what it was given."""

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from logging_service.service import LoggingService
from logging_service.store import Log, Page
from shared.auth import User
from shared.contracts import LogEntry
from shared.cursor import Cursor
from shared.errors import Forbidden

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLACE = Cursor("2026-11-24T12:00:00.000000Z", 7)
ANNE = User(id=uuid.uuid4(), email="anne@example.test", role="user")
BORIS = User(id=uuid.uuid4(), email="boris@example.test", role="user")
ADMIN = User(id=uuid.uuid4(), email="admin@example.test", role="admin")


class FakeStore:
    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.asked: list[tuple[uuid.UUID | None, int, int, Cursor | None]] = []

    async def add(self, logs: list[Log]) -> None:
        self.logs += logs

    async def page(self, user_id: uuid.UUID | None, start: int, length: int, after: Cursor | None) -> Page:
        self.asked.append((user_id, start, length, after))
        return Page([], 0)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def logs(store: Any) -> LoggingService:
    return LoggingService(store, clock=lambda: NOW)


def entry(**more: Any) -> LogEntry:
    return LogEntry(user_id=ANNE.id, action="LOGIN", description="Logged in", service="UserAccountService", **more)


async def test_an_entry_is_written_under_the_tables_names(logs: LoggingService, store: FakeStore) -> None:
    known, then = uuid.uuid4(), NOW - timedelta(hours=1)
    await logs.write([entry(id=known, created_at=then)])
    assert store.logs == [
        Log(str(known), str(ANNE.id), "LOGIN", "Logged in", "UserAccountService", "2026-11-24T11:00:00.000000Z")
    ]


async def test_times_of_any_zone_are_one_time(logs: LoggingService, store: FakeStore) -> None:
    await logs.write([entry(created_at=NOW.astimezone(timezone(timedelta(hours=14))))])
    assert [log.created_at for log in store.logs] == ["2026-11-24T12:00:00.000000Z"]


async def test_a_row_is_written_as_it_is(logs: LoggingService, store: FakeStore) -> None:
    row = Log("an id", "a user", "LOGIN", "Logged in", "UserAccountService", "a time")
    await logs.write([row, entry()])
    assert store.logs[0] is row


async def test_a_missing_id_and_time_are_filled_in(logs: LoggingService, store: FakeStore) -> None:
    await logs.write([entry(), entry()])
    assert [log.created_at for log in store.logs] == ["2026-11-24T12:00:00.000000Z"] * 2
    assert store.logs[0].id != store.logs[1].id


async def test_people_see_their_own_and_administrators_everybodys(logs: LoggingService, store: FakeStore) -> None:
    await logs.of_user(ANNE, ANNE.id, 0)
    await logs.of_user(ADMIN, ANNE.id, 100)
    await logs.of_all(200, PLACE)
    assert store.asked == [(ANNE.id, 0, 100, None), (ANNE.id, 100, 100, None), (None, 200, 100, PLACE)]
    with pytest.raises(Forbidden):
        await logs.of_user(BORIS, ANNE.id, 0)
