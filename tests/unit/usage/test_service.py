"""The rules of usage, over a store that remembers what it was asked."""

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from shared.contracts import Deletion, Reservation, Streamed, UploadDone
from shared.errors import Conflict, LimitReached
from shared.settings import MIB
from usage_service.service import UsageService
from usage_service.store import Day, Event, OverLimit

ANNE = uuid.uuid4()
NOW = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
TODAY = date(2026, 11, 24)
WEST = timezone(timedelta(hours=-1))
CLAIM = Reservation(user_id=ANNE, least=MIB, most=2 * MIB)


class FakeStore:
    def __init__(self) -> None:
        self.granted: int | OverLimit | None = None
        self.today = Day()
        self.events: list[Event] = []
        self.asked: dict[str, Any] = {}

    async def reserve(
        self, upload_id: str, user_id: uuid.UUID, least: int, most: int, **when: Any
    ) -> int | OverLimit | None:
        self.asked = {"id": upload_id, "user": user_id, "least": least, "most": most, **when}
        return self.granted

    async def commit(self, upload: Event) -> None:
        self.events.append(upload)

    async def count(self, events: list[Event]) -> None:
        self.events += events

    async def day(self, user_id: uuid.UUID, day: date) -> Day:
        return self.today if (user_id, day) == (ANNE, TODAY) else Day()

    async def sweep(self, now: datetime) -> int:
        return 3 if now == NOW else 0

    async def forget_streamed(self, before: date) -> int:
        self.forgotten_before = before
        return 0


class FakeAudit:
    def __init__(self) -> None:
        self.recorded: list[tuple[uuid.UUID, str, str]] = []

    def record(self, user_id: uuid.UUID, action: str, description: str, service: str) -> None:
        self.recorded.append((user_id, action, service))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def audit() -> FakeAudit:
    return FakeAudit()


@pytest.fixture
def usage(store: Any, audit: FakeAudit) -> UsageService:
    return UsageService(store, audit, daily_limit=100 * MIB, reservation_seconds=300, clock=lambda: NOW)


async def test_today_is_the_utc_day_and_ends_at_its_midnight(usage: UsageService, store: FakeStore) -> None:
    store.today = Day(uploaded=5, streamed=6, uploads=1, deletions=2)
    today = await usage.today(ANNE)
    assert (today.uploaded, today.streamed, today.uploads, today.deletions) == (5, 6, 1, 2)
    assert today.limit == 100 * MIB
    assert today.resets_at == datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize(("uploaded", "exceeded"), [(0, False), (100 * MIB - 1, False), (100 * MIB, True)])
async def test_the_threshold_is_exceeded_from_used_equal_to_the_limit_on(
    usage: UsageService, store: FakeStore, uploaded: int, exceeded: bool
) -> None:
    store.today = Day(uploaded=uploaded, streamed=10**12)
    assert (await usage.today(ANNE)).exceeded is exceeded


async def test_one_sentence_says_how_much_is_used_or_that_the_limit_is_reached(
    usage: UsageService, store: FakeStore
) -> None:
    store.today = Day(uploaded=3 * MIB // 2)
    assert (await usage.today(ANNE)).sentence == "You have uploaded 1.50 MB of your 100 MB today."
    store.today = Day(uploaded=100 * MIB)
    assert "reached your daily upload limit of 100 MB" in (await usage.today(ANNE)).sentence


async def test_asking_is_recorded(usage: UsageService, audit: FakeAudit) -> None:
    await usage.today(ANNE)
    assert audit.recorded == [(ANNE, "CHECK_BANDWIDTH", "UsageMonitoringService")]


async def test_a_reservation_is_for_today_and_for_its_life(usage: UsageService, store: FakeStore) -> None:
    store.granted = 2 * MIB
    assert await usage.reserve("a", CLAIM) == 2 * MIB
    assert store.asked == {
        "id": "a",
        "user": ANNE,
        "least": MIB,
        "most": 2 * MIB,
        "limit": 100 * MIB,
        "day": TODAY,
        "now": NOW,
        "expires": NOW + timedelta(seconds=300),
    }


async def test_a_refusal_says_what_the_page_looks_for_and_the_figures(usage: UsageService, store: FakeStore) -> None:
    store.granted = OverLimit(used=99 * MIB + MIB // 2)
    with pytest.raises(LimitReached, match=r"Exceeding daily bandwidth limit: 99\.50 MB of 100 MB") as refused:
        await usage.reserve("a", CLAIM)
    assert refused.value.code == "daily_limit"


async def test_anothers_upload_is_a_conflict(usage: UsageService, store: FakeStore) -> None:
    store.granted = None
    with pytest.raises(Conflict):
        await usage.reserve("a", CLAIM)


async def test_what_happened_counts_on_its_utc_day(usage: UsageService, store: FakeStore) -> None:
    late = datetime(2026, 11, 24, 23, 30, tzinfo=WEST)  # 00:30 UTC of the next day
    tomorrow = TODAY + timedelta(days=1)
    await usage.commit("a", UploadDone(user_id=ANNE, size=5, at=late))
    await usage.count_deletions([Deletion(id="b", user_id=ANNE, at=late)])
    await usage.count_streamed([Streamed(id="c", user_id=ANNE, size=7, at=late)])
    assert store.events == [
        Event("upload", "a", ANNE, tomorrow, 5),
        Event("deletion", "b", ANNE, tomorrow),
        Event("stream", "c", ANNE, tomorrow, 7),
    ]


async def test_a_sweep_says_what_it_dropped(usage: UsageService) -> None:
    assert await usage.sweep() == {"expired_reservations": 3}


async def test_a_sweep_forgets_the_stream_reports_that_nobody_repeats_any_more(
    usage: UsageService, store: FakeStore
) -> None:
    await usage.sweep()
    assert store.forgotten_before == TODAY - timedelta(days=2)
