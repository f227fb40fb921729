"""Where users are kept: what a store promises, and the choice of one."""

import uuid
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.auth import Role
from user_service.config import Settings


@dataclass(frozen=True, slots=True)
class Account:
    """A row of ``users``. ``email`` is spelled as it was typed, ``email_key`` is what makes two spellings the same."""

    id: uuid.UUID
    email: str
    email_key: str
    password: str
    username: str
    created_at: datetime
    role: Role = "user"


class Store(Protocol):
    """Every method is one transaction and may raise ``Unavailable``; then it may have happened all the same.

    Each may be repeated without a second effect, and answers as it did the first time.
    """

    async def add(self, account: Account) -> bool:
        """Keep a new account; False, and nothing changed, if its ``email_key`` is taken."""
        ...

    async def by_email(self, key: str) -> Account | None: ...

    async def by_id(self, user_id: uuid.UUID) -> Account | None: ...

    async def set_role(self, key: str, role: Role) -> bool:
        """False if nobody has that ``email_key``."""
        ...

    async def lock_upload(self, user_id: uuid.UUID, holder: str, now: datetime, stale_before: datetime) -> bool | None:
        """Take or renew the user's upload lock, by one compare-and-set.

        True if ``holder`` now has it; False if another took it at or after ``stale_before``; None if there is no
        such user.
        """
        ...

    async def unlock_upload(self, user_id: uuid.UUID, holder: str) -> None:
        """Free the lock if ``holder`` has it; else nothing."""
        ...

    async def ping(self) -> None: ...


def open_store(settings: Settings) -> AbstractAsyncContextManager[Store]:
    # Only the chosen backend is imported.
    if settings.supabase_url:
        from user_service.store.supabase import SupabaseStore  # noqa: PLC0415

        return SupabaseStore.open(settings)
    from user_service.store.sqlite import SqliteStore  # noqa: PLC0415

    return SqliteStore.open(settings.data_dir / "users.db")
