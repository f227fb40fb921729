"""storage-service killed at every step, each thing on the disk and each transaction being one, then started again.

Over a real ledger and a real folder: whatever the step, afterwards the ledger is exact, no file is without a row, and
no video without its files.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest
from unit.dying import Fate, Killed
from unit.storage.fakes import ANN, DOWN, RESERVATION, film
from unit.storage.house import House, received, stored

from shared.errors import BadRequest, ServiceError
from storage_service.service import SECOND_REMOVAL, StorageService

AFTER = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
# An upload of 1000 bytes: one transaction to reserve, create; open, write; one look, its checksum, inspection, finish,
# one transaction. Then keep; then delete, unlink, and the note that it is removed.
RECEIVE_STEPS, KEEP_STEPS, DELETE_STEPS = 9, 1, 3


async def journey(storage: StorageService, house: House, wanted: bool) -> None:
    """What video-service does: upload, enter into the catalogue, keep, and much later delete."""
    await stored(storage, "film", 1000, reserved=1200)
    if wanted:
        house.catalogue.videos.add("film")
        await storage.keep(["film"])
        house.catalogue.videos.discard("film")
        await storage.delete(["film"])


async def lived(house: House, fate: Fate, work: Callable[[StorageService], Awaitable[object]]) -> bool:
    """One life with ``work`` in it; whether that came to its end."""
    try:
        async with house.open(fate) as storage:
            await work(storage)
    except Killed:
        return False
    assert not fate.met, "it went on after it was killed"
    return True


async def neighbour(house: House) -> None:
    """Another video of the same user, which nothing of this may touch."""
    async with house.open() as storage:
        await stored(storage, "neighbour", 500)
        await storage.keep(["neighbour"])
    house.catalogue.videos.add("neighbour")


async def recover(house: House, *, owed: Callable[[StorageService], Awaitable[object]] | None = None) -> None:
    """Start again when everything has expired: first the catalogue is away, then what is ``owed`` comes once more."""
    house.clock.turn(RESERVATION)
    async with house.open() as storage:
        assert house.no_file_without_a_row()
        house.catalogue.failure = DOWN
        before = house.states()
        await storage.sweep()
        assert [name for name, state in before.items() if state == "stored"] == [
            name for name, state in house.states().items() if state == "stored"
        ], "it guessed"
        house.catalogue.failure = None
        if owed:
            await owed(storage)
        await storage.sweep()
        again = await storage.sweep()
        assert not any(again.values()), "there was something left to do"


@AFTER
async def test_killed_at_any_step_of_an_upload_that_never_became_a_video(folder: Path, after: bool) -> None:
    for step in count(1):
        house, fate = House(folder / str(step)), Fate(step, after=after)
        await neighbour(house)
        finished = await lived(house, fate, lambda storage: journey(storage, house, wanted=False))  # noqa: B023
        assert house.no_file_without_a_row()
        await recover(house)
        assert house.holds_exactly("neighbour"), f"killed at step {step}"
        house.clock.turn(SECOND_REMOVAL)
        await recover(house)
        assert house.holds_exactly("neighbour")
        assert house.states() == {"neighbour": "kept"}, "the row outlived its purpose"
        if finished:
            assert step == RECEIVE_STEPS + 1
            return


@AFTER
@pytest.mark.parametrize("outbox", [True, False], ids=["the outbox comes again", "the sweep alone"])
async def test_killed_at_any_step_of_a_life_that_the_catalogue_knows_of(
    folder: Path, after: bool, outbox: bool
) -> None:
    for step in count(1):
        house, fate = House(folder / str(step)), Fate(step, after=after)
        await neighbour(house)
        finished = await lived(house, fate, lambda storage: journey(storage, house, wanted=True))  # noqa: B023
        entered = step > RECEIVE_STEPS
        deleting = step > RECEIVE_STEPS + KEEP_STEPS
        assert house.no_file_without_a_row()

        async def owed(storage: StorageService, entered: bool = entered, deleting: bool = deleting) -> None:
            if entered and (outbox or deleting):
                await storage.keep(["film"])
            if deleting:
                await storage.delete(["film"])

        await recover(house, owed=owed)
        kept = {"film", "neighbour"} & house.catalogue.videos
        assert house.holds_exactly(*kept), f"killed at step {step}"
        assert ("film" in kept) == (entered and not deleting)
        if finished:
            assert step == RECEIVE_STEPS + KEEP_STEPS + DELETE_STEPS + 1
            return


@pytest.mark.parametrize("call", ["sync 1", "sync 2", "sync 3", "rename 1", "rename 2", "sync 4"])
async def test_killed_within_the_step_that_gives_a_video_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    house, fate, calls = House(folder), Fate(), Counter[str]()
    await neighbour(house)

    def mortal(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def called(*given: object) -> object:
            calls[name] += 1
            if call == f"{name} {calls[name]}":
                fate.met = True
                raise Killed
            return work(*given)

        return called

    with monkeypatch.context() as dying:
        dying.setattr(os, "fsync", mortal("sync", os.fsync))
        dying.setattr(Path, "rename", mortal("rename", Path.rename))
        assert not await lived(house, fate, lambda storage: journey(storage, house, wanted=False))
    assert house.no_file_without_a_row()
    await recover(house)
    assert house.holds_exactly("neighbour")


async def cut_off(storage: StorageService) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield film(300)
        raise BadRequest("cut off")

    await storage.reserve("film", ANN, 1, 1200)
    await received(storage, "film", b"", body())


async def not_a_video(storage: StorageService) -> None:
    await storage.reserve("film", ANN, 1, 1200)
    await received(storage, "film", b"<html>")


async def too_long(storage: StorageService) -> None:
    await storage.reserve("film", ANN, 1, 1200)
    await received(storage, "film", film(1201))


@AFTER
@pytest.mark.parametrize("upload", [cut_off, not_a_video, too_long])
async def test_killed_at_any_step_of_an_upload_that_is_refused(
    folder: Path, upload: Callable[[StorageService], Awaitable[None]], after: bool
) -> None:
    async def refused(storage: StorageService) -> None:
        with pytest.raises(ServiceError):
            await upload(storage)
        await storage.delete(["film"])

    for step in count(1):
        house, fate = House(folder / str(step)), Fate(step, after=after)
        finished = await lived(house, fate, refused)
        assert house.no_file_without_a_row()
        await recover(house)
        assert house.holds_exactly(), f"killed at step {step}"
        if finished:
            return


@AFTER
async def test_killed_at_any_step_of_the_sweep_itself(folder: Path, after: bool) -> None:
    for step in count(1):
        house, fate = House(folder / str(step)), Fate(step, after=after)
        await neighbour(house)
        house.catalogue.videos |= {"wanted"}
        async with house.open() as storage:
            await stored(storage, "wanted", 100, reserved=150)
            await stored(storage, "unwanted", 200, reserved=250)
            await storage.reserve("expired", ANN, 300, 300)
            await stored(storage, "half", 400, reserved=450)
        # Deleted by a life that was killed before it could remove the files: the first step is the transaction.
        assert not await lived(house, Fate(1, after=True), lambda storage: storage.delete(["half"]))
        house.clock.turn(RESERVATION)
        finished = await lived(house, fate, lambda storage: storage.sweep())
        await recover(house)
        assert house.holds_exactly("neighbour", "wanted"), f"killed at step {step}"
        if finished:
            assert step > 10
            return
