"""video-service killed at every step of an upload and of a deletion, then started again over the same database.

Whatever the step, afterwards the catalogue, storage-service and usage-service tell the same story, to the byte.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from unit.dying import Fate, Killed, Mortal
from unit.video.fakes import ANN, MAX, OVERHEAD, Audit, Clock, Form, Storage, Usage, Users

from video_service.outbox import Outbox
from video_service.service import VideoService
from video_service.store.sqlite import SqliteStore
from video_service.upload import Uploads

# lock, two reservations, send, finish, add, three messages, each marked as delivered
UPLOAD_STEPS = 12
# find, delete, two things owed, twice paid; look, delete, the same four, look again
DELETE_STEPS, DELETE_ALL_STEPS = 6, 7
A_LONG_TIME = timedelta(hours=1)


class Peers:
    """What outlives video-service."""

    def __init__(self) -> None:
        self.users, self.storage, self.usage = Users(), Storage(), Usage()
        self.clock = Clock()

    async def expire(self, videos: VideoService) -> None:
        """Leases run out, and storage-service asks about the objects that nobody kept."""
        self.users.locks.clear()
        for name in list(self.usage.reserved):
            self.usage.give_back(name)
        for name in list(self.storage.reserved):
            if name not in self.storage.objects:
                await self.storage.delete([name])
        for name in self.storage.objects.keys() - self.storage.kept:
            await (self.storage.keep([name]) if await videos.settle(name) else self.storage.delete([name]))


class Life:
    """One process of video-service, from its start to its end."""

    def __init__(self, store: SqliteStore, peers: Peers, fate: Fate) -> None:
        catalogue, users, storage, usage = (
            Mortal(adapter, fate) for adapter in (store, peers.users, peers.storage, peers.usage)
        )
        outbox = Outbox(catalogue, users, storage, usage, peers.clock)
        self.videos = VideoService(catalogue, outbox, storage, Audit(), peers.clock)
        self.uploads = Uploads(
            catalogue,
            outbox,
            users,
            storage,
            usage,
            Audit(),
            max_bytes=MAX,
            overhead=OVERHEAD,
            renew_seconds=60,
            clock=peers.clock,
        )

    async def upload(self) -> str:
        return (await self.uploads.upload(ANN, None, Form(b"x" * 700))).filename


@asynccontextmanager
async def started(path: Path, peers: Peers, fate: Fate | None = None) -> AsyncIterator[Life]:
    async with SqliteStore.open(path / "videos.db") as store:
        yield Life(store, peers, fate or Fate())


async def recovered(path: Path, peers: Peers, *, outbox_first: bool) -> set[str]:
    """Start again after a long time; the filenames in the catalogue."""
    peers.clock.turn(A_LONG_TIME)
    async with started(path, peers) as life:
        if outbox_first:
            await life.videos.sweep()
        await peers.expire(life.videos)
        await life.videos.sweep()
        assert (await life.videos.sweep()) == {"sent": 0}
        page = await life.videos.newest(ANN, search="", start=0, limit=100)
        assert page.total == len(page.videos)
        return {video.filename for video in page.videos}


async def killed(work: Callable[[], Awaitable[object]], fate: Fate) -> bool:
    """Whether ``work`` got to its end before its fate."""
    try:
        await work()
    except Killed:
        return False
    assert not fate.met, "it went on after it was killed"
    return True


@pytest.mark.parametrize("outbox_first", [True, False], ids=["outbox first", "storage asks first"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_upload_killed_at_any_step_is_a_video_everywhere_or_nowhere(
    folder: Path, after: bool, outbox_first: bool
) -> None:
    for step in count(1):
        path, peers, fate = folder / str(step), Peers(), Fate(step, after=after)
        async with started(path, peers, fate) as life:
            finished = await killed(life.upload, fate)
        catalogue = await recovered(path, peers, outbox_first=outbox_first)
        assert len(catalogue) <= 1
        assert catalogue == set(peers.storage.objects) == peers.storage.kept
        assert peers.usage.uploads == dict.fromkeys(catalogue, 700)
        assert not peers.usage.reserved
        assert set(peers.storage.reserved) <= catalogue
        if finished:
            assert (len(catalogue), step) == (1, UPLOAD_STEPS + 1)
            return


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("everything", [False, True], ids=["one", "all"])
async def test_a_deletion_killed_at_any_step_is_done_everywhere_or_nowhere(
    folder: Path, after: bool, everything: bool
) -> None:
    for step in count(1):
        path, peers, fate = folder / str(step), Peers(), Fate(step, after=after)
        async with started(path, peers) as life:
            uploaded = {await life.upload(), await life.upload()}
        asked = uploaded if everything else {min(uploaded)}
        async with started(path, peers, fate) as life:
            finished = await killed(
                partial(life.videos.delete_all, ANN) if everything else partial(life.videos.delete, ANN, min(uploaded)),
                fate,
            )
        catalogue = await recovered(path, peers, outbox_first=True)
        deleted = uploaded - catalogue
        assert deleted in (set(), asked)
        assert catalogue == set(peers.storage.objects) == peers.storage.kept
        assert peers.usage.deleted == deleted
        assert peers.usage.uploads == dict.fromkeys(uploaded, 700), "deleted uploads still count towards the day"
        if finished:
            assert (deleted, step) == (asked, (DELETE_ALL_STEPS if everything else DELETE_STEPS) + 1)
            return
