"""Logs in Supabase: see ``supabase/migrations/…_logs.sql``."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel

from logging_service.config import Settings
from logging_service.store import Log, Page, Row
from shared.clock import to_text
from shared.supabase import Done, Supabase

MIGRATIONS = ["20261125000000_foundation", "20261125000500_logs"]


class _Log(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    action_type: str
    description: str
    service_name: str
    created_at: datetime

    def log(self) -> Log:
        return Log(
            id=str(self.id),
            user_id=str(self.user_id),
            action_type=self.action_type,
            description=self.description,
            service_name=self.service_name,
            created_at=to_text(self.created_at.replace(tzinfo=UTC)),
        )


class _Page(BaseModel):
    logs: list[_Log]
    total: int


class SupabaseStore:
    def __init__(self, database: Supabase) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with Supabase.open(settings, MIGRATIONS) as database:
            yield cls(database)

    async def add(self, logs: Sequence[Row]) -> None:
        await self._database.call("logs_add", Done, p_logs=[Log._make(log)._asdict() for log in logs])

    async def page(self, user_id: uuid.UUID | None, start: int, length: int) -> Page:
        page = await self._database.call(
            "logs_page", _Page, p_user_id=user_id, p_start=min(start, 2**63 - 1), p_length=length
        )
        return Page([row.log() for row in page.logs], page.total)

    async def ping(self) -> None:
        await self._database.ping()
