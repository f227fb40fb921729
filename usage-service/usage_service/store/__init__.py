"""Where usage is kept: what a store promises, and the choice of one."""

import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, Protocol

from usage_service.config import Settings


@dataclass(frozen=True, slots=True)
class Event:
    """Something that counts once, however often it is told: ``kind`` and ``id`` name it. ``size`` is in bytes."""

    kind: Literal["upload", "deletion", "stream"]
    id: str
    user_id: uuid.UUID
    day: date
    size: int = 0


@dataclass(frozen=True, slots=True)
class Day:
    """One user's counters of one UTC day; ``uploaded`` and ``streamed`` are bytes."""

    uploaded: int = 0
    streamed: int = 0
    uploads: int = 0
    deletions: int = 0


@dataclass(frozen=True, slots=True)
class OverLimit:
    """The claim does not fit; ``used`` bytes of that day are uploaded or reserved."""

    used: int


class Store(Protocol):
    """Every method is one transaction and may raise ``Unavailable``; then it may have happened all the same.

    Each may be repeated without a second effect, and answers as it did the first time.
    """

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
        """Reserve bytes of ``day`` for an upload until ``expires``: as many as fit under ``limit``, at most ``most``.

        The bytes reserved; ``OverLimit``, and nothing reserved, if not even ``least`` fit beside what is uploaded and
        what is reserved and has not expired at ``now``. An upload that has a reservation keeps it, now until
        ``expires``; one that was committed answers its size. None if the upload is another user's.
        """
        ...

    async def release(self, upload_id: str) -> None:
        """Give back the upload's reservation if it has one; what is committed stays."""
        ...

    async def commit(self, upload: Event) -> None:
        """Count an upload and drop its reservation, on whose day it then counts; without one, on ``upload.day``."""
        ...

    async def count(self, events: Sequence[Event]) -> None:
        """Add each event to its user's day, unless it has been counted before."""
        ...

    async def day(self, user_id: uuid.UUID, day: date) -> Day: ...

    async def sweep(self, now: datetime) -> int:
        """Drop the reservations that have expired at ``now``; how many."""
        ...

    async def forget_streamed(self, before: date) -> int:
        """Forget the stream reports of the days before, so that their number stays bounded; the counters stay."""
        ...

    async def ping(self) -> None: ...


def open_store(settings: Settings) -> AbstractAsyncContextManager[Store]:
    # Only the chosen backend is imported.
    if settings.supabase_url:
        from usage_service.store.supabase import SupabaseStore  # noqa: PLC0415

        return SupabaseStore.open(settings)
    from usage_service.store.sqlite import SqliteStore  # noqa: PLC0415

    return SqliteStore.open(settings.data_dir / "usage.db")
