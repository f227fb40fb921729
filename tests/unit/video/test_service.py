"""The catalogue's rules: who sees what, who may delete, and that a deletion is owed to the others."""

import uuid

import pytest
from unit.video.fakes import ANN, DOWN, World

from shared.auth import User
from shared.contracts import MAX_BATCH
from shared.errors import Forbidden, NotFound, Unavailable
from video_service.outbox import LEASE
from video_service.service import VideoService
from video_service.store import Video

BEN = User(id=uuid.UUID(int=2), email="ben@example.com", role="user")
ADMIN = User(id=uuid.UUID(int=3), email="root@example.com", role="admin")


def catalogue(world: World, *filenames: str, owner: User = ANN) -> VideoService:
    for name in filenames:
        video = Video(uuid.uuid4(), owner.id, name, f"Film {name}", world.clock(), 4, 1.0, 64, 48)
        world.store.videos[name] = video
        world.storage.objects[name] = b"film"
        world.storage.kept.add(name)
    return VideoService(world.store, world.outbox, world.storage, world.audit, world.clock)


async def test_everybody_sees_everybodys_videos_and_lists_only_his_own() -> None:
    world = World()
    videos = catalogue(world, "a", "b")
    assert (await videos.newest(BEN, search="", start=0, limit=16)).total == 2
    assert (await videos.of_user(ANN, ANN.id, start=1, limit=4)).total == 2
    assert (await videos.of_user(ADMIN, ANN.id, start=0, limit=4)).total == 2
    with pytest.raises(Forbidden):
        await videos.of_user(BEN, ANN.id, start=0, limit=4)
    assert world.audit.actions == ["FETCH_VIDEOS", "FETCH_USER_VIDEOS", "FETCH_USER_VIDEOS"]


@pytest.mark.parametrize("user", [ANN, ADMIN])
async def test_the_owner_and_an_administrator_delete_a_video_and_everything_of_it_goes(user: User) -> None:
    world = World()
    videos = catalogue(world, "a", "b")
    await videos.delete(user, "a")
    assert (set(world.storage.objects), world.usage.deleted) == ({"b"}, {"a"})
    assert not world.store.owed
    assert world.audit.actions == ["DELETE_VIDEO"]
    for gone in (videos.delete(user, "a"), videos.watch(user, "a")):
        with pytest.raises(NotFound):
            await gone


async def test_nobody_deletes_what_is_another_users() -> None:
    world = World()
    videos = catalogue(world, "a")
    with pytest.raises(Forbidden):
        await videos.delete(BEN, "a")
    assert await videos.delete_all(BEN) == 0
    assert (await videos.watch(BEN, "a")).filename == "a"


async def test_without_storage_service_nothing_can_be_played_and_the_page_is_told_so() -> None:
    world = World()
    videos = catalogue(world, "a")
    world.storage.failure = DOWN
    with pytest.raises(Unavailable):
        await videos.watch(BEN, "a")
    with pytest.raises(NotFound):
        await videos.watch(BEN, "unknown")
    assert world.audit.actions == []


@pytest.mark.parametrize("filename", ["unknown", "../a", "", "a.mp4", "x" * 65, "ä"])
async def test_what_is_no_video_is_not_found(filename: str) -> None:
    world = World()
    videos = catalogue(world, "a")
    for asked in (videos.delete(ANN, filename), videos.watch(ANN, filename)):
        with pytest.raises(NotFound):
            await asked


async def test_delete_all_takes_every_video_of_one_user_and_no_other() -> None:
    world = World()
    catalogue(world, "bens", owner=BEN)
    videos = catalogue(world, *(f"a{n}" for n in range(MAX_BATCH + 1)))
    assert await videos.delete_all(ANN) == MAX_BATCH + 1
    assert set(world.storage.objects) == {"bens"}
    assert len(world.usage.deleted) == MAX_BATCH + 1
    assert await videos.delete_all(ANN) == 0


async def test_with_storage_and_usage_down_a_deletion_stands_and_is_owed() -> None:
    world = World()
    videos = catalogue(world, "a")
    world.storage.failure = world.usage.failure = DOWN
    await videos.delete(ANN, "a")
    with pytest.raises(NotFound):
        await videos.watch(ANN, "a")
    world.storage.failure = world.usage.failure = None
    world.clock.turn(LEASE)
    assert await videos.sweep() == {"sent": 2}
    assert (world.storage.objects, world.usage.deleted) == ({}, {"a"})


async def test_a_filename_that_was_settled_as_never_to_be_stays_so() -> None:
    world = World()
    videos = catalogue(world, "a")
    assert [await videos.settle(name) for name in ("a", "b")] == [True, False]
    await videos.delete(ANN, "a")
    assert not await videos.settle("a")
    assert world.store.settled == {"b"}
