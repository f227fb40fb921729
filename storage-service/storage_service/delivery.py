"""Bytes from a file to a viewer, quickly and without standing in anybody's way.

A file leaves in steps of 1 MiB, straight from the page cache through a mapping: no copy, no hop to a thread. Where
the next step is not in the cache, a thread reads it, so that the loop never waits for a disk. Steps are taken in
turn: one of all deliveries, then everything else that waits (``send`` need not suspend), so that a small request
waits for one step and not for as many as there are viewers. A viewer who goes away stops it: the server's ``send``
does not say so, only ``http.disconnect`` does. A mapping is safe here because an object is written once and only ever
unlinked.
"""

import asyncio
import mmap
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from storage_service import ranges

STEP = 1_048_576
# Linux reads ahead in windows of this size, so one probe in each tells of the rest.
PROBE_EVERY = 131_072
_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class FileSlice(Response):
    """Bytes ``start`` to ``stop`` of a file; ``sent`` is told of each step that was handed to the server."""

    def __init__(
        self,
        descriptor: int,
        start: int,
        stop: int,
        *,
        status: int,
        headers: Mapping[str, str],
        sent: Callable[[int], None],
        turn: asyncio.Lock,
        sized: bool,
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        if sized:
            self.headers["Content-Length"] = str(stop - start)
        else:
            del self.headers["Content-Length"]
        self._descriptor = descriptor
        self._start = start
        self._stop = stop
        self._sent = sent
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD" or self._start == self._stop:
                await send({"type": "http.response.body", "body": b""})
                return
            mapping = memoryview(mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ))
            if self._stop - self._start <= STEP:  # the most of all ranges: it is over before anybody could be gone
                await self._send_step(send, mapping, self._start)
                return
            gone = asyncio.create_task(_disconnected(receive))
            try:
                for at in range(self._start, self._stop, STEP):
                    if gone.done():
                        break
                    await self._send_step(send, mapping, at)
                    async with self._turn:
                        await asyncio.sleep(0)
            finally:
                gone.cancel()
        finally:
            os.close(self._descriptor)

    async def _send_step(self, send: Send, mapping: memoryview, at: int) -> None:
        end = min(at + STEP, self._stop)
        if _is_cached(self._descriptor, at, end):
            step: bytes | memoryview = mapping[at:end]
        else:
            step = await asyncio.to_thread(os.pread, self._descriptor, end - at, at)
        await send({"type": "http.response.body", "body": step, "more_body": end < self._stop})
        self._sent(end - at)


def answer(
    request: Request,
    path: Path,
    *,
    etag: str,
    modified: datetime,
    headers: Mapping[str, str],
    sent: Callable[[int], None],
    turn: asyncio.Lock,
    sized_below: int | None = None,
) -> Response:
    """What this GET or HEAD of ``path`` is owed: 200, 206 or 304; ``turn`` is the same for all deliveries of a process.

    A body of ``sized_below`` bytes or more goes without its length. Where it may be told it is: that way is quicker.
    Raises ``RangeNotSatisfiable``, and ``FileNotFoundError`` if the file is gone.
    """
    headers = {**headers, "Accept-Ranges": "bytes", "ETag": etag, "Last-Modified": ranges.http_date(modified)}
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        part = ranges.select(request.headers, size=size, etag=etag, modified=modified, is_get=request.method == "GET")
    except BaseException:
        os.close(descriptor)
        raise
    if part.status == 304:
        os.close(descriptor)
        return Response(status_code=304, headers={k: v for k, v in headers.items() if k != "Content-Type"})
    if part.status == 206:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    sized = sized_below is None or request.method == "HEAD" or part.stop - part.start < sized_below
    return FileSlice(
        descriptor, part.start, part.stop, status=part.status, headers=headers, sent=sent, turn=turn, sized=sized
    )


def _is_cached(descriptor: int, start: int, stop: int) -> bool:
    """Whether reading these bytes would not wait for the disk; False where the system cannot tell."""
    if _NOWAIT is None:
        return False
    probe = bytearray(1)
    try:
        return all(
            os.preadv(descriptor, [probe], at, _NOWAIT) == 1 for at in (*range(start, stop, PROBE_EVERY), stop - 1)
        )
    except OSError:  # EAGAIN: not in the cache; EOPNOTSUPP: a file system that cannot tell
        return False


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
