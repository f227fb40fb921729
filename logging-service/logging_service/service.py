"""The rules of the log: each thing is written once, and people see their own."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from logging_service.store import Log, Page, Store
from shared.auth import User
from shared.clock import Clock, to_text, utc_now
from shared.contracts import LogEntry
from shared.cursor import Cursor
from shared.errors import Forbidden
from shared.ids import time_ordered_id

PAGE = 100


class LoggingService:
    def __init__(self, store: Store, clock: Clock = utc_now) -> None:
        self._store = store
        self._clock = clock

    async def write(self, entries: Sequence[LogEntry | Log]) -> None:
        """Write what is not written yet; an entry without an id cannot be recognised when it comes again."""
        now = self._clock()
        await self._store.add([entry if isinstance(entry, Log) else _log(entry, now) for entry in entries])

    async def of_user(self, viewer: User, user_id: uuid.UUID, start: int, after: Cursor | None = None) -> Page:
        if not viewer.may_see(user_id):
            raise Forbidden("You may see your own logs only.")
        return await self._store.page(user_id, start, PAGE, after)

    async def of_all(self, start: int, after: Cursor | None = None) -> Page:
        return await self._store.page(None, start, PAGE, after)


def _log(entry: LogEntry, now: datetime) -> Log:
    return Log(
        id=str(entry.id or time_ordered_id()),
        user_id=str(entry.user_id),
        action_type=entry.action,
        description=entry.description,
        service_name=entry.service,
        created_at=to_text(entry.created_at or now),
    )
