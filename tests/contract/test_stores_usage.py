"""What every usage store promises, over every backend."""

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from usage_service.config import Settings
from usage_service.store import Day, Event, OverLimit, Store, open_store

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TODAY = NOW.date()
TOMORROW = TODAY + timedelta(days=1)
LIFE = timedelta(seconds=300)
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


async def reserve(
    store: Store, upload: str, least: int, most: int | None = None, user: uuid.UUID = ANNE, **more: Any
) -> int | OverLimit | None:
    now = more.pop("now", NOW)
    when: dict[str, Any] = {"limit": 100, "day": now.date(), "now": now, "expires": now + LIFE} | more
    return await store.reserve(upload, user, least, most or least, **when)


def upload(upload_id: str, size: int, day: date = TODAY, user: uuid.UUID = ANNE) -> Event:
    return Event("upload", upload_id, user, day, size)


async def made_again(stores: tuple[Store, Store], change: Callable[[Store], Awaitable[object]]) -> object:
    """What the change answers, which is the same when it is made again, even by two at once."""
    answer = await change(stores[0])
    assert await asyncio.gather(*(change(store) for store in stores)) == [answer, answer]
    return answer


async def test_a_reservation_is_granted_the_most_that_fits(store: Store) -> None:
    assert await reserve(store, "a", 10, 60) == 60
    assert await reserve(store, "b", 10, 60) == 40


async def test_a_reservation_may_fill_the_limit_to_the_last_byte_and_not_one_more(store: Store) -> None:
    assert await reserve(store, "a", 101) == OverLimit(used=0)
    assert await reserve(store, "b", 99) == 99
    assert await reserve(store, "c", 2) == OverLimit(used=99)
    assert await reserve(store, "d", 1) == 1


async def test_a_refused_reservation_holds_nothing(store: Store) -> None:
    await reserve(store, "a", 60)
    assert await reserve(store, "b", 50) == OverLimit(used=60)
    assert await reserve(store, "c", 40) == 40


async def test_committed_uploads_count_against_the_limit(store: Store) -> None:
    await store.commit(upload("a", 70))
    assert await reserve(store, "b", 31) == OverLimit(used=70)
    assert await reserve(store, "c", 1, 100) == 30


async def test_a_day_that_is_over_its_limit_already_grants_nothing(store: Store) -> None:
    await store.commit(upload("a", 150))
    assert await reserve(store, "b", 1, 100) == OverLimit(used=150)


async def test_users_and_days_do_not_share_a_limit(store: Store) -> None:
    assert await reserve(store, "a", 100) == 100
    assert await reserve(store, "b", 100, user=BORIS) == 100
    assert await reserve(store, "c", 100, day=TOMORROW) == 100


async def test_a_repeated_reservation_answers_the_same_and_takes_no_more(store: Store) -> None:
    assert await reserve(store, "a", 10, 60) == 60
    assert await reserve(store, "a", 10, 60) == 60
    assert await reserve(store, "a", 90) == 60
    assert await reserve(store, "b", 40) == 40


async def test_a_repeated_reservation_lives_anew(store: Store) -> None:
    await reserve(store, "a", 60)
    await reserve(store, "a", 60, now=NOW + LIFE / 2)
    assert await reserve(store, "b", 50, now=NOW + LIFE * 1.4) == OverLimit(used=60)


async def test_a_reservation_renewed_after_midnight_still_counts_on_its_own_day(store: Store) -> None:
    late = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
    await reserve(store, "a", 60, now=late)
    assert await reserve(store, "a", 60, now=late + timedelta(minutes=2)) == 60
    assert await reserve(store, "b", 100, now=late + timedelta(minutes=2)) == 100
    await store.commit(upload("a", 50, TOMORROW))
    assert await store.day(ANNE, TODAY) == Day(uploaded=50, uploads=1)
    assert await store.day(ANNE, TOMORROW) == Day()


async def test_another_users_upload_cannot_be_reserved(store: Store) -> None:
    await reserve(store, "a", 60)
    assert await reserve(store, "a", 60, user=BORIS) is None
    await store.commit(upload("a", 60))
    assert await reserve(store, "a", 60, user=BORIS) is None


async def test_an_upload_that_was_committed_answers_its_size(store: Store) -> None:
    await reserve(store, "a", 60)
    await store.commit(upload("a", 55))
    assert await reserve(store, "a", 60) == 55
    assert await reserve(store, "b", 45) == 45


async def test_an_expired_reservation_counts_no_more_swept_or_not(store: Store) -> None:
    await reserve(store, "a", 100)
    assert await reserve(store, "b", 1, now=NOW + LIFE - timedelta(microseconds=1)) == OverLimit(used=100)
    assert await reserve(store, "b", 100, now=NOW + LIFE) == 100


async def test_a_clock_that_is_behind_renews_nothing_whose_bytes_were_given_to_another(store: Store) -> None:
    await reserve(store, "a", 100)
    assert await reserve(store, "b", 100, now=NOW + LIFE) == 100
    assert await reserve(store, "a", 100, now=NOW + LIFE / 2) == OverLimit(used=100)


async def test_an_upload_whose_reservation_has_expired_is_anybodys_on_any_day(store: Store) -> None:
    await reserve(store, "a", 100)
    assert await reserve(store, "a", 70, user=BORIS, now=NOW + LIFE, day=TOMORROW) == 70
    assert await reserve(store, "b", 31, user=BORIS, now=NOW + LIFE, day=TOMORROW) == OverLimit(used=70)
    assert await reserve(store, "c", 100) == 100


async def test_a_sweep_drops_what_has_expired_and_nothing_else(store: Store) -> None:
    await reserve(store, "a", 10)
    await reserve(store, "b", 10, user=BORIS)
    await reserve(store, "c", 10, now=NOW + LIFE / 2)
    assert await store.sweep(NOW + LIFE) == 2
    assert await store.sweep(NOW + LIFE) == 0
    assert await reserve(store, "d", 91, now=NOW + LIFE) == OverLimit(used=10)


async def test_released_bytes_can_be_reserved_again(store: Store) -> None:
    await reserve(store, "a", 100)
    await store.release("a")
    await store.release("a")
    await store.release("unknown")
    assert await reserve(store, "b", 100) == 100


async def test_a_commit_frees_what_was_reserved_and_not_used(store: Store) -> None:
    await reserve(store, "a", 10, 100)
    await store.commit(upload("a", 40))
    assert await store.day(ANNE, TODAY) == Day(uploaded=40, uploads=1)
    assert await reserve(store, "b", 10, 100) == 60


async def test_a_commit_counts_without_a_reservation_and_after_it_has_expired(store: Store) -> None:
    await store.commit(upload("a", 40))
    await reserve(store, "b", 10)
    await store.sweep(NOW + LIFE)
    await store.commit(upload("b", 10, TOMORROW))
    assert await store.day(ANNE, TODAY) == Day(uploaded=40, uploads=1)
    assert await store.day(ANNE, TOMORROW) == Day(uploaded=10, uploads=1)


async def test_a_commit_is_never_refused_by_the_limit(store: Store) -> None:
    for number in range(5):
        await store.commit(upload(f"a{number}", 50))
    assert (await store.day(ANNE, TODAY)).uploaded == 250


async def test_a_commit_leaves_another_users_reservation_alone(store: Store) -> None:
    await reserve(store, "a", 60)
    await store.commit(upload("a", 60, user=BORIS))
    assert await reserve(store, "b", 50) == OverLimit(used=60)


async def test_committed_figures_are_exact_in_any_order_and_with_any_repetition(store: Store) -> None:
    steps = {
        "reserve": lambda id: reserve(store, id, 1, 5, limit=10**9),
        "commit": lambda id: store.commit(upload(id, 3)),
        "commit again": lambda id: store.commit(upload(id, 3)),
        "release": store.release,
        "delete": lambda id: store.count([Event("deletion", id, ANNE, TODAY)] * 2),
    }
    orders = list(itertools.permutations(steps))
    for number, order in enumerate(orders):
        for step in order:
            await steps[step](f"upload-{number}")
    assert await store.day(ANNE, TODAY) == Day(uploaded=3 * len(orders), uploads=len(orders), deletions=len(orders))
    assert await store.sweep(NOW + LIFE) == 0, "a commit leaves no reservation behind"


async def test_deletions_and_streams_count_once_each_and_take_nothing_from_what_was_uploaded(store: Store) -> None:
    await store.commit(upload("a", 40))
    events = [
        Event("deletion", "a", ANNE, TODAY),
        Event("stream", "a", ANNE, TODAY, 1000),
        Event("stream", "b", ANNE, TODAY, 500),
        Event("stream", "b", ANNE, TODAY, 500),
        Event("stream", "c", BORIS, TODAY, 7),
        Event("stream", "d", ANNE, TOMORROW, 9),
    ]
    await store.count(events)
    await store.count(events[::-1])
    assert await store.day(ANNE, TODAY) == Day(uploaded=40, streamed=1500, uploads=1, deletions=1)
    assert await store.day(BORIS, TODAY) == Day(streamed=7)
    assert await store.day(ANNE, TOMORROW) == Day(streamed=9)
    assert await reserve(store, "e", 60) == 60


async def test_a_day_on_which_nothing_happened_is_all_zero(store: Store) -> None:
    assert await store.day(ANNE, TODAY) == Day(0, 0, 0, 0)


async def test_fifty_reservations_at_the_edge_never_exceed_it_and_as_many_win_as_fit(
    stores: tuple[Store, Store],
) -> None:
    answers = await asyncio.gather(*(reserve(stores[number % 2], f"a{number}", 3) for number in range(50)))
    assert sorted(answer for answer in answers if isinstance(answer, int)) == [3] * 33
    assert await reserve(stores[0], "last", 1) == 1
    assert await reserve(stores[1], "none", 1) == OverLimit(used=100)


async def test_fifty_greedy_reservations_share_exactly_the_limit(stores: tuple[Store, Store]) -> None:
    answers = await asyncio.gather(*(reserve(stores[number % 2], f"a{number}", 1, 7) for number in range(50)))
    assert sum(answer for answer in answers if isinstance(answer, int)) == 100


async def test_a_change_whose_answer_was_lost_may_be_made_again_and_happens_once(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    assert await made_again(stores, lambda store: reserve(store, "a", 10, 60)) == 60
    assert await made_again(stores, lambda store: reserve(store, "b", 41)) == OverLimit(used=60)
    assert await made_again(stores, lambda store: reserve(store, "a", 10, user=BORIS)) is None
    await made_again(stores, lambda store: store.commit(upload("a", 55)))
    assert await made_again(stores, lambda store: reserve(store, "a", 10, 60)) == 55
    await reserve(store, "c", 45)
    await made_again(stores, lambda store: store.release("c"))
    assert await made_again(stores, lambda store: reserve(store, "d", 45)) == 45
    events = [Event("deletion", "a", ANNE, TODAY), Event("stream", "a", ANNE, TODAY, 7)]
    await made_again(stores, lambda store: store.count(events))
    assert await store.day(ANNE, TODAY) == Day(uploaded=55, streamed=7, uploads=1, deletions=1)


async def test_sweeps_at_once_drop_each_reservation_once_and_forget_each_report_once(
    stores: tuple[Store, Store],
) -> None:
    for number in range(20):
        await reserve(stores[0], f"a{number}", 5)
    await stores[0].count([Event("stream", f"a{number}", ANNE, TODAY, 7) for number in range(20)])
    dropped = await asyncio.gather(*(stores[number % 2].sweep(NOW + LIFE) for number in range(10)))
    assert sum(dropped) == 20
    forgotten = await asyncio.gather(*(stores[number % 2].forget_streamed(TOMORROW) for number in range(10)))
    assert sum(forgotten) == 20
    assert await stores[0].sweep(NOW + LIFE) == await stores[1].forget_streamed(TOMORROW) == 0


async def test_everything_at_once_in_any_order_leaves_exact_figures(stores: tuple[Store, Store]) -> None:
    users = [ANNE, BORIS]
    uploads = [upload(f"a{number}", 3, user=users[number % 2]) for number in range(20)]
    streams = [Event("stream", f"s{number}", users[number % 2], TODAY, 7) for number in range(100)]
    steps: list[Callable[[Store], Awaitable[object]]] = []
    for one in uploads:
        steps += [
            lambda store, one=one: reserve(store, one.id, 1, 5, user=one.user_id),
            lambda store, one=one: reserve(store, one.id, 1, 5, user=one.user_id, now=NOW + LIFE),
            lambda store, one=one: store.commit(one),
            lambda store, one=one: store.commit(one),
            lambda store, one=one: store.release(one.id),
            lambda store: store.count(random.sample(streams, 50)),
            lambda store: store.sweep(NOW + LIFE / 2),
        ]
    random.shuffle(steps)
    await asyncio.gather(*(step(random.choice(stores)) for step in steps))
    await stores[0].count(streams)
    for user in users:
        assert await stores[0].day(user, TODAY) == Day(uploaded=30, streamed=350, uploads=10)
    assert await stores[0].sweep(NOW + 3 * LIFE) == 0, "a commit leaves no reservation behind"


async def test_fifty_repetitions_of_one_reservation_at_once_hold_its_bytes_once(stores: tuple[Store, Store]) -> None:
    answers = await asyncio.gather(*(reserve(stores[number % 2], "a", 1, 60) for number in range(50)))
    assert answers == [60] * 50
    assert await reserve(stores[0], "b", 40) == 40


async def test_fifty_commits_of_one_upload_at_once_count_once(stores: tuple[Store, Store]) -> None:
    await asyncio.gather(*(stores[number % 2].commit(upload("a", 11)) for number in range(50)))
    assert await stores[0].day(ANNE, TODAY) == Day(uploaded=11, uploads=1)


async def test_commits_and_reservations_at_once_leave_exact_figures(stores: tuple[Store, Store]) -> None:
    async def one(number: int) -> int:
        granted = await reserve(stores[number % 2], f"a{number}", 4, 5)
        if not isinstance(granted, int):
            return 0
        await stores[(number + 1) % 2].commit(upload(f"a{number}", granted))
        await stores[number % 2].release(f"a{number}")
        return granted

    sizes = await asyncio.gather(*(one(number) for number in range(50)))
    assert sum(sizes) == 100
    assert (await stores[1].day(ANNE, TODAY)).uploaded == 100


async def test_what_was_counted_is_there_after_a_restart(store_settings: Callable[..., Settings]) -> None:
    settings = store_settings(Settings)
    async with open_store(settings) as before:
        await before.commit(upload("a", 40))
        await reserve(before, "b", 50)
    async with open_store(settings) as after:
        assert await after.day(ANNE, TODAY) == Day(uploaded=40, uploads=1)
        assert await reserve(after, "c", 20) == OverLimit(used=90)
        await after.ping()


async def test_forgotten_stream_reports_leave_every_figure_as_it_was(store: Store) -> None:
    await store.count([Event("stream", "a", ANNE, TODAY, 1000), Event("deletion", "b", ANNE, TODAY)])
    await store.commit(upload("c", 40))
    assert await store.forget_streamed(TODAY) == 0
    assert await store.forget_streamed(TOMORROW) == 1
    await store.commit(upload("c", 40))
    assert await store.day(ANNE, TODAY) == Day(uploaded=40, streamed=1000, uploads=1, deletions=1)


async def test_any_number_of_stream_reports_is_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usage_service.store.supabase.FORGET_AT_ONCE", 10)
    for many in (9, 10, 25):
        await store.count([Event("stream", f"{many}-{number}", ANNE, TODAY, 1) for number in range(many)])
        assert await store.forget_streamed(TOMORROW) == many
    assert (await store.day(ANNE, TODAY)).streamed == 44
