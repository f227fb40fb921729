"""What every catalogue of video-service promises, its outbox included, over every backend."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.cursor import Cursor
from video_service.config import Settings
from video_service.store import Owed, Store, Video, open_store

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEASE = NOW + timedelta(seconds=60)
MOMENT = timedelta(microseconds=1)
ANN, BEN = uuid.uuid4(), uuid.uuid4()
OWED = [Owed("keep", '{"a": 1}'), Owed("upload_done", '{"b": 2}')]


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


def video(name: str, *, user: uuid.UUID = ANN, title: str = "A film", at: datetime = NOW, size: int = 700) -> Video:
    return Video(uuid.uuid4(), user, name, title, at, size, 1.5, 64, 48)


async def add(store: Store, *names: str, **more: object) -> None:
    for name in names:
        assert await store.add(video(name, **more), [], LEASE)  # type: ignore[arg-type]


async def names(store: Store, *, owner: uuid.UUID | None = None, search: str = "", start: int = 0) -> list[str]:
    page = await store.page(owner=owner, search=search, start=start, limit=100)
    return [found.filename for found in page.videos]


@pytest.mark.parametrize("size", [0, 1, 700, 52_428_799, 52_428_800, 2**40 + 1])
async def test_a_video_comes_back_as_it_was_added_to_the_byte(store: Store, size: int) -> None:
    film = video("a", title="ünï 🎬 'x' \"y\"\n", at=NOW + MOMENT, size=size)
    await store.add(film, [], LEASE)
    await store.add(replace(film, id=uuid.uuid4(), filename="b", duration=None, user_id=BEN), [], LEASE)
    assert await store.find("a") == film
    found = await store.find("b")
    assert found is not None
    assert found.duration is None
    assert await store.find("c") is None
    assert found.filepath == "b.mp4"


async def test_the_newest_come_first_and_among_equals_the_last_added(store: Store) -> None:
    for name, at in (("b", NOW), ("c", NOW), ("a", NOW - MOMENT), ("d", NOW + MOMENT)):
        await add(store, name, at=at)
    assert await names(store) == ["d", "c", "b", "a"]


async def test_pages_follow_each_other_without_gap_or_repetition(store: Store) -> None:
    await add(store, *(f"f{number}" for number in range(7)))
    await add(store, "bens", user=BEN)
    pages = [await store.page(owner=ANN, search="", start=start, limit=3) for start in (0, 3, 6, 7, 2**70)]
    assert [[found.filename for found in page.videos] for page in pages] == [
        ["f6", "f5", "f4"],
        ["f3", "f2", "f1"],
        ["f0"],
        [],
        [],
    ]
    assert {page.total for page in pages} == {7}
    assert (await store.page(owner=None, search="", start=0, limit=3)).total == 8
    assert (await store.page(owner=uuid.UUID(int=0), search="", start=0, limit=3)).total == 0


async def walk(store: Store, owner: uuid.UUID | None, search: str, limit: int) -> list[str]:
    """The whole list by its cursors."""
    walked: list[str] = []
    after: Cursor | None = None
    while True:
        page = await store.page(owner=owner, search=search, start=0, limit=limit, after=after)
        walked += [found.filename for found in page.videos]
        after = page.next
        if after is None:
            return walked
        assert len(page.videos) == limit


@pytest.mark.parametrize("search", ["", "film", "a"])
@pytest.mark.parametrize("owner", [None, ANN])
async def test_the_pages_that_go_on_behind_one_another_are_the_list(
    store: Store, owner: uuid.UUID | None, search: str
) -> None:
    for number in range(14):
        await add(store, f"f{number}", at=NOW + (number // 3) * MOMENT)
    await add(store, "bens", user=BEN)
    whole = await names(store, owner=owner, search=search)
    assert len(whole) == (14 if owner else 15)
    for limit in (1, 2, 5, 7, 14, 15, 100):
        assert await walk(store, owner, search, limit) == whole
    first = await store.page(owner=owner, search=search, start=3, limit=4)
    behind = await store.page(owner=owner, search=search, start=3, limit=4, after=first.next)
    assert [found.filename for found in behind.videos] == whole[7:11], "start is not looked at"
    assert behind.total == len(whole)


async def test_behind_the_last_video_is_nothing_and_the_true_total(store: Store) -> None:
    await add(store, "a", "b")
    for search in ("", "film"):
        for owner, total in ((None, 2), (ANN, 2), (BEN, 0)):
            for place in (Cursor("2000-01-01T00:00:00.000000Z", 1), Cursor("0001-01-01T00:00:00.000000Z", 0)):
                page = await store.page(owner=owner, search=search, start=0, limit=9, after=place)
                assert (page.videos, page.total, page.next) == ([], total, None)
        page = await store.page(
            owner=ANN, search=search, start=0, limit=9, after=Cursor("9999-12-31T23:59:59.999999Z", 0)
        )
        assert len(page.videos) == 2


@pytest.mark.parametrize("search", ["", "film"])
@pytest.mark.parametrize("owner", [None, ANN])
async def test_a_walk_has_nothing_twice_and_misses_nothing_while_videos_come_and_go(
    stores: tuple[Store, Store], owner: uuid.UUID | None, search: str
) -> None:
    one, other = stores
    random.seed(7)
    for number in range(60):  # a third of them stays
        await add(other, f"{'s' if number % 3 == 0 else 'g'}{number}", at=NOW + random.randrange(5) * MOMENT)
    before = await names(one, owner=owner, search=search)
    stay, going = [name for name in before if name[0] == "s"], {name for name in before if name[0] == "g"}

    async def come_and_go(number: int, last: str) -> None:
        await add(other, f"n{number}", at=NOW + random.randrange(5) * MOMENT)
        gone = {last} & going or set(random.sample(sorted(going), min(2, len(going))))
        going.difference_update(gone)
        await other.delete(sorted(gone), [], NOW, LEASE)

    walked: list[str] = []
    after: Cursor | None = None
    for number in range(200):
        page, _ = await asyncio.gather(
            one.page(owner=owner, search=search, start=0, limit=3, after=after),
            come_and_go(number, walked[-1] if walked else ""),
        )
        walked += [found.filename for found in page.videos]
        after = page.next
        if after is None:
            break
    assert after is None, "the list has an end"
    assert len(walked) == len(set(walked))
    assert [name for name in walked if name[0] == "s"] == stay
    assert (await one.page(owner=owner, search=search, start=0, limit=1)).total == len(
        await names(one, owner=owner, search=search)
    )


async def test_a_search_finds_part_of_a_title_in_any_case_and_takes_every_sign_as_itself(store: Store) -> None:
    titles = {"a": "Über allen Gipfeln", "b": "100% wool_sock", "c": "STRASSE", "d": "a\\b 'quoted'"}
    for name, title in titles.items():
        await add(store, name, title=title)
    found = {
        "ÜBER": ["a"],
        "gipfel": ["a"],
        "%": ["b"],
        "_": ["b"],
        "straße": ["c"],
        "\\": ["d"],
        "'quoted'": ["d"],
        "l": ["b", "a"],
        "nothing": [],
    }
    assert {search: await names(store, search=search) for search in found} == found
    assert await names(store, search="l", owner=BEN) == []
    assert (await store.page(owner=None, search="l", start=1, limit=1)).total == 2


async def test_what_is_deleted_is_in_no_list_and_is_found_with_its_time(store: Store) -> None:
    await add(store, "a", "b")
    deleted = await store.delete(["a", "unknown"], OWED, NOW + MOMENT, LEASE)
    owed = await store.claim_owed(LEASE, LEASE, 10)
    assert deleted == 1
    assert [one.kind for one in owed] == ["keep", "upload_done"]
    found = await store.find("a")
    assert found is not None
    assert found.deleted_at == NOW + MOMENT
    assert await names(store) == await names(store, owner=ANN) == ["b"]
    assert await store.live_filenames(ANN, 10) == ["b"]
    assert (await store.page(owner=None, search="", start=0, limit=1)).total == 1


async def test_deleting_again_changes_nothing_and_owes_nothing(store: Store) -> None:
    await add(store, "a")
    assert await store.delete(["a"], [], NOW, LEASE) == 1
    assert await store.delete(["a"], OWED, NOW + MOMENT, LEASE) == 0
    found = await store.find("a")
    assert found is not None
    assert found.deleted_at == NOW
    assert await store.claim_owed(LEASE, LEASE, 10) == []


async def test_live_filenames_are_one_users_and_no_more_than_asked_for(store: Store) -> None:
    await add(store, "a", "b", "c")
    await add(store, "d", user=BEN)
    assert set(await store.live_filenames(ANN, 10)) == {"a", "b", "c"}
    assert len(await store.live_filenames(ANN, 2)) == 2


async def test_a_filename_settled_as_never_to_be_is_refused_until_it_is_forgotten(store: Store) -> None:
    for _ in range(2):
        assert not await store.settle("a", NOW)
    assert not await store.add(video("a"), OWED, LEASE)
    assert await store.find("a") is None
    assert await store.claim_owed(LEASE, LEASE, 10) == []
    await store.forget_settled(NOW)
    assert not await store.add(video("a"), [], LEASE)
    await store.forget_settled(NOW + MOMENT)
    assert await store.add(video("a"), [], LEASE)


async def test_a_video_is_settled_as_existing_as_long_as_it_lives(store: Store) -> None:
    await add(store, "a")
    assert await store.settle("a", NOW)
    await store.delete(["a"], [], NOW, LEASE)
    assert not await store.settle("a", NOW)


async def test_what_is_owed_stands_with_the_change_that_caused_it_and_is_leased(store: Store) -> None:
    await store.add(video("a"), OWED, LEASE)
    assert await store.claim_owed(LEASE - MOMENT, LEASE, 10) == []
    assert await store.claim_owed(LEASE, LEASE + MOMENT, 10) == OWED
    assert await store.claim_owed(LEASE, LEASE + MOMENT, 10) == []


async def test_what_is_paid_is_gone_and_what_is_postponed_comes_when_it_is_due(store: Store) -> None:
    await store.add(video("a"), OWED, NOW)
    due_at = NOW + timedelta(seconds=7)
    for _ in range(2):
        await store.paid(OWED[0])
        await store.postpone(OWED[1], due_at)
    assert await store.claim_owed(due_at - MOMENT, LEASE, 10) == []
    assert await store.claim_owed(due_at, LEASE, 10) == [replace(OWED[1], attempts=1)]


async def test_what_could_not_be_given_back_is_owed_once_and_comes_when_it_is_due(store: Store) -> None:
    owed = [Owed("release", "{}"), Owed("unlock", "{}")]
    for _ in range(2):
        await store.owe(owed, NOW)
    assert await store.claim_owed(NOW - MOMENT, LEASE, 10) == []
    assert await store.claim_owed(NOW, LEASE, 10) == owed


async def test_a_change_whose_answer_was_lost_may_be_made_again_and_happens_once(store: Store) -> None:
    film, gone = video("a"), [Owed("delete", "{}")]
    for _ in range(2):
        assert await store.add(film, OWED, LEASE)
    assert (await store.page(owner=None, search="", start=0, limit=9)).total == 1
    for _ in range(2):
        assert await store.delete(["a"], gone, NOW, LEASE) == 1
    assert await store.add(film, OWED, LEASE)
    assert await names(store) == []
    assert await store.claim_owed(LEASE, LEASE, 10) == [*OWED, *gone]


async def test_the_longest_due_comes_first_and_no_more_than_asked_for(store: Store) -> None:
    for name, lease in (("a", NOW), ("b", NOW - MOMENT), ("c", NOW + MOMENT)):
        await store.add(video(name), [Owed("keep", name)], lease)
    assert {one.body for one in await store.claim_owed(NOW + MOMENT, LEASE, 2)} == {"a", "b"}
    assert [one.body for one in await store.claim_owed(NOW + MOMENT, LEASE, 2)] == ["c"]


async def test_the_same_video_deleted_on_two_instances_at_once_is_deleted_and_owed_once(
    stores: tuple[Store, Store],
) -> None:
    for number in range(20):
        name = f"f{number}"
        await add(stores[0], name)
        owed = [[Owed("delete", f"{caller}")] for caller in range(4)]
        results = await asyncio.gather(
            *(
                store.delete([name], owed[caller], NOW + caller * MOMENT, LEASE)
                for caller, store in enumerate(stores * 2)
            )
        )
        assert sorted(results) == [0, 0, 0, 1]
        assert await stores[0].claim_owed(LEASE, LEASE + MOMENT, 10) == owed[results.index(1)]


async def test_a_filename_is_either_added_or_settled_as_never_to_be(stores: tuple[Store, Store]) -> None:
    one, other = stores
    seen = set()
    for number in range(40):
        name = f"f{number}"
        calls = [one.add(video(name), [], LEASE), other.settle(name, NOW)]
        first, second = await asyncio.gather(*(calls if number % 2 else reversed(calls)))
        added, exists = (first, second) if number % 2 else (second, first)
        assert added == exists == (await one.find(name) is not None)
        seen.add(exists)
    assert seen == {True, False}, "the race never went both ways"


async def test_what_two_instances_claim_at_once_is_sent_by_one(stores: tuple[Store, Store]) -> None:
    for number in range(30):
        await stores[0].add(video(f"f{number}"), [Owed("keep", ""), Owed("upload_done", "")], NOW)
    claimed = await asyncio.gather(*(store.claim_owed(NOW, LEASE, 7) for store in stores * 5))
    ids = [one.id for claim in claimed for one in claim]
    assert len(ids) == len(set(ids)) == 60
