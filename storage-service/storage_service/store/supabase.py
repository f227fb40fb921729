"""The ledger in Supabase: see ``supabase/migrations/…_storage.sql``."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel

from shared.contracts import StoredVideo
from shared.errors import Conflict
from shared.supabase import Done, Supabase
from storage_service.config import Settings
from storage_service.store import Claim, State, StoredObject

MIGRATIONS = ["20261125000000_foundation", "20261125000300_storage", "20261128000100_upload_targets"]


class _Object(BaseModel):
    filename: str
    user_id: uuid.UUID
    state: State
    granted: int
    size: int | None
    content_type: str | None
    duration: float | None
    width: int | None
    height: int | None
    session: str | None
    created_at: AwareDatetime


class _Ledger(BaseModel):
    kept: int


class _Claim(BaseModel):
    granted: int | None
    gone: bool
    session: str | None = None


class _Noted(BaseModel):
    noted: bool


class _Stored(BaseModel):
    stored: bool


class _Expired(BaseModel):
    deleted: int


class _Deleted(BaseModel):
    sessions: dict[str, str]


class _Removable(BaseModel):
    sessions: dict[str, str | None]


class _Filenames(BaseModel):
    filenames: list[str]


class SupabaseStore:
    def __init__(self, database: Supabase) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with Supabase.open(settings, MIGRATIONS) as database:
            yield cls(database)

    async def reserve(
        self, filename: str, user_id: uuid.UUID, least: int, most: int, *, limit: int, now: datetime, until: datetime
    ) -> Claim | None:
        answer = await self._database.call(
            "storage_claim",
            _Claim,
            p_filename=filename,
            p_user_id=user_id,
            p_least=least,
            p_most=most,
            p_limit=limit,
            p_now=now,
            p_until=until,
        )
        if answer.gone:
            raise Conflict("This upload has been given up; please start it again.", code="upload_gone")
        return None if answer.granted is None else Claim(answer.granted, answer.session)

    async def note_session(self, filename: str, session: str) -> bool:
        answer = await self._database.call("storage_note_session", _Noted, p_filename=filename, p_session=session)
        return answer.noted

    async def store(self, filename: str, video: StoredVideo) -> bool:
        answer = await self._database.call(
            "storage_finish",
            _Stored,
            p_filename=filename,
            p_size=video.size,
            p_content_type=video.content_type,
            p_duration=video.duration,
            p_width=video.width,
            p_height=video.height,
        )
        return answer.stored

    async def keep(self, filenames: Sequence[str]) -> None:
        await self._database.call("storage_keep", Done, p_filenames=list(filenames))

    async def delete(self, filenames: Sequence[str], now: datetime) -> Mapping[str, str]:
        names = list(filenames)
        return (await self._database.call("storage_delete_objects", _Deleted, p_filenames=names, p_now=now)).sessions

    async def delete_expired(self, now: datetime, most: int) -> int:
        return (await self._database.call("storage_delete_expired", _Expired, p_now=now, p_most=most)).deleted

    async def unkept(self, now: datetime, most: int) -> list[str]:
        return (await self._database.call("storage_unkept", _Filenames, p_now=now, p_most=most)).filenames

    async def removable(self, now: datetime, most: int) -> Mapping[str, str | None]:
        return (await self._database.call("storage_removable_objects", _Removable, p_now=now, p_most=most)).sessions

    async def removed(self, filename: str, now: datetime, again_at: datetime) -> None:
        await self._database.call("storage_removed", Done, p_filename=filename, p_now=now, p_again_at=again_at)

    async def find(self, filename: str) -> StoredObject | None:
        row = await self._database.find("storage_objects", _Object, "filename", filename)
        if row is None:
            return None
        return StoredObject(
            filename=row.filename,
            user_id=row.user_id,
            state=row.state,
            granted=row.granted,
            video=StoredVideo.model_validate(row.model_dump()) if row.size is not None else None,
            session=row.session,
            created_at=row.created_at.astimezone(UTC),
        )

    async def kept_bytes(self, user_id: uuid.UUID) -> int:
        row = await self._database.find("storage_ledger", _Ledger, "user_id", str(user_id))
        return row.kept if row else 0

    async def ping(self) -> None:
        await self._database.ping()
