"""An upload, step by step: lock, reserve, send, finish, add to the catalogue. After a failure everything is given back.

The upload's id is the video's filename, and every call to a peer is keyed by it. What cannot be given back because
somebody died is a lease that runs out: the lock, both reservations, and an object that storage-service then asks about.
"""

import asyncio
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from shared.auth import User
from shared.clock import Clock, utc_now
from shared.contracts import Chunk, Grant, Recorder, Reservation, SentVideo, StoredVideo, UploadGrant, UploadTarget
from shared.errors import (
    Conflict,
    Invalid,
    LimitReached,
    PeerRefused,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from shared.settings import MIB
from video_service import outbox
from video_service.outbox import Outbox
from video_service.store import Owed, Store, Video

log = logging.getLogger(__name__)

UPLOADS = "VideoUploadService"
MAX_TITLE = 255
LAST_SECONDS = 1.0


class Form(Protocol):
    """The upload form as it arrives; see ``multipart.UploadForm``."""

    @property
    def fields(self) -> dict[str, str]: ...
    def video(self) -> AsyncIterator[Chunk]: ...
    async def finish(self) -> None: ...


class Users(Protocol):
    async def lock_upload(self, user_id: uuid.UUID, upload_id: str) -> None: ...


class Storage(Protocol):
    async def reserve(self, upload_id: str, reservation: Reservation) -> UploadGrant: ...
    async def send(self, target: UploadTarget, chunks: AsyncIterator[Chunk]) -> SentVideo: ...
    async def finish(self, upload_id: str, sent: SentVideo) -> StoredVideo: ...


class Usage(Protocol):
    async def reserve(self, upload_id: str, reservation: Reservation) -> Grant: ...


class Uploads:
    """``overhead`` is the most that a form may hold beside the video, in bytes."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        users: Users,
        storage: Storage,
        usage: Usage,
        audit: Recorder,
        *,
        max_bytes: int,
        overhead: int,
        renew_seconds: float,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._users = users
        self._storage = storage
        self._usage = usage
        self._audit = audit
        self._max_bytes = max_bytes
        self._overhead = overhead
        self._renew_seconds = renew_seconds
        self._clock = clock
        self._running: set[asyncio.Task[object]] = set()

    async def upload(self, user: User, declared: int | None, form: Form) -> Video:
        """Take one video from ``form``, whose body is ``declared`` bytes long, or of unknown length.

        Raises ``TooLarge`` (413) over the size of an upload or the storage quota, ``LimitReached`` (429) over the daily
        limit, ``Conflict`` (409) while another upload runs, ``UnsupportedMedia`` (415), ``Invalid`` (422),
        ``Unavailable``.
        """
        reservation = self._reservation(user, declared)
        upload_id = secrets.token_urlsafe(16)
        taken: list[Owed] = []  # what gives it back, if the upload fails
        with self._counted_as_running():
            try:
                taken.append(outbox.unlock(user.id, upload_id))
                await self._lock(user, upload_id)
                taken += [outbox.release_day(upload_id), outbox.release_storage(upload_id)]
                target, ceiling = await self._reserve(upload_id, reservation)
                async with self._renewing(user, upload_id, reservation):
                    sent = await self._storage.send(target, self._measured(form, ceiling))
                    await form.finish()
                    title = valid_title(form.fields.get("title"))
                    stored = await self._storage.finish(upload_id, sent)
                video = self._video(user, upload_id, title, stored)
                messages = outbox.for_upload(upload_id, user.id, video.size, video.uploaded_at)
                # From here on the row may exist, even if the database's answer is lost. Only storage-service, which
                # asks the catalogue, may still give the object back.
                reserved, taken = taken[1:], taken[:1]
                if not await self._store.add(video, messages, self._outbox.lease()):
                    taken += reserved
                    raise Conflict(
                        "This upload took too long and was given up; please start it again.", code="upload_gone"
                    )
                taken = []  # the lock is given back by a message
                await self._outbox.send(messages)
            except BaseException:
                for message in reversed(taken):
                    await self._outbox.give_back(message)
                raise
        self._audit.record(user.id, "UPLOAD_VIDEO", f"Uploaded {video.title} ({video.size / MIB:.2f} MB)", UPLOADS)
        return video

    async def wait_for_cancelled(self) -> None:
        """When the server ends: what its cancelled uploads took is given back, if that is done soon."""
        if self._running:
            await asyncio.wait(self._running, timeout=LAST_SECONDS)

    @contextmanager
    def _counted_as_running(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    def _reservation(self, user: User, declared: int | None) -> Reservation:
        """What to ask the quotas for: the body's length tells the video's within the form's overhead."""
        if declared is None:
            return Reservation(user_id=user.id, least=1, most=self._max_bytes)
        if declared - self._overhead > self._max_bytes:
            raise self._over_upload_limit()
        most = max(1, min(declared, self._max_bytes))
        return Reservation(user_id=user.id, least=max(1, min(declared - self._overhead, most)), most=most)

    def _video(self, user: User, upload_id: str, title: str, stored: StoredVideo) -> Video:
        return Video(
            id=uuid.uuid4(),
            user_id=user.id,
            filename=upload_id,
            title=title,
            uploaded_at=self._clock(),
            size=stored.size,
            duration=stored.duration,
            width=stored.width,
            height=stored.height,
        )

    async def _lock(self, user: User, upload_id: str) -> None:
        try:
            await self._users.lock_upload(user.id, upload_id)
        except Unavailable:
            log.warning("the upload lock is skipped: user-service does not answer")
        except PeerRefused as refusal:
            if refusal.code == "no_such_user":
                raise Unauthorized("Your account does not exist any more.", code="no_such_user") from None
            raise

    async def _reserve(self, upload_id: str, reservation: Reservation) -> tuple[UploadTarget, tuple[int, ServiceError]]:
        """Both reservations: the target, how many bytes may come, and what to say at the first one too many."""
        # Both at once, and both to their end: what is given back must not overtake what is still being asked for.
        storage, day = await asyncio.gather(
            self._storage.reserve(upload_id, reservation),
            self._usage.reserve(upload_id, reservation),
            return_exceptions=True,
        )
        if isinstance(storage, BaseException):
            raise storage
        storage_full = TooLarge(
            "Exceeding total storage limit: this video does not fit in what is left of your storage.",
            code="storage_limit",
        )
        ceilings: list[tuple[int, ServiceError]] = [
            (self._max_bytes, self._over_upload_limit()),
            (storage.granted, storage_full),
        ]
        if isinstance(day, Unavailable):
            log.warning("no reservation of today's bandwidth: usage-service does not answer")
        elif isinstance(day, BaseException):
            raise day
        else:
            day_full = LimitReached(
                "Exceeding daily bandwidth limit: this video does not fit in what is left of today.", code="daily_limit"
            )
            ceilings.append((day.granted, day_full))
        # The lowest ceiling; where two are equal, the first one named.
        return storage.target, min(ceilings, key=lambda ceiling: ceiling[0])

    async def _measured(self, form: Form, ceiling: tuple[int, ServiceError]) -> AsyncIterator[Chunk]:
        """The video's bytes, up to the ceiling; at least one."""
        received = 0
        async for chunk in form.video():
            received += len(chunk)
            if received > ceiling[0]:
                raise ceiling[1]
            yield chunk
        if received == 0:
            raise Invalid("video: the file is empty.", code="no_file")

    @asynccontextmanager
    async def _renewing(self, user: User, upload_id: str, reservation: Reservation) -> AsyncIterator[None]:
        """While the body arrives, keep lock and reservations from running out, however slow the line is."""

        async def forever() -> None:
            while True:
                await asyncio.sleep(self._renew_seconds)
                await _quietly(lambda: self._users.lock_upload(user.id, upload_id))
                await _quietly(lambda: self._storage.reserve(upload_id, reservation))
                await _quietly(lambda: self._usage.reserve(upload_id, reservation))

        task = asyncio.create_task(forever(), name="renewal")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _over_upload_limit(self) -> TooLarge:
        return TooLarge(f"The video is larger than the {self._max_bytes / MIB:g} MB that one upload may have.")


def valid_title(title: str | None) -> str:
    """The title, trimmed; raises ``Invalid``."""
    title = (title or "").strip()
    if not title:
        raise Invalid("title: a video needs a title.")
    if len(title) > MAX_TITLE:
        raise Invalid(f"title: must have at most {MAX_TITLE} characters.")
    if "\0" in title:
        raise Invalid("title: must not contain a NUL character.")
    return title


async def _quietly(call: Callable[[], Awaitable[object]]) -> None:
    """Renew; if the peer does not answer, the next time comes before the lease runs out."""
    try:
        await call()
    except ServiceError as error:
        log.warning("a lease was not renewed: %s", error.message)
