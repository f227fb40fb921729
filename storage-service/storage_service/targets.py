"""``PUT /uploads/{capability}/{filename}``: Google's resumable upload protocol, over the folder.

The client sends pieces with ``Content-Range: bytes a-b/*``, the last one with the total instead of ``*``. The answer
is 308 with ``Range: bytes=0-n`` while more is expected, and 200 when the total has arrived. ``bytes */*`` with no body
asks how far it is. A piece that was cut off stays as far as it came: the client asks, and goes on from there.
https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
"""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

from fastapi import Response
from starlette.requests import ClientDisconnect, Request

from shared.contracts import is_filename
from shared.errors import BadRequest, NotFound, TooLarge
from shared.turns import Turns
from storage_service.blobs.capability import UploadUrls
from storage_service.blobs.local import LocalBlobs

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,16})-(\d{1,16})|\*)/(\d{1,16}|\*)")


class Piece(NamedTuple):
    """Bytes ``start`` to ``stop`` (exclusive) of an upload; ``total`` is None as long as the client does not know."""

    start: int
    stop: int
    total: int | None


class UploadTargets:
    """The targets in the folder of one service."""

    def __init__(self, blobs: LocalBlobs, urls: UploadUrls, turns: Turns) -> None:
        self._blobs = blobs
        self._urls = urls
        self._turns = turns

    async def answer(self, capability: str, filename: str, request: Request) -> Response:
        """Raises ``Forbidden``, ``BadRequest``, ``NotFound``, ``TooLarge``, ``Conflict``, ``Unavailable``."""
        if not is_filename(filename):
            raise NotFound("There is nothing at this address.")
        granted = self._urls.granted(capability, filename)
        piece = parse_content_range(", ".join(request.headers.getlist("content-range")))
        if max(piece.stop, piece.total or 0) > granted:
            raise TooLarge(f"The video is larger than the {granted} bytes reserved for it.", code="over_reservation")
        if piece.stop == piece.start:
            return _told(await self._blobs.received(filename), piece.total)
        async with self._blobs.writer(filename) as writer:
            if piece.start <= writer.size < piece.stop:
                async for chunk in _body(request, piece, skip=writer.size - piece.start):
                    self._blobs.check_current(filename, writer)
                    await writer.write(chunk)
                    await self._turns.yield_turn()
                self._blobs.check_current(filename, writer)
            return _told(writer.size, piece.total)


def _told(size: int, total: int | None) -> Response:
    """How far the upload is."""
    if total is not None and size > total:
        raise BadRequest("More bytes have arrived than this upload is said to have.")
    if size == total:
        return Response(status_code=200)
    return Response(status_code=308, headers={"Range": f"bytes=0-{size - 1}"} if size else {})


def parse_content_range(value: str) -> Piece:
    """RFC 9110, 14.4, and ``bytes */*``; raises ``BadRequest``."""
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise BadRequest("Content-Range must be such as bytes 0-99/*, bytes 0-99/100 or bytes */100.")
    first, last, length = match.groups()
    start, stop = (int(first), int(last) + 1) if first else (0, 0)
    total = None if length == "*" else int(length)
    if stop < start or (total is not None and stop > total) or (first and start == stop):
        raise BadRequest("Content-Range must begin before it ends, and end within the total.")
    return Piece(start, stop, total)


async def _body(request: Request, piece: Piece, skip: int) -> AsyncIterator[bytes]:
    """The bytes of ``piece`` but for the first ``skip``, which have arrived before; raises ``BadRequest``."""
    expected = piece.stop - piece.start
    came = 0
    try:
        async for chunk in request.stream():
            fresh = chunk[skip - came :] if came < skip else chunk
            came += len(chunk)
            if came > expected:
                raise BadRequest("The body is longer than its Content-Range says.")
            if fresh:
                yield fresh
    except ClientDisconnect:
        raise BadRequest("The upload was cut off.", code="cut_off") from None
    if came < expected:
        raise BadRequest("The body is shorter than its Content-Range says.", code="cut_off")
