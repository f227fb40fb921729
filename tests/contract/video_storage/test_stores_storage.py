"""What every ledger of storage-service promises, over every backend."""

import asyncio
import itertools
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta

import pytest

from shared.contracts import StoredVideo
from shared.errors import Conflict
from storage_service.config import Settings
from storage_service.store import Store, open_store

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIFE = timedelta(seconds=300)
MOMENT = timedelta(microseconds=1)
ANN, BEN = uuid.uuid4(), uuid.uuid4()
LIMIT = 1000


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


def video(size: int) -> StoredVideo:
    return StoredVideo(size=size, content_type="video/webm", duration=None, width=64, height=48)


async def reserve(
    store: Store, name: str, least: int, most: int | None = None, *, user: uuid.UUID = ANN, now: datetime = NOW
) -> int | None:
    claim = await store.reserve(name, user, least, most or least, limit=LIMIT, now=now, until=now + LIFE)
    return claim.granted if claim else None


async def kept(store: Store, name: str, size: int, granted: int | None = None) -> None:
    assert await reserve(store, name, granted or size)
    assert await store.store(name, video(size))
    await store.keep([name])


async def left(store: Store, user: uuid.UUID = ANN) -> int:
    """What a reservation could still get: the limit less all that is kept and reserved."""
    probe = uuid.uuid4().hex
    granted = await reserve(store, probe, 1, LIMIT, user=user)
    await store.delete([probe], NOW)
    return granted or 0


async def state(store: Store, name: str) -> str | None:
    found = await store.find(name)
    return found.state if found else None


async def test_a_reservation_is_granted_the_most_that_fits(store: Store) -> None:
    assert await reserve(store, "a", 10, 600) == 600
    assert await reserve(store, "b", 10, 600) == 400
    assert await reserve(store, "c", 1) is None
    assert await state(store, "c") is None
    assert await reserve(store, "d", LIMIT, user=BEN) == LIMIT


async def test_a_reservation_may_fill_the_limit_to_the_last_byte_and_not_one_more(store: Store) -> None:
    assert await reserve(store, "a", LIMIT + 1) is None
    assert await reserve(store, "b", LIMIT - 1) == LIMIT - 1
    assert await reserve(store, "c", 2) is None
    assert await reserve(store, "d", 1) == 1
    assert await left(store) == 0


async def test_a_repeated_reservation_answers_its_first_grant_and_takes_no_more(stores: tuple[Store, Store]) -> None:
    for store in stores:
        assert await reserve(store, "a", 10, 600) == 600
        assert await reserve(store, "a", 700, 800) == 600
        assert await left(store) == 400


async def test_a_filename_belongs_to_its_first_user_and_is_never_given_out_again(store: Store) -> None:
    await reserve(store, "a", 10)
    with pytest.raises(Conflict):
        await reserve(store, "a", 10, user=BEN)
    await store.delete(["a"], NOW)
    for user in (ANN, BEN):
        with pytest.raises(Conflict):
            await reserve(store, "a", 10, user=user)
    assert (await left(store), await left(store, BEN)) == (LIMIT, LIMIT)


async def test_a_session_is_noted_once_for_an_upload_and_found_until_it_is_stored(stores: tuple[Store, Store]) -> None:
    one, other = stores
    await reserve(one, "a", 100)
    assert [await one.note_session("a", "uri"), await other.note_session("a", "uri")] == [True, True]
    assert not await other.note_session("a", "another")
    assert not await one.note_session("unknown", "uri")
    claim = await other.reserve("a", ANN, 100, 100, limit=LIMIT, now=NOW, until=NOW + LIFE)
    assert claim == (100, "uri")
    found = await one.find("a")
    assert found is not None
    assert found.session == "uri"
    await one.store("a", video(100))
    found = await one.find("a")
    assert found is not None
    assert found.session is None
    assert not await one.note_session("a", "late")


async def test_the_sessions_of_what_is_deleted_are_told_to_be_cancelled(store: Store) -> None:
    for name in ("a", "b"):
        await reserve(store, name, 100)
        await store.note_session(name, f"uri-{name}")
    await reserve(store, "c", 100)
    for _ in range(2):  # the answer to the first may be lost
        assert await store.delete(["a", "c", "unknown"], NOW) == {"a": "uri-a"}
    await store.delete_expired(NOW + LIFE, 10)
    assert await store.removable(NOW + LIFE, 10) == {"a": "uri-a", "b": "uri-b", "c": None}


async def test_what_is_stored_cannot_be_reserved_again(store: Store) -> None:
    await reserve(store, "a", 100)
    await store.store("a", video(100))
    with pytest.raises(Conflict):
        await reserve(store, "a", 100)


async def test_what_is_kept_counts_with_its_exact_size(store: Store) -> None:
    await kept(store, "a", 333, granted=500)
    assert await store.kept_bytes(ANN) == 333
    assert await left(store) == LIMIT - 333
    assert await store.kept_bytes(BEN) == 0


async def test_an_object_is_found_as_it_stands(store: Store) -> None:
    assert await store.find("a") is None
    await reserve(store, "a", 500)
    found = await store.find("a")
    assert found is not None
    assert (found.user_id, found.state, found.granted, found.video, found.created_at) == (
        ANN,
        "reserved",
        500,
        None,
        NOW,
    )
    assert not found.is_readable
    await store.store("a", video(333))
    found = await store.find("a")
    assert found is not None
    assert (found.state, found.video, found.is_readable) == ("stored", video(333), True)


async def test_only_what_is_reserved_becomes_stored_and_never_with_more_than_its_grant(store: Store) -> None:
    assert not await store.store("unknown", video(1))
    await reserve(store, "a", 100)
    assert not await store.store("a", video(101))
    assert await state(store, "a") == "reserved"
    for _ in range(2):  # the answer to the first may be lost
        assert await store.store("a", video(100))
    assert not await store.store("a", video(50))
    await store.keep(["a"])
    assert not await store.store("a", video(50))
    await store.delete(["a"], NOW)
    assert not await store.store("a", video(50))
    assert await left(store) == LIMIT


async def test_keeping_twice_counts_once_and_passes_over_what_is_not_stored(store: Store) -> None:
    await reserve(store, "reserved", 100)
    await reserve(store, "a", 300)
    await store.store("a", video(200))
    for _ in range(2):
        await store.keep(["unknown", "reserved", "a", "a"])
    assert await store.kept_bytes(ANN) == 200
    assert await left(store) == LIMIT - 200 - 100
    assert await state(store, "reserved") == "reserved"


async def test_deleting_frees_the_bytes_once_in_any_state(store: Store) -> None:
    await reserve(store, "reserved", 100)
    await reserve(store, "stored", 200)
    await store.store("stored", video(150))
    await kept(store, "kept", 250, granted=300)
    for _ in range(2):
        await store.delete(["unknown", "reserved", "stored", "kept", "kept"], NOW)
    assert (await store.kept_bytes(ANN), await left(store)) == (0, LIMIT)
    await store.keep(["stored", "kept"])
    assert (await store.kept_bytes(ANN), await left(store)) == (0, LIMIT)
    assert {await state(store, name) for name in ("reserved", "stored", "kept")} == {"deleted"}


async def test_an_expired_reservation_is_deleted_and_a_stored_object_never(store: Store) -> None:
    await reserve(store, "reserved", 100)
    await reserve(store, "stored", 100)
    await store.store("stored", video(100))
    await kept(store, "kept", 100)
    await reserve(store, "renewed", 100)
    await reserve(store, "renewed", 100, now=NOW + MOMENT)
    assert await store.delete_expired(NOW + LIFE - MOMENT, 10) == 0
    assert await store.delete_expired(NOW + LIFE, 10) == 1
    assert await store.delete_expired(NOW + LIFE, 10) == 0
    assert await state(store, "reserved") == "deleted"
    assert await store.removable(NOW + LIFE, 10) == {"reserved": None}
    assert await left(store) == LIMIT - 300
    assert await store.delete_expired(NOW + LIFE + MOMENT, 10) == 1


async def test_the_catalogue_is_asked_about_what_is_stored_and_expired_and_nothing_else(store: Store) -> None:
    await reserve(store, "reserved", 10)
    await kept(store, "kept", 10)
    for name in ("a", "b", "c"):
        await reserve(store, name, 10)
        await store.store(name, video(10))
    assert await store.unkept(NOW + LIFE - MOMENT, 10) == []
    assert set(await store.unkept(NOW + LIFE, 10)) == {"a", "b", "c"}
    assert len(await store.unkept(NOW + LIFE, 2)) == 2
    await store.keep(["a"])
    await store.delete(["b"], NOW)
    assert await store.unkept(NOW + LIFE, 10) == ["c"]


async def test_files_are_removed_twice_and_then_the_row_is_forgotten(store: Store) -> None:
    later = NOW + timedelta(days=1)
    await kept(store, "kept", 10)
    await kept(store, "a", 10)
    await store.delete(["a"], NOW)
    assert await store.removable(NOW - MOMENT, 10) == {}
    assert await store.removable(NOW, 10) == {"a": None}
    for name in ("a", "kept", "unknown"):
        for _ in range(2):  # the answer to the first may be lost
            await store.removed(name, NOW, later)
    assert await store.removable(later - MOMENT, 10) == {}
    assert await store.removable(later, 10) == {"a": None}
    for _ in range(2):
        await store.removed("a", later, later + LIFE)
    assert await state(store, "a") is None
    assert await store.removable(later, 10) == {}
    assert await state(store, "kept") == "kept"


async def test_a_sweep_takes_the_oldest_first_and_no_more_than_it_asked_for(store: Store) -> None:
    for number, name in enumerate(("c", "a", "b")):
        await reserve(store, name, 10, now=NOW + number * MOMENT)
    assert await store.delete_expired(NOW + LIFE * 2, 2) == 2
    assert [await state(store, name) for name in ("c", "a", "b")] == ["deleted", "deleted", "reserved"]


@pytest.mark.parametrize(("least", "most"), [(30, 30), (1, 30), (17, 90)])
async def test_fifty_reservations_at_once_on_two_instances_never_exceed_the_limit_and_as_many_as_fit_are_accepted(
    stores: tuple[Store, Store], least: int, most: int
) -> None:
    await kept(stores[0], "before", 123)
    grants = await asyncio.gather(
        *(reserve(store, f"r{number}", least, most) for number, store in zip(range(50), itertools.cycle(stores)))
    )
    accepted = [grant for grant in grants if grant is not None]
    room = LIMIT - 123
    assert all(least <= grant <= most for grant in accepted)
    assert sum(accepted) <= room
    assert room - sum(accepted) < least or len(accepted) == 50
    assert await left(stores[1]) == room - sum(accepted)


async def test_the_same_reservation_on_two_instances_at_once_is_one(stores: tuple[Store, Store]) -> None:
    for number in range(20):
        name = f"r{number}"
        assert await asyncio.gather(*(reserve(store, name, 10, 20) for store in stores * 3)) == [20] * 6
    assert await left(stores[0]) == LIMIT - 20 * 20


async def test_keeping_and_deleting_at_once_leaves_an_exact_ledger(stores: tuple[Store, Store]) -> None:
    one, other = stores
    for number in range(20):
        name = f"r{number}"
        await reserve(one, name, 40)
        await one.store(name, video(31))
        await asyncio.gather(one.keep([name]), other.delete([name], NOW), other.keep([name]), one.delete([name], NOW))
    assert (await one.kept_bytes(ANN), await left(other)) == (0, LIMIT)


async def test_an_upload_that_ends_while_its_reservation_is_swept_is_either_stored_or_deleted(
    stores: tuple[Store, Store],
) -> None:
    one, other = stores
    for number in range(20):
        name = f"r{number}"
        await reserve(one, name, 40)
        stored, expired = await asyncio.gather(one.store(name, video(31)), other.delete_expired(NOW + LIFE, 10))
        assert (stored, expired) in ((True, 0), (False, 1))
        assert await state(one, name) == ("stored" if stored else "deleted")
        await one.delete([name], NOW)
    assert await left(one) == LIMIT


async def test_a_sweep_finds_what_expired_without_looking_at_every_object(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(Settings)
    async with open_store(settings):
        with closing(sqlite3.connect(settings.data_dir / "storage.db")) as database:
            for state in ("reserved", "stored"):
                query = f"SELECT * FROM storage_objects WHERE state = '{state}' AND expires_at <= ? ORDER BY expires_at"
                plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}", ("x",))]
                assert plan == [f"SEARCH storage_objects USING INDEX storage_objects_{state} (expires_at<?)"]
