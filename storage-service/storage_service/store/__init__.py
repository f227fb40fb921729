"""The ledger and the objects it stands for: what a store promises, and the choice of one.

An object's life: ``reserved`` (bytes claimed, nothing or something written) → ``stored`` (complete and inspected) →
``kept`` (the catalogue has it) → ``deleted`` (its bytes free again, its files to be removed). The row is there
before the first file and stays for a while after the last one, so that no file can exist that no row knows.
"""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from shared.contracts import StoredVideo
from storage_service.config import Settings

State = Literal["reserved", "stored", "kept", "deleted"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """``granted`` is in bytes; ``video`` is there once it is stored, ``session`` as long as its target is open."""

    filename: str
    user_id: uuid.UUID
    state: State
    granted: int
    video: StoredVideo | None
    session: str | None
    created_at: datetime

    @property
    def is_readable(self) -> bool:
        return self.state in ("stored", "kept")


class Claim(NamedTuple):
    """A reservation of ``granted`` bytes. ``session`` is a bucket's, a secret, noted for this upload before."""

    granted: int
    session: str | None


class Store(Protocol):
    """Every method is one transaction and may raise ``Unavailable``; then it may have happened all the same.

    Each may be repeated without a second effect, and answers as it did the first time.
    """

    async def reserve(
        self, filename: str, user_id: uuid.UUID, least: int, most: int, *, limit: int, now: datetime, until: datetime
    ) -> Claim | None:
        """Claim as much of ``least`` … ``most`` bytes as the user's ledger leaves below ``limit``; None if not even
        the least.

        Repeated, it answers the first grant and moves the expiry to ``until``. Raises ``Conflict`` when ``filename`` is
        another user's, stored or deleted.
        """
        ...

    async def note_session(self, filename: str, session: str) -> bool:
        """Remember the session of a reserved upload; False if it has another one, or is not reserved any more."""
        ...

    async def store(self, filename: str, video: StoredVideo) -> bool:
        """reserved → stored, and its session is over; False if the object is neither, or larger than its grant."""
        ...

    async def keep(self, filenames: Sequence[str]) -> None:
        """stored → kept: from now on the ledger holds the exact size. What is not stored stays as it is."""
        ...

    async def delete(self, filenames: Sequence[str], now: datetime) -> Mapping[str, str]:
        """Any state → deleted, and its bytes are free; unknown names are passed over. The sessions of these uploads."""
        ...

    async def delete_expired(self, now: datetime, most: int) -> int:
        """reserved → deleted for what expired; how many. A stored object is never touched: see ``unkept``."""
        ...

    async def unkept(self, now: datetime, most: int) -> list[str]:
        """Stored, never kept, and expired: the catalogue must be asked about these."""
        ...

    async def removable(self, now: datetime, most: int) -> Mapping[str, str | None]:
        """Deleted objects whose files are to be removed now, each with its session."""
        ...

    async def removed(self, filename: str, now: datetime, again_at: datetime) -> None:
        """The files are gone at ``now``: remove once more at ``again_at``, and after that time forget the row."""
        ...

    async def find(self, filename: str) -> StoredObject | None: ...

    async def kept_bytes(self, user_id: uuid.UUID) -> int: ...

    async def ping(self) -> None: ...


def open_store(settings: Settings) -> AbstractAsyncContextManager[Store]:
    # Only the chosen backend is imported.
    if settings.supabase_url:
        from storage_service.store.supabase import SupabaseStore  # noqa: PLC0415

        return SupabaseStore.open(settings)
    from storage_service.store.sqlite import SqliteStore  # noqa: PLC0415

    return SqliteStore.open(settings.data_dir / "storage.db")
