"""What was sent to whom reaches usage-service: in batches, once, also after it was away, also at the end."""

import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime

import pytest

from shared.contracts import MAX_BATCH, StreamedBatch
from shared.errors import PeerRefused, Unavailable
from storage_service import metering
from storage_service.metering import StreamMeter

ANN, BEN = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NEVER = 3600


class Usage:
    """Counts each id once, as usage-service does; ``failure`` comes before or, when ``late``, after the counting."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.late = False
        self.batches: list[StreamedBatch] = []
        self.seen: dict[str, tuple[uuid.UUID, int]] = {}
        self.reported = asyncio.Event()

    async def streamed(self, batch: StreamedBatch) -> None:
        self.batches.append(batch)
        if self.failure and not self.late:
            raise self.failure
        self.seen |= {one.id: (one.user_id, one.size) for one in batch.streamed}
        if self.failure:
            raise self.failure
        self.reported.set()

    @property
    def totals(self) -> dict[uuid.UUID, int]:
        counted: Counter[uuid.UUID] = Counter()
        for viewer, size in self.seen.values():
            counted[viewer] += size
        return counted


def meter(usage: Usage, every: float = NEVER) -> StreamMeter:
    return StreamMeter(usage, every, lambda: NOON)


async def test_what_one_viewer_got_is_one_figure() -> None:
    usage = Usage()
    counting = meter(usage)
    for viewer, size in ((ANN, 1), (BEN, 20), (ANN, 300)):
        counting.count(viewer, size)
    await counting.report()
    assert usage.totals == {ANN: 301, BEN: 20}
    (batch,) = usage.batches
    assert {one.at for one in batch.streamed} == {NOON}
    await counting.report()
    assert len(usage.batches) == 1, "nothing new, nothing to say"


async def test_who_asks_for_a_report_during_another_one_is_answered_when_all_is_told() -> None:
    class Slow(Usage):
        async def streamed(self, batch: StreamedBatch) -> None:
            await asyncio.sleep(0.01)
            await super().streamed(batch)

    usage = Slow()
    counting = meter(usage)
    counting.count(ANN, 1)
    under_way = asyncio.create_task(counting.report())
    await asyncio.sleep(0)
    counting.count(ANN, 20)
    await counting.report()
    assert usage.totals == {ANN: 21}
    assert len(usage.batches) == 2, "and nothing is told twice"
    await under_way


async def test_what_is_counted_while_a_report_is_on_its_way_waits_for_the_next() -> None:
    """Or, as there is always somebody watching, one report would follow the other without a pause."""

    class Watched(Usage):
        async def streamed(self, batch: StreamedBatch) -> None:
            await super().streamed(batch)
            counting.count(ANN, 1)

    usage = Watched()
    counting = meter(usage)
    counting.count(ANN, 5)
    for reported in (5, 6, 7):
        await counting.report()
        assert usage.totals == {ANN: reported}


async def test_many_viewers_come_in_batches_that_usage_service_takes() -> None:
    usage = Usage()
    counting = meter(usage)
    for viewer in range(MAX_BATCH * 2 + 1):
        counting.count(uuid.UUID(int=viewer), 7)
    await counting.report()
    assert [len(batch.streamed) for batch in usage.batches] == [MAX_BATCH, MAX_BATCH, 1]
    assert sum(usage.totals.values()) == 7 * (MAX_BATCH * 2 + 1)


@pytest.mark.parametrize("late", [False, True], ids=["down", "its answer is lost"])
async def test_a_report_that_was_not_taken_comes_again_with_the_same_ids_and_counts_once(late: bool) -> None:
    usage = Usage()
    counting = meter(usage)
    usage.failure, usage.late = Unavailable("down"), late
    counting.count(ANN, 5)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await counting.report()
    counting.count(ANN, 8)
    usage.failure = None
    await counting.report()
    assert usage.totals == {ANN: 13}
    assert usage.batches[:3] == [usage.batches[0]] * 3


async def test_a_report_that_is_refused_does_not_stand_in_the_way_of_the_next() -> None:
    usage = Usage()
    counting = meter(usage)
    usage.failure = PeerRefused(422, "no", "invalid")
    counting.count(ANN, 5)
    await counting.report()
    usage.failure = None
    counting.count(BEN, 8)
    await counting.report()
    assert usage.totals == {BEN: 8}


async def test_it_reports_by_itself_again_and_again_though_usage_service_was_away() -> None:
    usage = Usage()
    async with meter(usage, every=0.001) as counting:
        usage.failure = Unavailable("down")
        counting.count(ANN, 5)
        while len(usage.batches) < 3:  # noqa: ASYNC110  the meter's own task is what is waited for
            await asyncio.sleep(0.001)
        usage.failure = None
        async with asyncio.timeout(20):
            await usage.reported.wait()
        assert usage.totals == {ANN: 5}


async def test_what_is_not_reported_when_it_closes_is_reported_then() -> None:
    usage = Usage()
    async with meter(usage) as counting:
        counting.count(ANN, 5)
    assert usage.totals == {ANN: 5}


async def test_a_report_that_closing_interrupts_is_sent_with_the_same_ids() -> None:
    usage = Usage()
    started = asyncio.Event()
    take = usage.streamed

    async def hanging(batch: StreamedBatch) -> None:
        usage.streamed = take  # type: ignore[method-assign]
        await take(batch)
        started.set()
        await asyncio.Event().wait()

    usage.streamed = hanging  # type: ignore[method-assign]
    async with meter(usage, every=0.001) as counting:
        counting.count(ANN, 5)
        await started.wait()
    assert len(usage.batches) == 2
    assert usage.totals == {ANN: 5}


@pytest.mark.parametrize("hangs", [False, True], ids=["down", "hanging"])
async def test_closing_waits_for_nobody_for_long(hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "CLOSE_SECONDS", 0.01)
    usage = Usage()
    usage.failure = Unavailable("down")

    async def hang(batch: StreamedBatch) -> None:
        await asyncio.Event().wait()

    if hangs:
        usage.streamed = hang  # type: ignore[method-assign]
    async with asyncio.timeout(20), meter(usage) as counting:
        counting.count(ANN, 5)
    assert usage.totals == {}
