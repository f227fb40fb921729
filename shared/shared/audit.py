"""Fire-and-forget: what users did, posted to logging-service without slowing anything down.

One bounded queue and one batching sender per process. A receiver that is slow, down or gone costs a request nothing;
what does not fit in the queue is dropped and counted.
"""

import asyncio
import contextlib
import logging
import uuid
from functools import partial
from typing import Self

from shared.clock import utc_now
from shared.contracts import MAX_LOGS, LogBatch, LogEntry
from shared.errors import ServiceError, Unavailable
from shared.http import Peer
from shared.ids import time_ordered_id
from shared.retry import retry

log = logging.getLogger(__name__)

QUEUE = 10_000
# A batch stays below the limit on bodies even when every description is as long as can be, and of four-byte characters.
LONGEST_DESCRIPTION = 1000
BATCH = min(400, MAX_LOGS)
# From one call to the next. What comes meanwhile goes in one: a call costs us and the receiver what fifty entries do.
GATHER_SECONDS = 0.1
FLUSH_SECONDS = 3.0
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class AuditLog:
    """``record`` never waits and never fails. Leaving the context flushes what is queued, for FLUSH_SECONDS at most."""

    def __init__(self, logging_service: Peer, queue: int = QUEUE) -> None:
        self._peer = logging_service
        self._queue: asyncio.Queue[LogEntry] = asyncio.Queue(queue)
        self._unsent: list[LogEntry] = []
        self._closing = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self.dropped = 0

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send_all(), name="audit")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._sender is not None
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._queue.join()
        self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)
        self._drop(self._queue.qsize() + len(self._unsent))

    def record(self, user_id: uuid.UUID, action: str, description: str, service: str) -> None:
        """Queue one entry; it carries its own id and time, so being sent twice or late changes nothing."""
        # Not validated here: logging-service does that.
        entry = LogEntry.model_construct(
            id=time_ordered_id(),
            user_id=user_id,
            action=action,
            description=_sendable(description),
            service=service,
            created_at=utc_now(),
        )
        try:
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            self._drop(1)

    async def _send_all(self) -> None:
        clock = asyncio.get_running_loop().time
        not_before = 0.0
        while True:
            self._unsent = [await self._queue.get()]
            await self._until_closing(not_before - clock())
            not_before = clock() + GATHER_SECONDS
            while len(self._unsent) < BATCH and not self._queue.empty():
                self._unsent.append(self._queue.get_nowait())
            await self._send()
            while self._unsent:
                self._unsent.pop()
                self._queue.task_done()

    async def _send(self) -> None:
        """Post one batch until it is taken. One that is refused for good is dropped."""
        post = partial(self._peer.call, "POST", "/api/logs/batch", LogBatch(logs=self._unsent), tries=1)
        try:
            await retry(post, on=_is_unavailable, tries=None, pauses=BACKOFF_SECONDS, sleep=self._pause)
        except ServiceError as error:
            log.error("logging-service refused a batch: %s", error.message)
            self._drop(len(self._unsent))

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; while closing only shortly, so that several tries fit into FLUSH_SECONDS."""
        if self._closing.is_set():
            await asyncio.sleep(BACKOFF_SECONDS[0])
        await self._until_closing(seconds)

    async def _until_closing(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _drop(self, number: int) -> None:
        if number:
            first = self.dropped == 0
            self.dropped += number
            if first or self.dropped % 1000 < number:
                log.warning("log entries dropped so far: %s", self.dropped)


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, Unavailable)


def _sendable(text: str) -> str:
    """What a user wrote, as text that JSON and every database take: no NUL, no half of a character."""
    return text[:LONGEST_DESCRIPTION].replace("\0", "").encode(errors="replace").decode()
