"""The catalogue and its outbox: what a store promises, and the choice of one."""

import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from shared.clock import to_text
from shared.cursor import Cursor
from shared.settings import MIB
from video_service.config import Settings


@dataclass(frozen=True, slots=True)
class Video:
    """A row of ``videos``. ``size`` in bytes, ``duration`` in seconds; ``filepath`` is the object's name in storage."""

    id: uuid.UUID
    user_id: uuid.UUID
    filename: str
    title: str
    uploaded_at: datetime
    size: int
    duration: float | None
    width: int
    height: int
    deleted_at: datetime | None = None

    @property
    def filepath(self) -> str:
        return f"{self.filename}.mp4"

    def listed(self) -> "Listed":
        return Listed(
            id=str(self.id),
            user_id=str(self.user_id),
            filename=self.filename,
            title=self.title,
            uploaded_at=to_text(self.uploaded_at),
            size_mb=self.size / MIB,
            duration=self.duration,
            width=self.width,
            height=self.height,
        )


class Listed(NamedTuple):
    """A live video in a list, as it is kept and sent: ids and the time as text, the size in MB of 1,048,576 bytes."""

    id: str
    user_id: str
    filename: str
    title: str
    uploaded_at: str
    size_mb: float
    duration: float | None
    width: int
    height: int


Kind = Literal["keep", "upload_done", "delete", "deletions", "release", "unlock"]


@dataclass(frozen=True, slots=True)
class Owed:
    """One call that another service is owed: which, and its body as JSON; ``attempts`` have failed so far.

    ``id`` is given by who owes it, so that writing it down twice is writing it down once.
    """

    kind: Kind
    body: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list, how many videos it has in all, and where it goes on; None at its end."""

    videos: list[Listed]
    total: int
    next: Cursor | None = None


class Store(Protocol):
    """Every method is one transaction and may raise ``Unavailable``; then it may have happened all the same.

    Each may be repeated without a second effect, and answers as it did the first time. What is put into the outbox is
    leased until ``lease``: nobody else sends it before then.
    """

    async def add(self, video: Video, owed: Sequence[Owed], lease: datetime) -> bool:
        """Insert the video and what it owes; False, and nothing changes, if its filename was settled as never to be."""
        ...

    async def settle(self, filename: str, now: datetime) -> bool:
        """Whether a live video has this filename. If there is no such row, there never will be: ``add`` refuses it."""
        ...

    async def find(self, filename: str) -> Video | None:
        """A video, live or deleted."""
        ...

    async def page(
        self, *, owner: uuid.UUID | None, search: str, start: int, limit: int, after: Cursor | None = None
    ) -> Page:
        """At most ``limit`` live videos, newest first, then last added; ``search`` is part of a title in any case.

        They are those behind ``after``, which an index finds; without it those after the first ``start``, which are
        walked over. ``start`` may be any number from 0, also far past the end.
        """
        ...

    async def live_filenames(self, user_id: uuid.UUID, most: int) -> list[str]: ...

    async def delete(self, filenames: Sequence[str], owed: Sequence[Owed], now: datetime, lease: datetime) -> int:
        """Mark those that are live as deleted at ``now``, and owe; how many there were. With none, nothing changes."""
        ...

    async def owe(self, owed: Sequence[Owed], due_at: datetime) -> None:
        """Write down what could not be given back; it is due at ``due_at``."""
        ...

    async def claim_owed(self, now: datetime, lease: datetime, most: int) -> list[Owed]:
        """What is due, leased to the caller."""
        ...

    async def paid(self, owed: Owed) -> None: ...

    async def postpone(self, owed: Owed, due_at: datetime) -> None:
        """It failed once more than ``owed.attempts``; it is due at ``due_at``."""
        ...

    async def forget_settled(self, before: datetime) -> None:
        """Forget filenames settled as never to be before then: their uploads ended long ago."""
        ...

    async def ping(self) -> None: ...


def open_store(settings: Settings) -> AbstractAsyncContextManager[Store]:
    # Only the chosen backend is imported.
    if settings.supabase_url:
        from video_service.store.supabase import SupabaseStore  # noqa: PLC0415

        return SupabaseStore.open(settings)
    from video_service.store.sqlite import SqliteStore  # noqa: PLC0415

    return SqliteStore.open(settings.data_dir / "videos.db")
