"""What every logging store promises, over every backend."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from logging_service.config import Settings
from logging_service.store import Log, Page, Store, open_store
from shared.clock import to_text
from shared.cursor import Cursor

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
ANNE = uuid.uuid4()
BORIS = uuid.uuid4()


@pytest.fixture
async def stores(store_settings: Callable[..., Settings]) -> AsyncIterator[tuple[Store, Store]]:
    """Two over the same data, as two instances of the service have them."""
    settings = store_settings(Settings)
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(open_store(settings)),
            await stack.enter_async_context(open_store(settings)),
        )


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


def log(description: str = "", user: uuid.UUID = ANNE, at: datetime = NOW, **more: Any) -> Log:
    return Log(
        id=str(more.get("id") or uuid.uuid4()),
        user_id=str(user),
        action_type="UPLOAD_VIDEO",
        description=description,
        service_name="VideoUploadService",
        created_at=to_text(at),
    )


def descriptions(page: Page) -> list[str]:
    return [row.description for row in page.logs]


async def test_a_log_comes_back_as_it_was_written(store: Store) -> None:
    written = log("Grüße 😀 'quoted'; DROP TABLE logs", at=NOW + timedelta(microseconds=1))
    await store.add([written])
    assert await store.page(ANNE, 0, 100) == Page([written], 1)
    assert await store.page(None, 0, 100) == Page([written], 1)


async def test_newest_come_first_and_at_one_instant_the_last_written(store: Store) -> None:
    await store.add([log("old", at=NOW - timedelta(days=1)), log("new", at=NOW + timedelta(microseconds=1))])
    await store.add([log("first", at=NOW), log("second", at=NOW)])
    await store.add([log("third", at=NOW), log("ancient", at=NOW - timedelta(days=9))])
    expected = ["new", "third", "second", "first", "old", "ancient"]
    assert descriptions(await store.page(ANNE, 0, 100)) == expected
    assert descriptions(await store.page(None, 0, 100)) == expected


async def test_pages_follow_one_another_without_gap_or_repetition(store: Store) -> None:
    await store.add([log(str(number), at=NOW + timedelta(seconds=number // 3)) for number in range(25)])
    for user in (ANNE, None):
        pages = [await store.page(user, start, 10) for start in (0, 10, 20)]
        assert [len(page.logs) for page in pages] == [10, 10, 5]
        assert [int(text) for page in pages for text in descriptions(page)] == list(range(24, -1, -1))
        assert {page.total for page in pages} == {25}


@pytest.mark.parametrize("start", [3, 4, 2**63 - 1, 2**63, 10**30])
async def test_past_the_end_is_an_empty_page_with_the_true_total(store: Store, start: int) -> None:
    await store.add([log() for _ in range(3)])
    assert await store.page(ANNE, start, 100) == Page([], 3)
    assert await store.page(None, start, 100) == Page([], 3)


@pytest.mark.parametrize("user", [ANNE, None])
async def test_the_pages_that_go_on_behind_one_another_are_the_list(store: Store, user: uuid.UUID | None) -> None:
    await store.add([log(str(number), at=NOW + timedelta(seconds=number // 3)) for number in range(25)])
    await store.add([log("another's", BORIS)])
    whole = (await store.page(user, 0, 100)).logs
    assert len(whole) == (25 if user else 26)
    for length in (1, 2, 5, 25, 26, 100):
        walked, page = [], await store.page(user, 0, length)
        walked += page.logs
        while page.next:
            page = await store.page(user, 9, length, page.next)  # start is not looked at
            assert page.logs
            assert page.total == len(whole)
            walked += page.logs
        assert walked == whole


async def test_behind_the_last_log_is_nothing_and_the_true_total(store: Store) -> None:
    await store.add([log() for _ in range(3)])
    for place in (Cursor("2000-01-01T00:00:00.000000Z", 1), Cursor("0001-01-01T00:00:00.000000Z", 0)):
        assert await store.page(ANNE, 0, 100, place) == await store.page(None, 0, 100, place) == Page([], 3)
        assert await store.page(BORIS, 0, 100, place) == Page([], 0)
    assert len((await store.page(ANNE, 0, 100, Cursor("9999-12-31T23:59:59.999999Z", 0))).logs) == 3


@pytest.mark.parametrize("user", [ANNE, None])
async def test_a_walk_has_nothing_twice_and_misses_nothing_while_logs_are_written(
    stores: tuple[Store, Store], user: uuid.UUID | None
) -> None:
    one, other = stores
    random.seed(7)

    def some(count: int) -> list[Log]:
        return [log("new", random.choice([ANNE, BORIS]), NOW + random.randrange(4) * MOMENT) for _ in range(count)]

    await other.add([written._replace(description="there") for written in some(100)])
    there = (await one.page(user, 0, 1000)).logs
    walked: list[Log] = []
    after: Cursor | None = None
    for _ in range(200):
        page, _ = await asyncio.gather(one.page(user, 0, 7, after), other.add(some(3)))
        walked += page.logs
        after = page.next
        if after is None:
            break
    assert after is None, "the list has an end"
    assert len(walked) == len(set(walked))
    assert [written for written in walked if written.description == "there"] == there


async def test_users_see_their_own_logs_only(store: Store) -> None:
    await store.add([log("a", ANNE), log("b", BORIS), log("c", ANNE)])
    assert descriptions(await store.page(ANNE, 0, 100)) == ["c", "a"]
    assert await store.page(uuid.uuid4(), 0, 100) == Page([], 0)
    everybody = await store.page(None, 0, 100)
    assert everybody.total == 3
    assert descriptions(everybody) == ["c", "b", "a"]


async def test_a_repeated_batch_writes_nothing_twice_and_counts_nothing_twice(store: Store) -> None:
    batch = [log(str(number), user) for number in range(5) for user in (ANNE, BORIS)]
    await store.add(batch)
    await store.add(batch)
    await store.add([batch[0], log("new"), batch[-1], batch[-1]])
    assert (await store.page(ANNE, 0, 100)).total == len((await store.page(ANNE, 0, 100)).logs) == 6
    assert (await store.page(BORIS, 0, 100)).total == 5
    assert (await store.page(None, 0, 100)).total == len((await store.page(None, 0, 100)).logs) == 11


async def test_a_change_whose_answer_was_lost_may_be_made_again_and_happens_once(stores: tuple[Store, Store]) -> None:
    batch = [log("a"), log("b", BORIS), log("c")]
    await stores[0].add(batch)
    await asyncio.gather(*(store.add(batch) for store in stores))
    assert await stores[0].page(None, 0, 100) == Page(batch[::-1], 3)
    assert await stores[0].page(ANNE, 0, 100) == Page([batch[2], batch[0]], 2)


async def test_a_batch_that_cannot_be_written_whole_is_not_written(store: Store) -> None:
    await store.add([])
    assert await store.page(None, 0, 100) == Page([], 0)
    with pytest.raises(Exception):  # noqa: B017, PT011  each database has its own
        await store.add([log("fine"), log("half a character: \ud800")])
    assert await store.page(None, 0, 100) == Page([], 0)


async def test_a_full_batch_is_written_in_its_order(store: Store) -> None:
    batch = [log(f"{number:04} 😀".ljust(500)) for number in range(1000)]
    await store.add(batch)
    assert await store.page(None, 0, 1000) == Page(batch[::-1], 1000)
    assert await store.page(ANNE, 990, 100) == Page(batch[9::-1], 1000)


async def test_batches_of_the_same_logs_in_any_order_do_not_hinder_each_other(stores: tuple[Store, Store]) -> None:
    logs = [log(str(number), user) for number in range(500) for user in (ANNE, BORIS)]
    orders = [random.sample(logs, len(logs)) for _ in range(10)]
    await asyncio.gather(*(stores[number % 2].add(order) for number, order in enumerate(orders)))
    for user, total in ((ANNE, 500), (BORIS, 500), (None, 1000)):
        page = await stores[0].page(user, 0, 1000)
        assert len(page.logs) == page.total == total


async def test_an_id_that_is_there_keeps_what_was_written_first(store: Store) -> None:
    known = uuid.uuid4()
    await store.add([log("first", id=known)])
    await store.add([log("second", id=known, user=BORIS)])
    assert descriptions(await store.page(None, 0, 100)) == ["first"]
    assert (await store.page(BORIS, 0, 100)).total == 0


async def test_batches_that_arrive_at_once_are_all_written_and_counted(stores: tuple[Store, Store]) -> None:
    batches = [[log(user=user) for user in (ANNE, BORIS) for _ in range(10)] for _ in range(100)]
    twice = [store.add(batch) for batch in batches for store in stores]
    await asyncio.gather(*twice)
    assert (await stores[0].page(None, 0, 1)).total == 2000
    assert (await stores[1].page(ANNE, 0, 1)).total == 1000
    assert len((await stores[1].page(BORIS, 0, 2000)).logs) == 1000


async def test_what_was_written_is_there_after_a_restart(store_settings: Callable[..., Settings]) -> None:
    settings = store_settings(Settings)
    async with open_store(settings) as before:
        await before.add([log("kept")])
    async with open_store(settings) as after:
        await after.ping()
        assert descriptions(await after.page(ANNE, 0, 100)) == ["kept"]
