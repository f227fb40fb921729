"""The rules of storage: what fits, what is a video, what stays, what goes."""

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from shared.clock import Clock, utc_now
from shared.contracts import Recorder, SentVideo, StoredVideo, UploadGrant
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
        self._finishing: dict[str, asyncio.Task[StoredVideo]] = {}

    async def reserve(self, filename: str, user_id: uuid.UUID, least: int, most: int) -> UploadGrant:
        """Grant an upload its bytes and a target for them; raises ``TooLarge`` if even ``least`` does not fit."""
        now = self._clock()
        claim = await self._store.reserve(
            filename, user_id, least, most, limit=self._max_bytes, now=now, until=now + self._reservation
        )
        if claim is None:
            raise TooLarge(
                f"Exceeding total storage limit: all your videos together may take {self._max_bytes / MIB:g} MB.",
                code="storage_limit",
            )
        opened = await self._blobs.open_target(filename, claim.granted, claim.session)
        if opened.session is not None and opened.session != claim.session:
            try:
                is_noted = await self._store.note_session(filename, opened.session)
            except BaseException:
                await self._blobs.cancel(opened.session)
                raise
            if not is_noted:  # the same reservation, made twice at once: the other one's session is the target
                await self._blobs.cancel(opened.session)
                return await self.reserve(filename, user_id, least, most)
        return UploadGrant(granted=claim.granted, target=opened.target)

    async def finish(self, filename: str, sent: SentVideo) -> StoredVideo:
        """Check, inspect and store what has arrived at the upload's target. It may be repeated, also at the same time.

        Raises ``UnsupportedMedia`` if it is not a video, ``TooLarge`` over the grant, ``Conflict`` if the upload was
        given up, ``Unavailable`` if something else has arrived than was sent. After a failure nothing of it is left.
        """
        running = self._finishing.get(filename)
        if running is None:
            running = asyncio.create_task(self._finish(filename, sent), name="finish")
            self._finishing[filename] = running
            running.add_done_callback(lambda task: self._finished(filename, task))
        return await asyncio.shield(running)

    def _finished(self, filename: str, task: "asyncio.Task[StoredVideo]") -> None:
        del self._finishing[filename]
        if not task.cancelled():
            task.exception()  # seen, also when the request that waited is gone

    async def _finish(self, filename: str, sent: SentVideo) -> StoredVideo:
        found = await self._store.find(filename)
        if found is None:
            raise Conflict("There is no reservation for this upload.", code="not_reserved")
        if found.state == "deleted":
            raise upload_gone()
        if found.video is not None:
            if found.video.size != sent.size:
                raise Conflict("This upload has been stored already.", code="already_stored")
            return found.video
        try:
            arrived = await self._blobs.arrived(filename)
            if arrived is not None and arrived.size > found.granted:
                raise TooLarge(
                    f"The video is larger than the {found.granted} bytes reserved for it.", code="over_reservation"
                )
            if arrived != sent:
                log.error("of an upload of %s bytes something else has arrived: %s", sent.size, arrived)
                raise Unavailable("The storage does not answer; please try again later.")
            probe = await self._inspector.inspect(self._blobs.source(filename, sent.size))
            await self._blobs.finish(filename, sent.size, probe.thumbnail)
            video = StoredVideo(
                size=sent.size,
                content_type=probe.content_type,
                duration=probe.duration,
                width=probe.width,
                height=probe.height,
            )
            if not await self._store.store(filename, video):
                raise upload_gone()
        except BaseException as error:
            await asyncio.shield(self._give_up(filename))
            if isinstance(error, NotAVideo):
                raise UnsupportedMedia(f"This is not a video that can be played: {error}", code="not_a_video") from None
            if isinstance(error, OSError):
                raise Unavailable("The video cannot be inspected now; please try again later.") from error
            raise
        return video

    async def _give_up(self, filename: str) -> None:
        """First the row, then the files: a repetition must not find a stored video whose files are gone."""
        try:
            await self.delete([filename])
        except ServiceError:
            log.warning("an upload that failed is left for the sweeper")

    async def keep(self, filenames: Sequence[str]) -> None:
        await self._store.keep(filenames)

    async def delete(self, filenames: Sequence[str]) -> None:
        """Free the bytes of these objects or reservations, whatever became of them, and remove their files."""
        sessions = await self._store.delete(filenames, self._clock())
        await self._remove({filename: sessions.get(filename) for filename in filenames})

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

    async def _remove(self, sessions: Mapping[str, str | None]) -> int:
        """End these sessions and remove the files, several at a time, since a bucket is slow; how many are gone."""
        turn = asyncio.Semaphore(REMOVALS_AT_ONCE)

        async def remove(filename: str, session: str | None) -> bool:
            async with turn:
                try:
                    await self._blobs.remove(filename, session)
                    now = self._clock()
                    await self._store.removed(filename, now, now + SECOND_REMOVAL)
                except ServiceError:
                    log.warning("files are left for the sweeper")
                    return False
                return True

        return sum(await asyncio.gather(*(remove(*one) for one in sessions.items())))


def upload_gone() -> Conflict:
    return Conflict("This upload has been given up; please start it again.", code="upload_gone")
