"""The catalogue and its outbox in Supabase: see ``supabase/migrations/…_videos.sql``."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel

from shared.cursor import Cursor
from shared.settings import MIB
from shared.supabase import Done, Supabase
from video_service.config import Settings
from video_service.store import Kind, Owed, Page, Video

MIGRATIONS = ["20261125000000_foundation", "20261125000200_videos", "20261128000000_cursors"]


class _Video(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    filename: str
    title: str
    uploaded_at: AwareDatetime
    deleted_at: datetime | None
    size_mb: float
    duration: float | None
    width: int
    height: int

    def video(self) -> Video:
        return Video(
            id=self.id,
            user_id=self.user_id,
            filename=self.filename,
            title=self.title,
            uploaded_at=self.uploaded_at.astimezone(UTC),
            deleted_at=self.deleted_at and self.deleted_at.replace(tzinfo=UTC),
            size=round(self.size_mb * MIB),
            duration=self.duration,
            width=self.width,
            height=self.height,
        )


class _Owed(BaseModel):
    id: uuid.UUID
    kind: Kind
    body: str
    attempts: int


class _Added(BaseModel):
    added: bool


class _Exists(BaseModel):
    exists: bool


class _Page(BaseModel):
    """``next_seq`` is the number of the last of these videos, null if it is the last of the list."""

    videos: list[_Video]
    total: int
    next_seq: int | None


class _Filenames(BaseModel):
    filenames: list[str]


class _Deleted(BaseModel):
    deleted: int


class _Claimed(BaseModel):
    owed: list[_Owed]


class SupabaseStore:
    def __init__(self, database: Supabase) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with Supabase.open(settings, MIGRATIONS) as database:
            yield cls(database)

    async def add(self, video: Video, owed: Sequence[Owed], lease: datetime) -> bool:
        row = {
            "id": video.id,
            "user_id": video.user_id,
            "filename": video.filename,
            "filepath": video.filepath,
            "title": video.title,
            "uploaded_at": video.uploaded_at,
            "size_mb": video.size / MIB,
            "duration": video.duration,
            "width": video.width,
            "height": video.height,
            "title_key": video.title.casefold(),
        }
        return (
            await self._database.call("videos_add", _Added, p_video=row, p_owed=_standing(owed), p_lease=lease)
        ).added

    async def settle(self, filename: str, now: datetime) -> bool:
        return (await self._database.call("videos_settle", _Exists, p_filename=filename, p_now=now)).exists

    async def find(self, filename: str) -> Video | None:
        row = await self._database.find("videos", _Video, "filename", filename)
        return row.video() if row else None

    async def page(
        self, *, owner: uuid.UUID | None, search: str, start: int, limit: int, after: Cursor | None = None
    ) -> Page:
        page = await self._database.call(
            "videos_list",
            _Page,
            p_owner=owner,
            p_search=search.casefold(),
            p_start=min(start, 2**63 - 1),
            p_time=after and after.time,
            p_seq=after and after.seq,
            p_limit=limit,
        )
        videos = [row.video().listed() for row in page.videos]
        next_page = None if page.next_seq is None else Cursor(videos[-1].uploaded_at, page.next_seq)
        return Page(videos, page.total, next_page)

    async def live_filenames(self, user_id: uuid.UUID, most: int) -> list[str]:
        live = await self._database.call("videos_live_filenames", _Filenames, p_user_id=user_id, p_most=most)
        return live.filenames

    async def delete(self, filenames: Sequence[str], owed: Sequence[Owed], now: datetime, lease: datetime) -> int:
        answer = await self._database.call(
            "videos_delete", _Deleted, p_filenames=list(filenames), p_owed=_standing(owed), p_now=now, p_lease=lease
        )
        return answer.deleted

    async def owe(self, owed: Sequence[Owed], due_at: datetime) -> None:
        await self._database.call("videos_owe", Done, p_owed=_standing(owed), p_due_at=due_at)

    async def claim_owed(self, now: datetime, lease: datetime, most: int) -> list[Owed]:
        claimed = await self._database.call("videos_claim_owed", _Claimed, p_now=now, p_lease=lease, p_most=most)
        return [Owed(one.kind, one.body, one.id, one.attempts) for one in claimed.owed]

    async def paid(self, owed: Owed) -> None:
        await self._database.call("videos_paid", Done, p_id=owed.id)

    async def postpone(self, owed: Owed, due_at: datetime) -> None:
        await self._database.call("videos_postpone", Done, p_id=owed.id, p_attempts=owed.attempts + 1, p_due_at=due_at)

    async def forget_settled(self, before: datetime) -> None:
        await self._database.call("videos_forget_settled", Done, p_before=before)

    async def ping(self) -> None:
        await self._database.ping()


def _standing(owed: Sequence[Owed]) -> list[dict[str, object]]:
    return [{"id": one.id, "kind": one.kind, "body": one.body} for one in owed]
