"""The rules of storage: what fits, what is a video, what stays, what goes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from unit.storage.fakes import ANN, BEN, DOWN, LIMIT, RESERVATION, film, sent
from unit.storage.house import House, received, stored

from shared.contracts import UploadTarget
from shared.errors import Conflict, NotFound, PeerRefused, TooLarge, Unavailable, UnsupportedMedia
from storage_service.blobs import OpenTarget
from storage_service.service import SECOND_REMOVAL, StorageService
from storage_service.verdict import Probe

MOMENT = timedelta(microseconds=1)


@dataclass
class Open:
    house: House
    storage: StorageService


@pytest.fixture
async def here(folder: Path) -> AsyncIterator[Open]:
    house = House(folder)
    async with house.open() as storage:
        yield Open(house, storage)


async def test_what_is_kept_counts_with_its_exact_size_and_can_be_read(here: Open) -> None:
    video = await stored(here.storage, "a", 700, reserved=1000)
    assert (video.size, video.content_type, video.duration, video.width, video.height) == (
        700,
        "video/mp4",
        1.5,
        64,
        48,
    )
    assert here.house.ledger() == (0, 1000)
    await here.storage.keep(["a"])
    assert here.house.holds_exactly("a")
    assert await here.storage.usage(ANN) == (700, LIMIT)
    assert await here.storage.usage(BEN) == (0, LIMIT)
    assert (await here.storage.find("a")).user_id == ANN
    assert here.house.blobs.path("a", "video").read_bytes() == film(700)
    assert here.house.blobs.path("a", "thumbnail").read_bytes() == b"jpeg"


async def test_a_video_can_be_read_as_soon_as_it_is_stored_and_counts_only_when_it_is_kept(here: Open) -> None:
    await stored(here.storage, "a", 700)
    assert (await here.storage.find("a")).is_readable
    assert await here.storage.usage(ANN) == (0, LIMIT)


async def test_reservations_and_kept_bytes_never_exceed_the_limit_together(here: Open) -> None:
    await stored(here.storage, "a", 700)
    await here.storage.keep(["a"])
    assert (await here.storage.reserve("b", ANN, 1, 5000)).granted == 5000
    assert (await here.storage.reserve("c", ANN, 1, 5000)).granted == LIMIT - 5700
    with pytest.raises(TooLarge, match="Exceeding total storage limit"):
        await here.storage.reserve("d", ANN, 1, 5000)
    assert (await here.storage.reserve("e", BEN, LIMIT, LIMIT)).granted == LIMIT
    await here.storage.delete(["c"])
    assert (await here.storage.reserve("d", ANN, LIMIT - 5700, 5000)).granted == LIMIT - 5700


async def test_what_is_no_video_is_refused_and_nothing_of_it_is_left(here: Open) -> None:
    await here.storage.reserve("a", ANN, 100, 100)
    with pytest.raises(UnsupportedMedia, match="it does not begin with film"):
        await received(here.storage, "a", b"<html>")
    assert not here.house.files("objects") | here.house.files("incoming")
    await here.storage.delete(["a"])
    assert here.house.holds_exactly()


@pytest.mark.parametrize(
    ("failure", "error"), [(OSError("no process"), Unavailable), (RuntimeError("a bug"), RuntimeError)]
)
async def test_when_nothing_can_be_inspected_nothing_is_left(
    here: Open, failure: Exception, error: type[Exception]
) -> None:
    here.house.inspector.failure = failure
    with pytest.raises(error):
        await stored(here.storage, "a", 700)
    assert not here.house.files("objects") | here.house.files("incoming")


async def test_one_byte_more_than_was_reserved_is_refused_when_it_is_finished_and_nothing_is_left(here: Open) -> None:
    await here.storage.reserve("a", ANN, 100, 100)
    with pytest.raises(TooLarge):
        await received(here.storage, "a", film(101))
    assert not here.house.files("objects") | here.house.files("incoming")


@pytest.mark.parametrize("said", [film(49), film(51), b"x" * 50], ids=["shorter", "longer", "other bytes"])
async def test_what_has_arrived_must_be_what_was_sent_or_nothing_is_left(here: Open, said: bytes) -> None:
    await here.storage.reserve("a", ANN, 100, 100)
    async with here.house.blobs.writer("a") as writer:
        await writer.write(film(50))
    with pytest.raises(Unavailable):
        await here.storage.finish("a", sent(said))
    assert not here.house.files("objects") | here.house.files("incoming")


async def test_an_upload_of_which_nothing_has_arrived_cannot_be_finished(here: Open) -> None:
    await here.storage.reserve("a", ANN, 100, 100)
    with pytest.raises(Unavailable):
        await here.storage.finish("a", sent(film(50)))


async def test_only_a_reserved_upload_is_finished_and_a_repetition_answers_the_same(here: Open) -> None:
    with pytest.raises(Conflict):
        await here.storage.finish("a", sent(film(10)))
    video = await stored(here.storage, "a", 700)
    assert await here.storage.finish("a", sent(film(700))) == video
    await here.storage.keep(["a"])
    assert await here.storage.finish("a", sent(film(700))) == video
    with pytest.raises(Conflict):
        await here.storage.finish("a", sent(film(10)))
    with pytest.raises(Conflict):
        await here.storage.reserve("a", ANN, 1, 1)
    with pytest.raises(NotFound):
        await received(here.storage, "a", film(10))
    assert here.house.holds_exactly("a")
    await here.storage.delete(["a"])
    with pytest.raises(Conflict):
        await here.storage.finish("a", sent(film(700)))
    with pytest.raises(Conflict):
        await here.storage.reserve("a", ANN, 1, 1)


async def test_an_upload_that_is_finished_twice_at_the_same_time_is_inspected_once(here: Open) -> None:
    inspect, inspections = here.house.inspector.inspect, 0

    async def counted(path: Path) -> Probe:
        nonlocal inspections
        inspections += 1
        await asyncio.sleep(0.01)
        return await inspect(path)

    here.house.inspector.inspect = counted  # type: ignore[method-assign]
    await here.storage.reserve("a", ANN, 1000, 1000)
    async with here.house.blobs.writer("a") as writer:
        await writer.write(film(700))
    one, other = await asyncio.gather(*(here.storage.finish("a", sent(film(700))) for _ in range(2)))
    assert (one, inspections) == (other, 1)


async def test_bytes_that_come_during_the_inspection_do_not_get_into_the_video(here: Open) -> None:
    inspect = here.house.inspector.inspect
    await here.storage.reserve("a", ANN, 1000, 1000)

    async def appended(path: Path) -> Probe:
        with path.open("ab") as late:  # a process that has the file open since before
            late.write(b"x")
        return await inspect(path)

    here.house.inspector.inspect = appended  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await received(here.storage, "a", film(700))
    assert not here.house.files("objects") | here.house.files("incoming")


async def test_an_upload_that_is_given_up_while_it_arrives_leaves_nothing(here: Open) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield film(50)
        await here.storage.delete(["a"])
        yield b"x"

    await here.storage.reserve("a", ANN, 100, 100)
    with pytest.raises(Conflict):
        await received(here.storage, "a", film(51), slow())
    assert here.house.holds_exactly()


async def test_an_upload_that_is_given_up_while_it_is_inspected_leaves_nothing(here: Open) -> None:
    inspect = here.house.inspector.inspect

    async def slow(path: Path) -> Probe:
        probe = await inspect(path)
        await here.storage.delete(["a"])
        return probe

    here.house.inspector.inspect = slow  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await stored(here.storage, "a", 700)
    assert here.house.holds_exactly()


async def test_deleting_frees_the_bytes_and_removes_the_files_whatever_became_of_the_object(here: Open) -> None:
    await here.storage.reserve("reserved", ANN, 100, 100)
    await stored(here.storage, "stored", 200)
    await stored(here.storage, "kept", 300)
    await here.storage.keep(["kept"])
    await here.storage.delete(["reserved", "stored", "kept", "unknown"])
    await here.storage.delete(["reserved", "stored", "kept", "unknown"])
    assert here.house.holds_exactly()
    await here.storage.keep(["stored", "kept"])
    assert here.house.holds_exactly()
    for name in ("reserved", "stored", "kept", "unknown"):
        with pytest.raises(NotFound):
            await here.storage.find(name)


async def test_a_reservation_lives_until_its_time_is_over_and_longer_when_it_is_renewed(here: Open) -> None:
    assert (await here.storage.reserve("a", ANN, 100, 100)).granted == 100
    here.house.clock.turn(RESERVATION - MOMENT)
    assert await here.storage.sweep() == {"expired": 0, "kept": 0, "refused": 0, "removed": 0}
    assert (await here.storage.reserve("a", ANN, 100, 100)).granted == 100
    here.house.clock.turn(RESERVATION - MOMENT)
    assert (await here.storage.sweep())["expired"] == 0
    here.house.clock.turn(MOMENT)
    assert await here.storage.sweep() == {"expired": 1, "kept": 0, "refused": 0, "removed": 1}
    assert here.house.holds_exactly()


async def test_an_object_that_nobody_kept_is_asked_about_and_never_guessed(here: Open) -> None:
    catalogue = here.house.catalogue
    for name in ("wanted", "unwanted"):
        await stored(here.storage, name, 700)
    await here.storage.sweep()
    assert catalogue.asked == []
    here.house.clock.turn(RESERVATION)
    catalogue.failure = DOWN
    assert await here.storage.sweep() == {"expired": 0, "kept": 0, "refused": 0, "removed": 0}
    assert here.house.states() == {"wanted": "stored", "unwanted": "stored"}
    catalogue.failure, catalogue.videos = None, {"wanted"}
    assert await here.storage.sweep() == {"expired": 0, "kept": 1, "refused": 1, "removed": 1}
    assert here.house.holds_exactly("wanted")
    catalogue.asked.clear()
    await here.storage.sweep()
    assert catalogue.asked == []


@pytest.mark.parametrize("failure", [DOWN, PeerRefused(404, "no such route", "not_found")])
async def test_a_catalogue_that_gives_no_answer_does_not_stop_the_rest_of_the_sweep(
    here: Open, failure: Exception
) -> None:
    await stored(here.storage, "asked", 700)
    await here.storage.reserve("expired", ANN, 100, 100)
    here.house.clock.turn(RESERVATION)
    here.house.catalogue.failure = failure  # type: ignore[assignment]
    assert await here.storage.sweep() == {"expired": 1, "kept": 0, "refused": 0, "removed": 1}
    assert here.house.states()["asked"] == "stored"


async def test_files_whose_removal_failed_are_removed_by_the_sweep(here: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    await stored(here.storage, "a", 700)
    with monkeypatch.context() as broken:
        broken.setattr(here.house.blobs, "remove", lambda *_: (_ for _ in ()).throw(DOWN))
        await here.storage.delete(["a"])
        assert here.house.files("objects")
        assert here.house.ledger() == (0, 0)
    assert (await here.storage.sweep())["removed"] == 1
    assert here.house.holds_exactly()


async def test_what_a_paused_writer_leaves_after_the_removal_goes_a_day_later_and_then_the_row(here: Open) -> None:
    await stored(here.storage, "a", 700)
    await here.storage.delete(["a"])
    await here.house.blobs.open_target("a", 10, None)
    here.house.clock.turn(SECOND_REMOVAL - MOMENT)
    assert (await here.storage.sweep())["removed"] == 0
    here.house.clock.turn(MOMENT)
    assert (await here.storage.sweep())["removed"] == 1
    assert (here.house.files("objects"), here.house.states()) == (set(), {})
    assert (await here.storage.sweep())["removed"] == 0


class Bucket:
    """Opens a session for each upload without one; both of two at once open theirs before one is noted."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.cancelled: list[str] = []
        self.both = asyncio.Event()

    async def open_target(self, filename: str, granted: int, session: str | None) -> OpenTarget:
        if session is None:
            session = f"https://bucket/{len(self.opened)}"
            self.opened.append(session)
            if len(self.opened) == 2:
                self.both.set()
            await self.both.wait()
        return OpenTarget(UploadTarget(url=session), session)

    async def cancel(self, session: str) -> None:
        self.cancelled.append(session)


async def test_one_reservation_made_twice_at_once_has_one_session_and_the_other_is_cancelled(here: Open) -> None:
    bucket = Bucket()
    here.storage._blobs = bucket  # type: ignore[assignment]
    one, other = await asyncio.gather(*(here.storage.reserve("a", ANN, 100, 100) for _ in range(2)))
    assert one == other
    assert bucket.cancelled == [session for session in bucket.opened if session != one.target.url]
    assert len(bucket.cancelled) == 1
    assert here.house.ledger() == (0, 100)
