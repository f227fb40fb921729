"""Bytes from a file to a viewer, quickly and without standing in anybody's way.

A file leaves in steps of 1 MiB, straight from the page cache through a mapping: no copy, no hop to a thread. Where
the next step is not in the cache, a thread reads it, so that the loop never waits for a disk. Steps are taken in
turn: one of all deliveries, then everything else that waits (``send`` need not suspend), so that a small request
waits for one step and not for as many as there are viewers. A viewer who goes away stops it: the server's ``send``
does not say so, only ``http.disconnect`` does.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.turns import Turns
from storage_service import ranges
from storage_service.open_files import OpenFile, OpenFiles

STEP = 1_048_576
# Linux reads ahead in windows of this size, so one probe in each tells of the rest.
PROBE_EVERY = 131_072
_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class FileSlice(Response):
    """Bytes ``start`` to ``stop`` of a file; ``sent`` is told of each step that was handed to the server."""

    def __init__(
        self,
        file: OpenFile,
        start: int,
        stop: int,
        *,
        status: int,
        headers: Mapping[str, str],
        sent: Callable[[int], None],
        turns: Turns,
    ) -> None:
        super().__init__(status_code=status, headers={**headers, "Content-Length": str(stop - start)})
        self._file = file
        self._start = start
        self._stop = stop
        self._sent = sent
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD" or self._start == self._stop:
            await send({"type": "http.response.body", "body": b""})
            return
        if self._stop - self._start <= STEP:  # the most of all ranges: it is over before anybody could be gone
            await self._send_step(send, self._start)
            return
        gone = asyncio.create_task(_disconnected(receive))
        try:
            for at in range(self._start, self._stop, STEP):
                if gone.done():
                    break
                await self._send_step(send, at)
                await self._turns.yield_turn()
        finally:
            gone.cancel()

    async def _send_step(self, send: Send, at: int) -> None:
        end = min(at + STEP, self._stop)
        if _is_cached(self._file.descriptor, at, end):
            step: bytes | memoryview = self._file.content[at:end]
        else:
            step = await asyncio.to_thread(os.pread, self._file.descriptor, end - at, at)
        await send({"type": "http.response.body", "body": step, "more_body": end < self._stop})
        self._sent(end - at)


def answer(
    request: Request,
    path: Path,
    *,
    files: OpenFiles,
    etag: str,
    modified: datetime,
    headers: Mapping[str, str],
    sent: Callable[[int], None],
    turns: Turns,
) -> Response:
    """The answer to this GET or HEAD of ``path``: 200, 206 or 304. ``turns`` is shared by all large bodies.

    Raises ``RangeNotSatisfiable``, and ``FileNotFoundError`` if the file is gone.
    """
    headers = {**headers, "Accept-Ranges": "bytes", "ETag": etag, "Last-Modified": ranges.http_date(modified)}
    file = files.open(path)
    part = ranges.select(request.headers, size=file.size, etag=etag, modified=modified, is_get=request.method == "GET")
    if part.status == 304:
        return Response(status_code=304, headers={k: v for k, v in headers.items() if k != "Content-Type"})
    if part.status == 206:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
    return FileSlice(file, part.start, part.stop, status=part.status, headers=headers, sent=sent, turns=turns)


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
