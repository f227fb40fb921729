"""The rules of the catalogue: who sees what, who may delete, and what a deletion owes."""

import uuid
from datetime import timedelta
from typing import Protocol

from shared.auth import User
from shared.clock import Clock, utc_now
from shared.contracts import Recorder, is_filename
from shared.cursor import Cursor
from shared.errors import Forbidden, NotFound
from video_service import outbox
from video_service.outbox import Outbox
from video_service.store import Page, Store, Video

FETCHES = "VideoFetchService"
STREAMS = "VideoStreamService"
DELETIONS = "VideoDeleteService"
# As many as storage-service removes well within the time that a call may take.
DELETE_BATCH = 50
# No upload lives as long: after this time nobody can add a filename that was settled as never to be.
SETTLED_LIFE = timedelta(days=7)
FORGET_EVERY = timedelta(hours=1)


class Storage(Protocol):
    async def answers(self) -> None: ...


class VideoService:
    def __init__(self, store: Store, outbox: Outbox, storage: Storage, audit: Recorder, clock: Clock = utc_now) -> None:
        self._store = store
        self._outbox = outbox
        self._storage = storage
        self._audit = audit
        self._clock = clock
        self._forget_at = clock()

    async def newest(self, viewer: User, *, search: str, start: int, limit: int, after: Cursor | None = None) -> Page:
        page = await self._store.page(owner=None, search=search, start=start, limit=limit, after=after)
        self._audit.record(
            viewer.id, "FETCH_VIDEOS", f"Fetched {len(page.videos)} videos {_from(start, after)}", FETCHES
        )
        return page

    async def of_user(
        self, viewer: User, owner: uuid.UUID, *, search: str = "", start: int, limit: int, after: Cursor | None = None
    ) -> Page:
        if not viewer.may_see(owner):
            raise Forbidden("You may list your own videos only.")
        page = await self._store.page(owner=owner, search=search, start=start, limit=limit, after=after)
        self._audit.record(
            viewer.id,
            "FETCH_USER_VIDEOS",
            f"Fetched {len(page.videos)} videos of {owner} {_from(start, after)}",
            FETCHES,
        )
        return page

    async def watch(self, viewer: User, filename: str) -> Video:
        """The video, if it can be played now; raises ``NotFound``, and ``Unavailable`` without storage-service."""
        video = await self._live(filename)
        await self._storage.answers()
        self._audit.record(viewer.id, "STREAM_VIDEO", f"Watched {video.title}", STREAMS)
        return video

    async def delete(self, user: User, filename: str) -> None:
        video = await self._live(filename)
        if not user.may_see(video.user_id):
            raise Forbidden("You may delete your own videos only.")
        if not await self._delete([filename], video.user_id):
            raise NotFound("There is no such video.")
        self._audit.record(user.id, "DELETE_VIDEO", f"Deleted {video.title}", DELETIONS)

    async def delete_all(self, user: User) -> int:
        """Delete every video of ``user``; how many there were."""
        deleted = 0
        while filenames := await self._store.live_filenames(user.id, DELETE_BATCH):
            deleted += await self._delete(filenames, user.id)
        self._audit.record(user.id, "DELETE_ALL_VIDEOS", f"Deleted {deleted} videos", DELETIONS)
        return deleted

    async def settle(self, filename: str) -> bool:
        """storage-service's question about an object that nobody kept; a no is final."""
        return await self._store.settle(filename, self._clock())

    async def sweep(self) -> dict[str, int]:
        if (now := self._clock()) >= self._forget_at:
            await self._store.forget_settled(now - SETTLED_LIFE)
            self._forget_at = now + FORGET_EVERY
        return {"sent": await self._outbox.sweep()}

    async def _live(self, filename: str) -> Video:
        video = await self._store.find(filename) if is_filename(filename) else None
        if video is None or video.deleted_at is not None:
            raise NotFound("There is no such video.")
        return video

    async def _delete(self, filenames: list[str], owner: uuid.UUID) -> int:
        now = self._clock()
        owed = outbox.for_deletion(filenames, owner, now)
        deleted = await self._store.delete(filenames, owed, now, self._outbox.lease())
        if deleted:
            await self._outbox.send(owed)
        return deleted


def _from(start: int, after: Cursor | None) -> str:
    return f"before {after.time}" if after else f"from {start}"
