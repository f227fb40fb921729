"""What was sent to whom: counted per viewer in memory, reported to usage-service in batches.

A batch keeps its ids until it is taken, so a report that is repeated counts once. What a killed process had not
reported yet is lost: it is a figure to look at, no limit depends on it.
"""

import asyncio
import logging
import secrets
import uuid
from collections import Counter
from typing import Protocol, Self

from shared.clock import Clock, utc_now
from shared.contracts import MAX_BATCH, Streamed, StreamedBatch
from shared.errors import ServiceError, Unavailable

log = logging.getLogger(__name__)

CLOSE_SECONDS = 1.0


class UsageReports(Protocol):
    async def streamed(self, batch: StreamedBatch) -> None: ...


class StreamMeter:
    """``count`` never waits. A task reports every ``every`` seconds, and once more at the end."""

    def __init__(self, usage: UsageReports, every: float, clock: Clock = utc_now) -> None:
        self._usage = usage
        self._every = every
        self._clock = clock
        self._counted: Counter[uuid.UUID] = Counter()
        self._unreported: StreamedBatch | None = None
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._report_forever(), name="stream-meter")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.report()
        except (TimeoutError, Unavailable):
            log.warning("streamed bytes not reported: usage-service does not answer")

    def count(self, viewer: uuid.UUID, sent: int) -> None:
        self._counted[viewer] += sent

    async def report(self) -> None:
        """Report all that was counted by now; raises ``Unavailable``, and then keeps it for the next time."""
        async with self._turn:  # or one would take what another has begun for done
            # What is counted while a report is on its way waits for the next time: there is always somebody watching.
            viewers = len(self._counted)
            while self._unreported or viewers > 0:
                if self._unreported is None:
                    self._unreported = self._next_batch()
                    viewers -= len(self._unreported.streamed)
                try:
                    await self._usage.streamed(self._unreported)
                except Unavailable:
                    raise
                except ServiceError as error:
                    log.error("usage-service refused a report: %s", error.message)
                self._unreported = None

    async def _report_forever(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.report()
            except Unavailable:
                continue  # the peer client has said so in the log

    def _next_batch(self) -> StreamedBatch:
        now = self._clock()
        viewers = list(self._counted)[:MAX_BATCH]
        return StreamedBatch(
            streamed=[
                Streamed(id=secrets.token_hex(16), user_id=viewer, size=self._counted.pop(viewer), at=now)
                for viewer in viewers
            ]
        )
