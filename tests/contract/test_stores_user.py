"""What every user store promises, over every backend."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from user_service.config import Settings
from user_service.store import Account, Store, open_store

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIFE = timedelta(seconds=300)


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


def account(key: str = "anne@example.test") -> Account:
    return Account(
        id=uuid.uuid4(),
        email=key.upper(),
        email_key=key,
        password="$argon2id$…",
        username="Anne 😀",
        created_at=NOW + timedelta(microseconds=7),
    )


@pytest.fixture
async def anne(store: Store) -> uuid.UUID:
    known = account()
    await store.add(known)
    return known.id


async def lock(store: Store, user: uuid.UUID, holder: str, now: datetime = NOW) -> bool | None:
    return await store.lock_upload(user, holder, now, now - LIFE)


async def made_again(stores: tuple[Store, Store], change: Callable[[Store], Awaitable[object]]) -> object:
    """What the change answers, which is the same when it is made again, even by two at once."""
    answer = await change(stores[0])
    assert await asyncio.gather(*(change(store) for store in stores)) == [answer, answer]
    return answer


async def test_an_account_comes_back_as_it_was_added(store: Store) -> None:
    anne = account()
    assert await store.add(anne)
    assert await store.by_email(anne.email_key) == anne
    assert await store.by_id(anne.id) == anne


async def test_nobody_is_found_where_nobody_is(store: Store) -> None:
    assert await store.by_email("nobody@example.test") is None
    assert await store.by_id(uuid.uuid4()) is None


@pytest.mark.parametrize("name", ["o'neil+a,b", '"(x).%_*&="', "größe 😀", "#?/\\..", "null"])
async def test_any_email_is_found(store: Store, name: str) -> None:
    known = account(f"{name}@example.test")
    await store.add(known)
    assert await store.by_email(known.email_key) == known


@pytest.mark.parametrize("key", ["", "anne@example.test\0", "*", "%", "a" * 100_000])
async def test_what_is_nobodys_email_finds_nobody(store: Store, anne: uuid.UUID, key: str) -> None:
    assert await store.by_email(key) is None


async def test_a_taken_email_is_refused_and_changes_nothing(store: Store) -> None:
    anne = account()
    await store.add(anne)
    assert not await store.add(replace(account(), username="somebody else"))
    assert await store.by_email(anne.email_key) == anne


async def test_of_fifty_who_register_one_email_at_once_one_gets_it(stores: tuple[Store, Store]) -> None:
    wanted = [account() for _ in range(50)]
    added = await asyncio.gather(*(stores[number % 2].add(one) for number, one in enumerate(wanted)))
    assert added.count(True) == 1
    assert await stores[0].by_email("anne@example.test") == wanted[added.index(True)]


async def test_a_role_can_be_given_and_taken(store: Store, anne: uuid.UUID) -> None:
    for role in ("admin", "user"):
        assert await store.set_role("anne@example.test", role)
        found = await store.by_id(anne)
        assert found
        assert found.role == role
    assert not await store.set_role("nobody@example.test", "admin")


async def test_a_change_whose_answer_was_lost_may_be_made_again_and_happens_once(stores: tuple[Store, Store]) -> None:
    store, anne, late = stores[0], account(), account()
    assert await made_again(stores, lambda store: store.add(anne)) is True
    assert await made_again(stores, lambda store: store.add(late)) is False
    assert await made_again(stores, lambda store: store.set_role(anne.email_key, "admin")) is True
    assert await made_again(stores, lambda store: store.set_role("nobody@example.test", "admin")) is False
    assert await made_again(stores, lambda store: store.add(anne)) is True
    assert await store.by_email(anne.email_key) == replace(anne, role="admin")
    assert await made_again(stores, lambda store: lock(store, anne.id, "first")) is True
    assert await made_again(stores, lambda store: lock(store, anne.id, "second")) is False
    assert await made_again(stores, lambda store: lock(store, late.id, "first")) is None
    await made_again(stores, lambda store: store.unlock_upload(anne.id, "first"))
    assert await lock(store, anne.id, "second") is True
    await store.unlock_upload(anne.id, "first")
    assert await lock(store, anne.id, "third") is False


async def test_one_upload_at_a_time(store: Store, anne: uuid.UUID) -> None:
    assert await lock(store, anne, "first") is True
    assert await lock(store, anne, "second") is False
    await store.unlock_upload(anne, "first")
    assert await lock(store, anne, "second") is True


async def test_of_fifty_uploads_at_once_one_gets_the_lock(stores: tuple[Store, Store], anne: uuid.UUID) -> None:
    taken = await asyncio.gather(*(lock(stores[number % 2], anne, f"upload-{number}") for number in range(50)))
    assert taken.count(True) == 1
    assert taken.count(False) == 49
    assert await lock(stores[0], anne, f"upload-{taken.index(True)}") is True


async def test_only_its_holder_releases_the_lock(store: Store, anne: uuid.UUID) -> None:
    await lock(store, anne, "first")
    await store.unlock_upload(anne, "second")
    await store.unlock_upload(uuid.uuid4(), "first")
    assert await lock(store, anne, "second") is False


async def test_a_lock_not_heard_of_for_its_life_is_free_and_not_a_moment_earlier(store: Store, anne: uuid.UUID) -> None:
    await lock(store, anne, "first")
    assert await lock(store, anne, "second", NOW + LIFE) is False
    assert await lock(store, anne, "second", NOW + LIFE + timedelta(microseconds=1)) is True
    await store.unlock_upload(anne, "first")
    assert await lock(store, anne, "third", NOW + LIFE + timedelta(seconds=1)) is False


async def test_the_holder_may_renew_its_lock(store: Store, anne: uuid.UUID) -> None:
    await lock(store, anne, "first")
    assert await lock(store, anne, "first", NOW + LIFE / 2) is True
    assert await lock(store, anne, "second", NOW + LIFE * 1.4) is False


async def test_users_do_not_share_a_lock(store: Store, anne: uuid.UUID) -> None:
    boris = account("boris@example.test")
    await store.add(boris)
    assert await lock(store, anne, "first") is True
    assert await lock(store, boris.id, "second") is True


async def test_nobody_has_no_lock(store: Store) -> None:
    assert await lock(store, uuid.uuid4(), "first") is None


async def test_an_account_is_there_after_a_restart(store_settings: Callable[..., Settings]) -> None:
    settings, anne = store_settings(Settings), account()
    async with open_store(settings) as before:
        await before.add(anne)
        await lock(before, anne.id, "first")
    async with open_store(settings) as after:
        await after.ping()
        assert await after.by_id(anne.id) == anne
        assert await lock(after, anne.id, "second") is False
