"""The outbox: what is owed is sent at once, then again and again with longer pauses, until it is taken."""

import asyncio
from datetime import timedelta

import pytest
from unit.video.fakes import ANN, DOWN, Store, World

from shared.errors import PeerRefused, ServiceError, Unavailable
from video_service import outbox
from video_service.outbox import LEASE, LONGEST_PAUSE
from video_service.store import Owed

REFUSED = PeerRefused(422, "no", "invalid")
SECOND = timedelta(seconds=1)


def the_lease_is_over(world: World) -> None:
    world.clock.turn(LEASE)


async def test_what_is_owed_is_told_in_the_peers_own_words() -> None:
    world = World()
    world.storage.objects = {"a": b"film", "b": b"film"}
    now = world.clock()
    await world.outbox.send(world.store._owe(outbox.for_upload("a", ANN.id, 4, now), now))
    await world.outbox.send(world.store._owe(outbox.for_deletion(["b"], ANN.id, now), now))
    assert (world.storage.kept, set(world.storage.objects)) == ({"a"}, {"a"})
    assert (world.usage.uploads, world.usage.deleted) == ({"a": 4}, {"b"})
    assert not world.store.owed


@pytest.mark.parametrize("failure", [DOWN, REFUSED])
async def test_what_is_not_taken_stays_and_the_rest_is_sent(failure: ServiceError) -> None:
    world = World()
    world.usage.failure, world.usage.failing = failure, "upload_done"
    video = await world.upload()
    assert world.storage.kept == {video.filename}
    assert [owed.kind for owed, _ in world.store.owed.values()] == ["upload_done"]


@pytest.mark.parametrize("failure", [DOWN, REFUSED])
async def test_the_pauses_double_up_to_five_minutes_and_nothing_is_ever_dropped(failure: ServiceError) -> None:
    world = World()
    world.usage.failure, world.usage.failing = failure, "upload_done"
    video = await world.upload()
    pauses = []
    for _ in range(80):
        ((owed, due_at),) = world.store.owed.values()
        pauses.append(due_at - world.clock())
        assert owed.attempts == len(pauses)
        world.clock.turn(pauses[-1] - timedelta(microseconds=1))
        assert await world.outbox.sweep() == 0
        assert world.store.owed == {owed.id: (owed, due_at)}, "it was sent before it was due"
        world.clock.turn(timedelta(microseconds=1))
        assert await world.outbox.sweep() == 0
    assert pauses[:9] == [SECOND * 2**n for n in range(9)]
    assert pauses[9:] == [LONGEST_PAUSE] * 71
    world.usage.failure = None
    world.clock.turn(LONGEST_PAUSE)
    assert await world.outbox.sweep() == 1
    assert world.usage.uploads == {video.filename: 4}
    assert not world.store.owed


async def test_while_it_is_leased_nobody_else_sends_it() -> None:
    world = World()
    sending = asyncio.Event()
    answered = asyncio.Event()
    keep = world.storage.keep

    async def slow(filenames: list[str]) -> None:
        sending.set()
        await answered.wait()
        await keep(filenames)

    world.storage.keep = slow  # type: ignore[method-assign, assignment]
    upload = asyncio.create_task(world.upload())
    await sending.wait()
    world.clock.turn(LEASE - timedelta(microseconds=1))
    assert await world.outbox.sweep() == 0
    answered.set()
    await upload
    assert world.storage.calls.count("keep") == world.usage.calls.count("upload_done") == 1


async def test_when_the_sender_died_it_is_sent_after_the_lease() -> None:
    world = World()
    now = world.clock()
    world.storage.objects = {"a": b"film"}
    await world.users.lock_upload(ANN.id, "a")
    world.store._owe(outbox.for_upload("a", ANN.id, 4, now), world.outbox.lease())
    assert await world.outbox.sweep() == 0
    the_lease_is_over(world)
    assert await world.outbox.sweep() == 3
    assert (world.storage.kept, world.usage.uploads) == ({"a"}, {"a": 4})
    assert not world.users.locks, "he may upload again, and need not wait for the lock to run out"


async def test_a_lost_receipt_means_one_more_delivery_and_no_second_effect() -> None:
    world = World()
    standing = world.store._owe(outbox.for_deletion(["a"], ANN.id, world.clock()), world.outbox.lease())
    world.store.lost = True
    assert await world.outbox.send(standing) == 1
    assert len(world.store.owed) == 1
    the_lease_is_over(world)
    assert await world.outbox.sweep() == 1
    assert not world.store.owed
    assert world.usage.deleted == {"a"}


async def test_a_database_that_is_away_does_not_fail_the_sender() -> None:
    class Away(Store):
        async def paid(self, owed: Owed) -> None:
            raise Unavailable("away")

        async def postpone(self, owed: Owed, due_at: object) -> None:
            raise Unavailable("away")

    world = World()
    now = world.clock()
    sender = outbox.Outbox(Away(), world.users, world.storage, world.usage, world.clock)
    world.usage.failure = DOWN
    assert await sender.send(world.store._owe(outbox.for_upload("a", ANN.id, 4, now), now)) == 0
    assert (world.storage.calls, world.usage.calls) == (["keep"], ["upload_done"])


async def test_a_sweep_sends_everything_that_is_due_however_much_it_is() -> None:
    world = World()
    now = world.clock()
    world.store._owe([Owed("delete", f'{{"filenames": ["f{n}"]}}') for n in range(outbox.BATCH * 2 + 1)], now)
    assert await world.outbox.sweep() == outbox.BATCH * 2 + 1
    assert not world.store.owed


async def test_a_sweep_ends_although_nothing_is_taken() -> None:
    world = World()
    world.storage.failure = DOWN
    world.store._owe([Owed("delete", '{"filenames": ["f"]}') for _ in range(outbox.BATCH + 1)], world.clock())
    assert await world.outbox.sweep() == 0
    assert len(world.storage.calls) == outbox.BATCH + 1
