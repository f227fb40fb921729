"""Where logs are kept: what a store promises, and the choice of one."""

import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from logging_service.config import Settings
from shared.cursor import Cursor


class Log(NamedTuple):
    """A row of ``logs``, all of it text: the ids are spelled as ``str`` does, the time as ``to_text``.

    Rows come by the thousand and go by the hundred. UUIDs and times as objects would cost more than the database.
    """

    id: str
    user_id: str
    action_type: str
    description: str
    service_name: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the logs, how many there are in all, and where the list goes on; None at its end."""

    logs: list[Log]
    total: int
    next: Cursor | None = None


class Store(Protocol):
    """Every method is one transaction and may raise ``Unavailable``; then it may have happened all the same.

    Each may be repeated without a second effect, and answers as it did the first time.
    """

    async def add(self, logs: Sequence[Log]) -> None:
        """Write them in this order, all or none; one whose id is there already is left as it was."""
        ...

    async def page(self, user_id: uuid.UUID | None, start: int, length: int, after: Cursor | None = None) -> Page:
        """At most ``length`` logs, newest first, then last written first; None is every user.

        They are those behind ``after``, which an index finds; without it those after the first ``start``, which are
        walked over. ``start`` may be any number from 0, also far past the end.
        """
        ...

    async def ping(self) -> None: ...


def open_store(settings: Settings) -> AbstractAsyncContextManager[Store]:
    # Only the chosen backend is imported.
    if settings.supabase_url:
        from logging_service.store.supabase import SupabaseStore  # noqa: PLC0415

        return SupabaseStore.open(settings)
    from logging_service.store.sqlite import SqliteStore  # noqa: PLC0415

    return SqliteStore.open(settings.data_dir / "logs.db")
