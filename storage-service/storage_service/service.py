"""The rules of storage: what fits, what is a video, what stays, what goes."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from shared.clock import Clock, utc_now
from shared.contracts import StoredVideo
from shared.errors import Conflict, NotFound, ServiceError, TooLarge, Unavailable, UnsupportedMedia
from shared.settings import MIB
from storage_service.blobs import Blobs, Remote
from storage_service.store import Store, StoredObject
from storage_service.verdict import NotAVideo, Probe

log = logging.getLogger(__name__)

STORAGE = "StorageManagementService"
SWEEP_BATCH = 200
REMOVALS_AT_ONCE = 8
# A deleted row outlives its files by this long, and then they are removed once more: a writer that was paused (a
# laptop's lid, a frozen container) may have finished its file after the first removal.
SECOND_REMOVAL = timedelta(days=1)


class Catalogue(Protocol):
    async def has(self, filename: str) -> bool: ...


class Inspector(Protocol):
    async def inspect(self, source: Path | Remote) -> Probe: ...


class Recorder(Protocol):
    def record(self, user_id: uuid.UUID, action: str, description: str, service: str) -> None: ...


class StorageService:
    """``max_bytes`` is each user's quota, ``reservation`` how long a claim lives that is not renewed."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        inspector: Inspector,
        catalogue: Catalogue,
        audit: Recorder,
        *,
        max_bytes: int,
        reservation_seconds: float,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._inspector = inspector
        self._catalogue = catalogue
        self._audit = audit
        self._max_bytes = max_bytes
        self._reservation = timedelta(seconds=reservation_seconds)
        self._clock = clock

    async def reserve(self, filename: str, user_id: uuid.UUID, least: int, most: int) -> int:
        """The bytes granted to an upload; raises ``TooLarge`` if even ``least`` does not fit."""
        now = self._clock()
        granted = await self._store.reserve(
            filename, user_id, least, most, limit=self._max_bytes, now=now, until=now + self._reservation
        )
        if granted is None:
            raise TooLarge(
                f"Exceeding total storage limit: all your videos together may take {self._max_bytes / MIB:g} MB.",
                code="storage_limit",
            )
        return granted

    async def receive(self, filename: str, chunks: AsyncIterator[bytes]) -> StoredVideo:
        """Store and inspect a reserved upload. Not a video → ``UnsupportedMedia``, and nothing of it is left."""
        reserved = await self._store.find(filename)
        if reserved is None or reserved.state != "reserved":
            raise Conflict("There is no reservation for this upload.", code="not_reserved")
        size = await self._blobs.write(filename, chunks, reserved.granted)
        try:
            probe = await self._inspector.inspect(self._blobs.source(filename, size))
            await self._blobs.finish(filename, probe.thumbnail)
            video = StoredVideo(
                size=size,
                content_type=probe.content_type,
                duration=probe.duration,
                width=probe.width,
                height=probe.height,
            )
            if not await self._store.store(filename, video):
                raise Conflict("This upload has been given up; please start it again.", code="upload_gone")
        except BaseException as error:
            await asyncio.shield(self._blobs.remove(filename))
            if isinstance(error, NotAVideo):
                raise UnsupportedMedia(f"This is not a video that can be played: {error}", code="not_a_video") from None
            if isinstance(error, OSError):
                raise Unavailable("The video cannot be inspected now; please try again later.") from error
            raise
        return video

    async def keep(self, filenames: Sequence[str]) -> None:
        await self._store.keep(filenames)

    async def delete(self, filenames: Sequence[str]) -> None:
        """Free the bytes of these objects or reservations, whatever became of them, and remove their files."""
        await self._store.delete(filenames, self._clock())
        await self._remove(filenames)

    async def find(self, filename: str) -> StoredObject:
        """A readable object; raises ``NotFound``."""
        found = await self._store.find(filename)
        if found is None or not found.is_readable:
            raise NotFound("This video does not exist any more.")
        return found

    async def usage(self, user_id: uuid.UUID) -> tuple[int, int]:
        """Bytes kept, and the quota."""
        kept = await self._store.kept_bytes(user_id)
        self._audit.record(user_id, "CHECK_STORAGE", "Checked the storage", STORAGE)
        return kept, self._max_bytes

    async def sweep(self) -> dict[str, int]:
        """Clear what died halfway: expired reservations, objects nobody kept, files whose removal failed."""
        now = self._clock()
        expired = await self._store.delete_expired(now, SWEEP_BATCH)
        kept = refused = 0
        for filename in await self._store.unkept(now, SWEEP_BATCH):
            try:
                wanted = await self._catalogue.has(filename)
            except ServiceError:
                break  # ask later, never guess
            if wanted:
                await self._store.keep([filename])
                kept += 1
            else:
                await self._store.delete([filename], now)
                refused += 1
        removed = await self._remove(await self._store.removable(now, SWEEP_BATCH))
        return {"expired": expired, "kept": kept, "refused": refused, "removed": removed}

    async def _remove(self, filenames: Sequence[str]) -> int:
        """Their files, several at a time, for a bucket takes its time; how many are gone."""
        turn = asyncio.Semaphore(REMOVALS_AT_ONCE)

        async def remove(filename: str) -> bool:
            async with turn:
                try:
                    await self._blobs.remove(filename)
                    now = self._clock()
                    await self._store.removed(filename, now, now + SECOND_REMOVAL)
                except ServiceError:
                    log.warning("files are left for the sweeper")
                    return False
                return True

        return sum(await asyncio.gather(*(remove(filename) for filename in filenames)))
