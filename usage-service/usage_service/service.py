"""The rules of usage: how much a user may upload in a day, and what counts as used."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from shared.clock import Clock, utc_now
from shared.contracts import Deletion, Recorder, Reservation, Streamed, UploadDone
from shared.errors import Conflict, LimitReached
from shared.settings import MIB
from usage_service.store import Event, OverLimit, Store

MONITORING = "UsageMonitoringService"
# A report of streamed bytes is repeated within seconds, or not at all any more.
REPEATABLE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Today:
    """One user's day so far; sizes are bytes."""

    uploaded: int
    streamed: int
    uploads: int
    deletions: int
    limit: int
    resets_at: datetime

    @property
    def exceeded(self) -> bool:
        return self.uploaded >= self.limit

    @property
    def sentence(self) -> str:
        if self.exceeded:
            return f"You have reached your daily upload limit of {self.limit / MIB:g} MB; it resets at midnight UTC."
        return f"You have uploaded {self.uploaded / MIB:.2f} MB of your {self.limit / MIB:g} MB today."


class UsageService:
    def __init__(
        self,
        store: Store,
        audit: Recorder,
        *,
        daily_limit: int,
        reservation_seconds: float,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._audit = audit
        self._limit = daily_limit
        self._reservation_life = timedelta(seconds=reservation_seconds)
        self._clock = clock

    async def today(self, user_id: uuid.UUID) -> Today:
        day = _utc_day(self._clock())
        used = await self._store.day(user_id, day)
        today = Today(
            used.uploaded,
            used.streamed,
            used.uploads,
            used.deletions,
            self._limit,
            resets_at=datetime.combine(day + timedelta(days=1), time(), UTC),
        )
        self._audit.record(user_id, "CHECK_BANDWIDTH", today.sentence, MONITORING)
        return today

    async def reserve(self, upload_id: str, claim: Reservation) -> int:
        """Bytes held for an upload; raises ``LimitReached`` if its least does not fit into what is left of today."""
        now = self._clock()
        granted = await self._store.reserve(
            upload_id,
            claim.user_id,
            claim.least,
            claim.most,
            limit=self._limit,
            day=_utc_day(now),
            now=now,
            expires=now + self._reservation_life,
        )
        if granted is None:
            raise Conflict("This upload belongs to another user.", code="foreign_upload")
        if isinstance(granted, OverLimit):
            raise LimitReached(
                f"Exceeding daily bandwidth limit: {granted.used / MIB:.2f} MB of {self._limit / MIB:g} MB are used, "
                "and this does not fit any more; it resets at midnight UTC.",
                code="daily_limit",
            )
        return granted

    async def release(self, upload_id: str) -> None:
        await self._store.release(upload_id)

    async def commit(self, upload_id: str, done: UploadDone) -> None:
        """Count a finished upload. It happened, so no limit refuses it, with a reservation or without."""
        await self._store.commit(Event("upload", upload_id, done.user_id, _utc_day(done.at), done.size))

    async def count_deletions(self, deletions: Sequence[Deletion]) -> None:
        await self._store.count([Event("deletion", gone.id, gone.user_id, _utc_day(gone.at)) for gone in deletions])

    async def count_streamed(self, reports: Sequence[Streamed]) -> None:
        await self._store.count(
            [Event("stream", sent.id, sent.user_id, _utc_day(sent.at), sent.size) for sent in reports]
        )

    async def sweep(self) -> dict[str, int]:
        now = self._clock()
        await self._store.forget_streamed(_utc_day(now - REPEATABLE))
        return {"expired_reservations": await self._store.sweep(now)}


def _utc_day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()
