"""The way of a video's bytes to its upload target: Google's resumable protocol, piece by piece.

The target is a session of the bucket or storage-service itself; both speak the same protocol. After a cut connection, a
timeout or a 5xx it is unknown what became of a piece. Then the target is asked how much it has, and only the rest is
sent again: at most one piece is ever kept. A target's URL is the right to write; it is never logged.
https://cloud.google.com/storage/docs/performing-resumable-uploads

Where storage-service offers a file that this process can open, the bytes are written there, without a second hop.
"""

import asyncio
import base64
import logging
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import google_crc32c
import httpx

from shared.contracts import Chunk, SentVideo, UploadTarget
from shared.disk import Disk, FileWriter
from shared.errors import Conflict, Unavailable
from shared.logs import traceparent

log = logging.getLogger(__name__)

# All pieces but the last are multiples of this, as Cloud Storage has it.
PIECE_UNIT = 256 * 1024
LARGEST_PIECE = 8 * 1_048_576
# What all uploads together keep of pieces that are not confirmed. Each call costs about a millisecond, so a piece is as
# large as the number of uploads allows.
PIECES_BYTES = 16 * 1_048_576
TRIES = 5  # one after another that bring nothing forward
FIRST_PAUSE = 0.2  # seconds; doubled each time
TRY_SECONDS = 15.0
PIECE_SECONDS = 40.0  # for one piece, with all its tries
CONNECT_SECONDS = 2.0
MOST_CONNECTIONS = 200

_PASSING = {408, 429, 500, 502, 503, 504}
_ENDED = {404, 409, 410, 412, 499}  # 499: a bucket's answer for a session that was cancelled
MORE = "308"  # the target has a part, and expects more


def open_target_client(
    transport: httpx.AsyncBaseTransport | None = None,
) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Plain httpx: aiohttp under it would send a piece again after a cut without asking first.

    ``transport`` stands in for the network.
    """
    timeout = httpx.Timeout(TRY_SECONDS, connect=CONNECT_SECONDS)
    limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=30.0)
    return httpx.AsyncClient(transport=transport, limits=limits, timeout=timeout, trust_env=False)


class Targets:
    """Sends videos to their targets. ``storage_url`` is where relative target URLs lead to."""

    def __init__(self, client: httpx.AsyncClient, storage_url: str, disk: Disk) -> None:
        self._client = client
        self._storage_url = storage_url
        self._disk = disk
        self._sending = 0

    async def send(self, target: UploadTarget, chunks: AsyncIterator[Chunk]) -> SentVideo:
        """All of ``chunks``, at least one byte; when this returns the target has them.

        An error that ``chunks`` raises rises as it is. Raises ``Conflict`` when the target has ended, ``Unavailable``
        when it does not take the bytes.
        """
        checked = _Checked(chunks)
        writer = await self._open_file(target.file) if target.file else None
        if writer is not None:
            size = await _write(writer, checked)
        else:
            with self._counted():
                if target.url.startswith("/"):
                    upload = Upload(self._client, self._storage_url + target.url, {"traceparent": traceparent()})
                else:
                    upload = Upload(self._client, target.url, {})
                size = await self._send_pieces(upload, checked)
        return SentVideo(size=size, crc32c=base64.b64encode(checked.crc32c.to_bytes(4)).decode())

    async def _open_file(self, path: str) -> FileWriter | None:
        if not os.access(path, os.W_OK):
            return None  # not this machine, or not ours to write
        try:
            return await FileWriter.open(self._disk, Path(path))
        except (FileNotFoundError, Unavailable):  # gone meanwhile, or no file
            return None

    async def _send_pieces(self, upload: "Upload", chunks: AsyncIterable[Chunk]) -> int:
        held: list[Chunk] = []
        size = 0
        async for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            # More than a piece, and not as much: the last one must have something.
            if (waiting := size - upload.sent) > self._piece_bytes():
                head, held = _split(held, (waiting - 1) // PIECE_UNIT * PIECE_UNIT)
                await upload.append(head)
                del head  # or it lives while the next piece gathers
        await upload.finish(held)
        return size

    def _piece_bytes(self) -> int:
        share = PIECES_BYTES // self._sending // PIECE_UNIT * PIECE_UNIT
        return max(PIECE_UNIT, min(share, LARGEST_PIECE))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1


class Upload:
    """One upload to one target; ``sent`` is how many bytes it has confirmed."""

    def __init__(self, client: httpx.AsyncClient, url: str, headers: Mapping[str, str]) -> None:
        self.sent = 0
        # After a lost answer to the last piece, whatever is answered then: only storage-service, which looks at what
        # has arrived, can tell.
        self._may_be_complete = False
        self._client = client
        self._url = url
        self._headers = headers

    async def append(self, piece: list[Chunk]) -> None:
        """A piece that is not the last: its size is a multiple of ``PIECE_UNIT``."""
        await self._bounded(piece, None)

    async def finish(self, piece: list[Chunk]) -> None:
        """The last piece, which may be shorter."""
        await self._bounded(piece, self.sent + sum(map(len, piece)))

    async def _bounded(self, piece: list[Chunk], total: int | None) -> None:
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                await self._send(piece, total)
        except TimeoutError:
            raise _unavailable(f"a piece was not taken within {PIECE_SECONDS:g} seconds") from None

    async def _send(self, piece: list[Chunk], total: int | None) -> None:
        """Until the target has all of ``piece``; ``total`` says that it is the last one."""
        start = self.sent
        fault, failures = "", 0
        while failures < TRIES:
            if failures:
                await asyncio.sleep(FIRST_PAUSE * 2 ** (failures - 1))
            before = self.sent
            # After a fault it asks first, with no bytes.
            rest = _split(piece, self.sent - start)[1] if fault in ("", MORE) else []
            fault = await self._attempt(rest, start + sum(map(len, piece)), total)
            if not fault:
                return
            failures = 0 if self.sent > before else failures + 1
        if not self._may_be_complete:
            raise _unavailable(f"a piece was not taken in {TRIES} tries: {fault}")

    async def _attempt(self, rest: list[Chunk], stop: int, total: int | None) -> str:
        """One request; empty when the target has all bytes up to ``stop``, else why not."""
        try:
            answer = await self._put(rest, total)
        except (httpx.HTTPError, OSError) as error:  # TimeoutError is an OSError
            self._may_be_complete = total is not None
            return type(error.__cause__ or error).__name__
        status = answer.status_code
        if status == 308:
            self.sent = _confirmed(answer, self.sent, stop)
            return "" if self.sent == stop and total is None else MORE
        if status in _PASSING:
            self._may_be_complete = total is not None
            return str(status)
        if total is not None and (status in (200, 201) or self._may_be_complete):
            self.sent = stop
            return ""
        if status in _ENDED:
            raise Conflict("This upload has been given up; please start it again.", code="upload_gone")
        raise _unavailable(f"a piece was refused with {status}")

    async def _put(self, rest: list[Chunk], total: int | None) -> httpx.Response:
        """Without bytes it asks; where the target has all of ``total``, that completes the upload."""
        length = sum(map(len, rest))
        span = f"{self.sent}-{self.sent + length - 1}" if length else "*"
        headers = {
            **self._headers,
            "Content-Range": f"bytes {span}/{'*' if total is None else total}",
            "Content-Length": str(length),
        }
        async with asyncio.timeout(TRY_SECONDS):
            return await self._client.put(self._url, content=_body(rest), headers=headers)


async def _write(writer: FileWriter, chunks: AsyncIterable[Chunk]) -> int:
    try:
        async for chunk in chunks:
            await writer.write(chunk)
        await writer.flush()
        return writer.size
    finally:
        writer.close()


class _Checked:
    """The same chunks; ``crc32c`` is that of all that have passed."""

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self.crc32c = 0
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        async for chunk in self._chunks:
            self.crc32c = google_crc32c.extend(self.crc32c, _bytes(chunk))
            yield chunk


def _bytes(chunk: Chunk) -> bytes:
    """``chunk`` for a function that takes no views; mostly it is a view of a whole ``bytes``, and nothing is copied."""
    if isinstance(chunk, memoryview):
        return chunk.obj if isinstance(chunk.obj, bytes) and len(chunk.obj) == len(chunk) else bytes(chunk)
    return chunk


async def _body(chunks: Iterable[Chunk]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield _bytes(chunk)


def _split(chunks: list[Chunk], at: int) -> tuple[list[Chunk], list[Chunk]]:
    """The first ``at`` bytes, and the rest; no byte is copied."""
    for number, chunk in enumerate(chunks):
        if at < len(chunk):
            view = memoryview(chunk)
            return [*chunks[:number], view[:at]] if at else chunks[:number], [view[at:], *chunks[number + 1 :]]
        at -= len(chunk)
    return chunks, []


def _confirmed(answer: httpx.Response, start: int, stop: int) -> int:
    """How many bytes the target has; no ``Range`` means none."""
    told = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("range", ""))
    sent = int(told[1]) + 1 if told else 0
    if not start <= sent <= stop:
        raise _unavailable(f"an upload has {sent} bytes, and not between {start} and {stop}")
    return sent


def _unavailable(reason: str) -> Unavailable:
    log.error("the upload target: %s", reason)
    return Unavailable("The storage does not answer; please try again later.", reason=reason)
