"""An upload's rules: what is accepted, what is refused with which words, and that a refusal gives everything back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from unit.video.fakes import ANN, DOWN, MAX, Form, World

from shared.contracts import Grant, Reservation
from shared.errors import (
    BadRequest,
    Conflict,
    Invalid,
    LimitReached,
    PeerRefused,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from video_service.outbox import FIRST_PAUSE
from video_service.upload import MAX_TITLE, valid_title


async def test_an_upload_becomes_a_video_that_storage_keeps_and_usage_counts() -> None:
    world = World()
    video = await world.upload(Form(b"x" * 700, "  A film "), declared=750)
    assert (video.user_id, video.title, video.size, video.uploaded_at) == (ANN.id, "A film", 700, world.clock.now)
    assert (video.duration, video.width, video.height) == (1.5, 64, 48)
    assert world.store.videos == {video.filename: video}
    assert world.storage.kept == {video.filename}
    assert world.usage.uploads == {video.filename: 700}
    assert world.audit.actions == ["UPLOAD_VIDEO"]
    assert not world.users.locks
    assert not world.usage.reserved
    assert not world.store.owed


async def test_every_upload_has_a_filename_of_its_own_that_nobody_can_guess() -> None:
    names = {(await World().upload()).filename for _ in range(50)}
    assert len(names) == 50
    assert all(len(name) >= 22 for name in names)


class Broken(Form):
    """A form that fails, in the middle of the video or after it."""

    def __init__(self, error: BaseException, *, late: bool) -> None:
        super().__init__(b"x" * 200)
        self.error = error
        self.late = late

    async def video(self) -> AsyncIterator[bytes]:
        async for chunk in super().video():
            yield chunk
        if not self.late:
            raise self.error

    async def finish(self) -> None:
        if self.late:
            raise self.error


def lock_is_taken(world: World) -> None:
    world.users.locks[ANN.id] = "another"


def failing(peer: str, error: ServiceError) -> Callable[[World], None]:
    return lambda world: setattr(getattr(world, peer), "failure", error)


def left(peer: str, bytes_left: int) -> Callable[[World], None]:
    return lambda world: setattr(getattr(world, peer), "left", bytes_left)


def nothing_wrong(_: World) -> None:
    pass


def not_a_video(world: World) -> None:
    world.storage.verdict = PeerRefused(415, "not a video", "not_a_video")


def settled_in_between(world: World) -> None:
    world.store.settle_all = True


NO_SUCH_USER = PeerRefused(404, "There is no such user.", "no_such_user")
CUT = BadRequest("cut off", code="cut_off")
REFUSALS: list[tuple[str, Callable[[World], None], Form, type[BaseException], int]] = [
    ("the user's other upload", lock_is_taken, Form(), PeerRefused, 409),
    ("an account that is gone", failing("users", NO_SUCH_USER), Form(), Unauthorized, 401),
    ("storage is full", left("storage", 0), Form(), PeerRefused, 413),
    ("the day is full", left("usage", 0), Form(), PeerRefused, 429),
    ("storage is down", failing("storage", DOWN), Form(), Unavailable, 503),
    ("storage takes too little", left("storage", 100), Form(b"x" * 101), TooLarge, 413),
    ("the day takes too little", left("usage", 100), Form(b"x" * 101), LimitReached, 429),
    ("more than one upload may have", nothing_wrong, Form(b"x" * (MAX + 1)), TooLarge, 413),
    ("an empty file", nothing_wrong, Form(b""), Invalid, 422),
    ("not a video", not_a_video, Form(), PeerRefused, 415),
    ("no title", nothing_wrong, Form(title=None), Invalid, 422),
    ("a blank title after the video", nothing_wrong, Form(title=" \t\n"), Invalid, 422),
    ("a long title", nothing_wrong, Form(title="x" * (MAX_TITLE + 1)), Invalid, 422),
    ("cut off in the video", nothing_wrong, Broken(CUT, late=False), BadRequest, 400),
    ("cut off after the video", nothing_wrong, Broken(CUT, late=True), BadRequest, 400),
    ("cancelled in the video", nothing_wrong, Broken(asyncio.CancelledError(), late=False), asyncio.CancelledError, 0),
    ("given up in between", settled_in_between, Form(), Conflict, 409),
]


@pytest.mark.parametrize(
    ("arrange", "form", "error", "status"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
async def test_a_refusal_gives_everything_back(
    arrange: Callable[[World], None], form: Form, error: type[BaseException], status: int
) -> None:
    world = World()
    arrange(world)
    before = world.storage.left, world.usage.left
    with pytest.raises(error) as refusal:
        await world.upload(form)
    assert getattr(refusal.value, "status", 0) == status
    world.users.locks = {user: holder for user, holder in world.users.locks.items() if holder != "another"}
    world.storage.failure = None
    world.clock.turn(FIRST_PAUSE)
    await world.outbox.sweep()
    assert world.holds_nothing()
    assert (world.storage.left, world.usage.left) == before
    assert world.audit.actions == []


async def test_the_other_upload_keeps_its_lock() -> None:
    world = World()
    lock_is_taken(world)
    with pytest.raises(PeerRefused):
        await world.upload()
    assert world.users.locks == {ANN.id: "another"}
    assert world.storage.calls == world.usage.calls == []


async def test_with_usage_down_the_upload_goes_on_and_its_usage_follows() -> None:
    world = World()
    world.usage.failure = DOWN
    video = await world.upload()
    assert world.storage.kept == {video.filename}
    world.usage.failure = None
    world.clock.turn(world.outbox.lease() - world.clock())
    assert await world.outbox.sweep() == 1
    assert world.usage.uploads == {video.filename: 4}


async def test_with_user_service_down_the_lock_is_skipped() -> None:
    world = World()
    world.users.failure = DOWN
    video = await world.upload()
    assert world.storage.kept == {video.filename}


async def test_a_video_whose_entry_got_no_answer_is_not_given_back() -> None:
    """The row may exist: storage-service will ask, and nobody may have deleted the object by then."""
    world = World()
    world.store.lost = True
    with pytest.raises(Unavailable):
        await world.upload()
    assert list(world.storage.objects) == list(world.store.videos) != []
    assert world.storage.reserved
    assert not world.users.locks
    world.clock.turn(world.outbox.lease() - world.clock())
    await world.outbox.sweep()
    assert world.storage.kept == set(world.store.videos)
    assert world.usage.uploads == dict.fromkeys(world.store.videos, 4)


@pytest.mark.parametrize("quota", ["storage", "usage"])
async def test_a_reservation_whose_answer_is_lost_is_given_back(quota: str) -> None:
    world = World()
    peer = getattr(world, quota)
    reserve = peer.reserve

    async def lost(*claim: object) -> Grant:
        await reserve(*claim)
        raise DOWN

    peer.reserve = lost
    with pytest.raises(ServiceError):
        await world.upload(Form(title=""))
    assert world.holds_nothing()


async def test_who_is_refused_by_one_quota_holds_nothing_of_the_other_however_slow_it_was() -> None:
    world = World()
    world.storage.failing, world.storage.failure = "reserve", PeerRefused(413, "It is full.", "storage_limit")
    reserve = world.usage.reserve

    async def slowly(upload_id: str, reservation: Reservation) -> Grant:
        for _ in range(5):
            await asyncio.sleep(0)
        return await reserve(upload_id, reservation)

    world.usage.reserve = slowly  # type: ignore[method-assign]
    with pytest.raises(PeerRefused):
        await world.upload()
    assert "reserve" in world.usage.calls
    assert world.holds_nothing()


async def test_a_peer_that_is_away_when_things_are_given_back_changes_nothing_of_the_answer() -> None:
    world = World()

    class Falling(Form):
        async def finish(self) -> None:
            world.users.failure = world.storage.failure = world.usage.failure = DOWN
            raise CUT

    with pytest.raises(BadRequest):
        await world.upload(Falling())
    assert [world.users.calls[-1], world.storage.calls[-1], world.usage.calls[-1]] == ["unlock", "delete", "release"]
    assert not world.holds_nothing()
    # Nobody has to wait for the leases: it is owed.
    world.users.failure = world.storage.failure = world.usage.failure = None
    world.clock.turn(FIRST_PAUSE)
    assert await world.outbox.sweep() == 3
    assert world.holds_nothing()


async def test_what_cannot_even_be_written_down_is_left_to_its_lease() -> None:
    world = World()

    class Falling(Form):
        async def finish(self) -> None:
            world.storage.failure = DOWN
            world.store.away = True
            raise CUT

    with pytest.raises(BadRequest):
        await world.upload(Falling())
    assert world.store.owed == {}


@pytest.mark.parametrize("down", [False, True])
async def test_while_the_body_arrives_lock_and_reservations_are_renewed_whoever_is_away(down: bool) -> None:
    world = World(renew_seconds=0.0001)
    renewed = asyncio.Event()
    reserve = world.usage.reserve

    async def counted(*claim: object) -> Grant:
        if world.usage.calls.count("reserve") >= 4:
            renewed.set()
        return await reserve(*claim)  # type: ignore[arg-type]

    world.usage.reserve = counted  # type: ignore[method-assign, assignment]

    class Slow(Form):
        async def video(self) -> AsyncIterator[bytes]:
            yield b"film"
            world.users.failure = DOWN if down else None
            await renewed.wait()

    video = await world.upload(Slow())
    assert min(world.users.calls.count("lock"), world.storage.calls.count("reserve")) >= 4
    assert (world.storage.kept, world.usage.uploads) == ({video.filename}, {video.filename: 4})


async def test_when_the_server_ends_it_waits_until_a_cancelled_upload_has_given_everything_back() -> None:
    world = World()
    begun, answering = asyncio.Event(), asyncio.Event()
    delete = world.storage.delete

    async def slow(filenames: Sequence[str]) -> None:
        await answering.wait()
        await delete(filenames)

    world.storage.delete = slow  # type: ignore[method-assign]

    class Endless(Form):
        async def video(self) -> AsyncIterator[bytes]:
            yield b"film"
            begun.set()
            await asyncio.Event().wait()

    await world.uploads.wait_for_cancelled()
    upload = asyncio.create_task(world.upload(Endless()))
    await begun.wait()
    upload.cancel()
    ending = asyncio.create_task(world.uploads.wait_for_cancelled())
    answering.set()
    await ending
    assert upload.cancelled()
    assert world.holds_nothing()


@pytest.mark.parametrize("title", [None, "", " ", "\t\r\n", "x" * 256, "a\0b"])
def test_a_title_that_cannot_be_one_is_refused(title: str | None) -> None:
    with pytest.raises(Invalid, match=r"^title: "):
        valid_title(title)


@pytest.mark.parametrize("title", ["x", "x" * 255, " " * 500 + "x", "<b>&amp;", "ünï 🎬", "a\nb"])
def test_any_other_title_stays_as_it_is_but_for_the_blanks_around_it(title: str) -> None:
    assert valid_title(title) == title.strip()
