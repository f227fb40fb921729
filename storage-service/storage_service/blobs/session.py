"""A resumable upload into Google Cloud Storage: chunk by chunk, and after a fault from where it stands.

The session's URI is its own right to write; it is a secret while it lives, and never logged. What became of a chunk is
unknown after a cut connection, a timeout or a 5xx. Then the session is asked how much it has, and what it has not is
sent again: so not more than one chunk is kept.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Self

import httpx

from shared.errors import Conflict, Unavailable

log = logging.getLogger(__name__)

CHUNK = 1_048_576  # a multiple of 256 KiB, as all but the last must be
TRIES = 5  # one after another that bring nothing forward
FIRST_PAUSE = 0.2  # then twice that, and so on
TRY_SECONDS = 10.0
# For one chunk, with all its tries. Our caller gives up after 45 s in which we take nothing (shared.http).
CHUNK_SECONDS = 30.0
CONNECT_SECONDS = 2.0
CANCEL_SECONDS = 3.0
MOST_CONNECTIONS = 200

_PASSING = {408, 429, 500, 502, 503, 504}
_BROKEN = (httpx.HTTPError, OSError)  # TimeoutError is an OSError


@dataclass(frozen=True, slots=True)
class Stored:
    """What the bucket says of an object: its size in bytes, its CRC-32C in base64."""

    generation: int
    size: int
    crc32c: str

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        try:
            found = answer.json()
            return cls(int(found["generation"]), int(found["size"]), str(found["crc32c"]))
        except (ValueError, KeyError, TypeError):
            raise away("an upload is said to be complete, and not what is there") from None


def away(reason: str) -> Unavailable:
    """``reason`` is for the log and whoever runs the service."""
    log.error("Google Cloud Storage: %s", reason)
    return Unavailable("The storage does not answer; please try again later.", reason=reason)


def open_sessions() -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """httpx as it is: aiohttp under it would send a part once more after a cut, and not ask."""
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=MOST_CONNECTIONS), trust_env=False)


class Session:
    """``may_exist``: the object may be in the bucket by now, whatever was answered."""

    def __init__(self, client: httpx.AsyncClient, uri: str) -> None:
        self.may_exist = False
        self._client = client
        self._uri = uri
        self._has = 0  # bytes that the bucket has confirmed

    async def append(self, chunk: bytes) -> None:
        """``CHUNK`` bytes that are not the last. Raises ``Unavailable``, and ``Conflict`` if the object exists."""
        if await self._bounded(chunk, None) is not None:
            raise away("a part of an upload was taken for the whole")

    async def finish(self, chunk: bytes) -> Stored:
        """The last bytes, or none; then the object is in the bucket. Raises as ``append`` does."""
        self.may_exist = True
        stored = await self._bounded(chunk, self._has + len(chunk))
        assert stored is not None
        return stored

    async def cancel(self) -> None:
        """Give it up. If the bucket does not hear of it, it does so by itself after a week."""
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._client.delete(self._uri)
        except _BROKEN:
            log.warning("an upload was given up, and the bucket could not be told")

    async def _bounded(self, chunk: bytes, total: int | None) -> Stored | None:
        try:
            async with asyncio.timeout(CHUNK_SECONDS):
                return await self._send(chunk, total)
        except TimeoutError:
            raise away(f"a part of an upload was not taken within {CHUNK_SECONDS:g} seconds") from None

    async def _send(self, chunk: bytes, total: int | None) -> Stored | None:
        """Until the bucket has it; the object when it is complete."""
        start, end = self._has, self._has + len(chunk)
        asking = False
        failures = 0
        while True:
            before = self._has
            try:
                answer = await self._put(b"" if asking else chunk[before - start :], total)
            except _BROKEN as error:
                fault = type(error.__cause__ or error).__name__
                asking = True
            else:
                fault = str(answer.status_code)
                if answer.status_code in (200, 201):
                    self.may_exist = True
                    return Stored.of(answer)
                if answer.status_code == 412:
                    raise Conflict("This upload has been stored already.", code="already_stored")
                if answer.status_code == 308:
                    self._has = _confirmed(answer, start, end)
                    if self._has == end and total is None:
                        return None
                elif answer.status_code not in _PASSING:  # 404, 410: the session is gone, and what it had
                    raise away(f"a part of an upload was refused with {fault}")
                asking = answer.status_code != 308
            if self._has > before:
                failures = 0
                continue
            failures += 1
            if failures == TRIES:
                raise away(f"a part of an upload was not taken in {TRIES} tries: {fault}")
            await asyncio.sleep(FIRST_PAUSE * 2 ** (failures - 1))

    async def _put(self, rest: bytes, total: int | None) -> httpx.Response:
        """With no bytes it asks; when the bucket has all of ``total``, that completes the object."""

        async def body() -> AsyncIterator[bytes]:
            yield rest

        span = f"{self._has}-{self._has + len(rest) - 1}" if rest else "*"
        headers = {
            "Content-Range": f"bytes {span}/{'*' if total is None else total}",
            "Content-Length": str(len(rest)),
        }
        timeout = httpx.Timeout(TRY_SECONDS, connect=CONNECT_SECONDS)
        async with asyncio.timeout(TRY_SECONDS):
            # An iterator, because httpx's answer and request hold each other, and bytes would live until the next
            # collection of garbage: tens of chunks.
            return await self._client.put(self._uri, content=body(), headers=headers, timeout=timeout)


def _confirmed(answer: httpx.Response, start: int, end: int) -> int:
    """How much of the upload the bucket has; no ``Range`` means nothing."""
    told = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("range", ""))
    has = int(told[1]) + 1 if told else 0
    if not start <= has <= end:
        raise away(f"an upload has {has} bytes, and not between {start} and {end}")
    return has
