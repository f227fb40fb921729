"""The world around an upload, in memory: the peers with what they hold, the catalogue, a clock that can be turned."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from shared.auth import User
from shared.contracts import (
    Chunk,
    Deletions,
    Grant,
    Reservation,
    SentVideo,
    StoredVideo,
    UploadDone,
    UploadGrant,
    UploadTarget,
)
from shared.cursor import Cursor
from shared.errors import PeerRefused, ServiceError, Unavailable
from video_service.outbox import Outbox
from video_service.store import Owed, Page, Video
from video_service.upload import Uploads

T = TypeVar("T")
MAX, OVERHEAD = 1000, 100
ANN = User(id=uuid.UUID(int=1), email="ann@example.com", role="user")
DOWN = Unavailable("does not answer")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, by: timedelta) -> None:
        self.now += by


class Peer:
    """Fails with ``failure`` when it is set, or the call ``failing`` alone; ``calls`` names what came."""

    def __init__(self) -> None:
        self.failure: ServiceError | None = None
        self.failing = ""
        self.calls: list[str] = []

    def called(self, name: str) -> None:
        self.calls.append(name)
        if self.failure and self.failing in ("", name):
            raise self.failure


class Users(Peer):
    def __init__(self) -> None:
        super().__init__()
        self.locks: dict[uuid.UUID, str] = {}

    async def lock_upload(self, user_id: uuid.UUID, upload_id: str) -> None:
        self.called("lock")
        if self.locks.setdefault(user_id, upload_id) != upload_id:
            raise PeerRefused(409, "Already uploading", "already_uploading")

    async def unlock_upload(self, user_id: uuid.UUID, upload_id: str) -> None:
        self.called("unlock")
        if self.locks.get(user_id) == upload_id:
            del self.locks[user_id]


class Quota(Peer):
    """What storage-service and usage-service have in common: so much is left, and reservations of it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__()
        self.left = MAX * 10
        self.refusal = PeerRefused(status, sentence, "full")
        self.reserved: dict[str, int] = {}

    def _claim(self, upload_id: str, reservation: Reservation) -> int:
        self.called("reserve")
        if upload_id not in self.reserved:
            if reservation.least > self.left:
                raise self.refusal
            self.reserved[upload_id] = min(reservation.most, self.left)
            self.left -= self.reserved[upload_id]
        return self.reserved[upload_id]

    def give_back(self, upload_id: str) -> None:
        self.left += self.reserved.pop(upload_id, 0)


class Storage(Quota):
    def __init__(self) -> None:
        super().__init__(413, "Exceeding total storage limit: full")
        self.arrived: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.kept: set[str] = set()
        self.verdict: ServiceError | None = None

    async def reserve(self, upload_id: str, reservation: Reservation) -> UploadGrant:
        return UploadGrant(granted=self._claim(upload_id, reservation), target=UploadTarget(url=upload_id))

    async def send(self, target: UploadTarget, chunks: AsyncIterator[Chunk]) -> SentVideo:
        self.called("send")
        content = b"".join([chunk async for chunk in chunks])
        assert len(content) <= self.reserved[target.url], "more than was reserved has been sent"
        self.arrived[target.url] = content
        return SentVideo(size=len(content), crc32c="AAAAAA==")

    async def finish(self, upload_id: str, sent: SentVideo) -> StoredVideo:
        self.called("finish")
        content = self.arrived.pop(upload_id)
        if self.verdict:
            raise self.verdict
        assert len(content) == sent.size
        self.objects[upload_id] = content
        return StoredVideo(size=len(content), content_type="video/mp4", duration=1.5, width=64, height=48)

    async def answers(self) -> None:
        self.called("answers")

    async def keep(self, filenames: Sequence[str]) -> None:
        self.called("keep")
        self.kept.update(name for name in filenames if name in self.objects)

    async def delete(self, filenames: Sequence[str]) -> None:
        self.called("delete")
        for name in filenames:
            self.give_back(name)
            self.arrived.pop(name, None)
            self.objects.pop(name, None)
            self.kept.discard(name)


class Usage(Quota):
    def __init__(self) -> None:
        super().__init__(429, "Exceeding daily bandwidth limit: full")
        self.uploads: dict[str, int] = {}
        self.deleted: set[str] = set()

    async def reserve(self, upload_id: str, reservation: Reservation) -> Grant:
        return Grant(granted=self._claim(upload_id, reservation))

    async def release(self, upload_id: str) -> None:
        self.called("release")
        self.give_back(upload_id)

    async def upload_done(self, upload_id: str, done: UploadDone) -> None:
        self.called("upload_done")
        self.give_back(upload_id)
        self.uploads[upload_id] = done.size

    async def deletions(self, deletions: Deletions) -> None:
        self.called("deletions")
        self.deleted.update(deletion.id for deletion in deletions.deletions)


class Store:
    """The catalogue; ``lost`` makes the answer to the next ``add`` or ``paid`` get lost after it was done."""

    def __init__(self) -> None:
        self.videos: dict[str, Video] = {}
        self.settled: set[str] = set()
        self.owed: dict[uuid.UUID, tuple[Owed, datetime]] = {}
        self.lost = self.away = False
        self.settle_all = False

    async def add(self, video: Video, owed: Sequence[Owed], lease: datetime) -> bool:
        if self.settle_all or video.filename in self.settled:
            return False
        self.videos[video.filename] = video
        self._owe(owed, lease)
        return self._answered(True)

    async def settle(self, filename: str, now: datetime) -> bool:
        if filename in self.videos:
            return self.videos[filename].deleted_at is None
        self.settled.add(filename)
        return False

    async def find(self, filename: str) -> Video | None:
        return self.videos.get(filename)

    async def page(
        self, *, owner: uuid.UUID | None, search: str, start: int, limit: int, after: Cursor | None = None
    ) -> Page:
        found = [
            video
            for video in self.videos.values()
            if video.deleted_at is None and owner in (None, video.user_id) and search in video.title
        ]
        return Page([video.listed() for video in found[start : start + limit]], len(found))

    async def live_filenames(self, user_id: uuid.UUID, most: int) -> list[str]:
        live = (v.filename for v in self.videos.values() if v.user_id == user_id and v.deleted_at is None)
        return list(live)[:most]

    async def delete(self, filenames: Sequence[str], owed: Sequence[Owed], now: datetime, lease: datetime) -> int:
        live = [name for name in filenames if name in self.videos and self.videos[name].deleted_at is None]
        for name in live:
            self.videos[name] = replace(self.videos[name], deleted_at=now)
        if live:
            self._owe(owed, lease)
        return len(live)

    async def owe(self, owed: Sequence[Owed], due_at: datetime) -> None:
        if self.away:
            raise Unavailable("away")
        self._owe(owed, due_at)

    async def claim_owed(self, now: datetime, lease: datetime, most: int) -> list[Owed]:
        due = [owed for owed, due_at in self.owed.values() if due_at <= now][:most]
        self.owed |= {owed.id: (owed, lease) for owed in due}
        return due

    async def paid(self, owed: Owed) -> None:
        self._answered(None)
        del self.owed[owed.id]

    async def postpone(self, owed: Owed, due_at: datetime) -> None:
        self.owed[owed.id] = replace(owed, attempts=owed.attempts + 1), due_at

    async def forget_settled(self, before: datetime) -> None:
        self.settled.clear()

    async def ping(self) -> None:
        pass

    def _owe(self, owed: Sequence[Owed], lease: datetime) -> list[Owed]:
        self.owed |= {one.id: (one, lease) for one in owed}
        return list(owed)

    def _answered(self, answer: T) -> T:
        if self.lost:
            self.lost = False
            raise Unavailable("the answer is lost")
        return answer


class Audit:
    def __init__(self) -> None:
        self.actions: list[str] = []

    def record(self, user_id: uuid.UUID, action: str, description: str, service: str) -> None:
        self.actions.append(action)


class Form:
    """A form whose video comes in pieces of ``size``."""

    def __init__(self, video: bytes = b"film", title: str | None = "A film", size: int = 64) -> None:
        self.content = video
        self.size = size
        self.fields = {} if title is None else {"title": title}

    async def video(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), self.size):
            yield self.content[start : start + self.size]

    async def finish(self) -> None:
        pass


class World:
    def __init__(self, renew_seconds: float = 60) -> None:
        self.users, self.storage, self.usage, self.store, self.audit = Users(), Storage(), Usage(), Store(), Audit()
        self.clock = Clock()
        self.outbox = Outbox(self.store, self.users, self.storage, self.usage, self.clock)
        self.uploads = Uploads(
            self.store,
            self.outbox,
            self.users,
            self.storage,
            self.usage,
            self.audit,
            max_bytes=MAX,
            overhead=OVERHEAD,
            renew_seconds=renew_seconds,
            clock=self.clock,
        )

    async def upload(self, form: Form | None = None, declared: int | None = None) -> Video:
        return await self.uploads.upload(ANN, declared, form or Form())

    def holds_nothing(self) -> bool:
        """Nobody holds anything for an upload: no lock, no bytes reserved, no object, no row."""
        return not (
            self.users.locks
            or self.storage.reserved
            or self.storage.arrived
            or self.storage.objects
            or self.usage.reserved
            or self.usage.uploads
            or self.store.videos
            or self.store.owed
        )
