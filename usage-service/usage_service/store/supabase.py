"""Usage in Supabase: see ``supabase/migrations/…_usage.sql``."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import date, datetime
from typing import Literal, Self

from pydantic import BaseModel

from shared.supabase import Done, Supabase
from usage_service.config import Settings
from usage_service.store import Day, Event, OverLimit

MIGRATIONS = ["20261125000000_foundation", "20261125000400_usage"]
FORGET_AT_ONCE = 10_000
"""So that a day of millions of stream reports is forgotten in calls that each end in time."""


class _Reserved(BaseModel):
    answer: Literal["granted", "over", "foreign"]
    bytes: int


class _Day(BaseModel):
    uploaded: int
    streamed: int
    uploads: int
    deletions: int


class _Dropped(BaseModel):
    dropped: int


class _Forgotten(BaseModel):
    forgotten: int


class SupabaseStore:
    def __init__(self, database: Supabase) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with Supabase.open(settings, MIGRATIONS) as database:
            yield cls(database)

    async def reserve(
        self,
        upload_id: str,
        user_id: uuid.UUID,
        least: int,
        most: int,
        *,
        limit: int,
        day: date,
        now: datetime,
        expires: datetime,
    ) -> int | OverLimit | None:
        reserved = await self._database.call(
            "usage_reserve",
            _Reserved,
            p_upload_id=upload_id,
            p_user_id=user_id,
            p_least=least,
            p_most=most,
            p_limit=limit,
            p_day=day,
            p_now=now,
            p_expires=expires,
        )
        match reserved.answer:
            case "granted":
                return reserved.bytes
            case "over":
                return OverLimit(reserved.bytes)
            case "foreign":
                return None

    async def release(self, upload_id: str) -> None:
        await self._database.call("usage_release", Done, p_upload_id=upload_id)

    async def commit(self, upload: Event) -> None:
        await self._database.call("usage_commit", Done, p_upload=asdict(upload))

    async def count(self, events: Sequence[Event]) -> None:
        await self._database.call("usage_count", Done, p_events=[asdict(event) for event in events])

    async def day(self, user_id: uuid.UUID, day: date) -> Day:
        found = await self._database.call("usage_day", _Day, p_user_id=user_id, p_day=day)
        return Day(found.uploaded, found.streamed, found.uploads, found.deletions)

    async def sweep(self, now: datetime) -> int:
        return (await self._database.call("usage_sweep", _Dropped, p_now=now)).dropped

    async def forget_streamed(self, before: date) -> int:
        total = 0
        while True:
            answer = await self._database.call(
                "usage_forget_streamed", _Forgotten, p_before=before, p_most=FORGET_AT_ONCE
            )
            total += answer.forgotten
            if answer.forgotten < FORGET_AT_ONCE:
                return total

    async def ping(self) -> None:
        await self._database.ping()
