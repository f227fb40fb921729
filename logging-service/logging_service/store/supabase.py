"""Logs in Supabase: see ``supabase/migrations/…_logs.sql``."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from pydantic import BaseModel

from logging_service.config import Settings
from logging_service.store import Log, Page
from shared.cursor import Cursor
from shared.supabase import Done, Supabase

MIGRATIONS = ["20261125000000_foundation", "20261125000500_logs", "20261128000000_cursors"]


class _Page(BaseModel):
    """``next_seq`` is the number of the last of these logs, null if it is the last of the list."""

    logs: list[Log]
    total: int
    next_seq: int | None


class SupabaseStore:
    def __init__(self, database: Supabase) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with Supabase.open(settings, MIGRATIONS) as database:
            yield cls(database)

    async def add(self, logs: Sequence[Log]) -> None:
        await self._database.call("logs_add", Done, p_logs=[log._asdict() for log in logs])

    async def page(self, user_id: uuid.UUID | None, start: int, length: int, after: Cursor | None = None) -> Page:
        page = await self._database.call(
            "logs_list",
            _Page,
            p_user_id=user_id,
            p_start=min(start, 2**63 - 1),
            p_time=after and after.time,
            p_seq=after and after.seq,
            p_length=length,
        )
        next_page = None if page.next_seq is None else Cursor(page.logs[-1].created_at, page.next_seq)
        return Page(page.logs, page.total, next_page)

    async def ping(self) -> None:
        await self._database.ping()
