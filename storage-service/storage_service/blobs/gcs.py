"""Objects in a bucket of Google Cloud Storage: ``videos/`` and ``thumbnails/``.

A video is fed into a resumable session as it arrives (session.py). It appears with its last byte, and only where
nothing is yet: ``if_generation_match=0``. Viewers fetch it by signed URLs (signing.py). For everything else there is
Google's library, which blocks: it runs in threads, with limits of time on each call and on what it tries again.
"""

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, TypeVar

import google_crc32c
import httpx
import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, PreconditionFailed
from google.api_core.exceptions import NotFound as Missing
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client  # type: ignore[import-untyped]
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse  # type: ignore[import-untyped]
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]

from shared.contracts import is_filename
from shared.errors import Conflict, NotFound, ServiceError, TooLarge
from storage_service.blobs import Kind, Method
from storage_service.blobs.account import open_account
from storage_service.blobs.session import CHUNK, Session, Stored, away, open_sessions
from storage_service.blobs.signing import PlainUrls, SignedUrls
from storage_service.config import Settings

T = TypeVar("T")
_FAILED = (GoogleAPIError, GoogleAuthError, requests.RequestException, DataCorruption, InvalidResponse, OSError)
THREADS = 10  # as many connections as the library keeps
KEYS: dict[Kind, str] = {"video": "videos/{}.mp4", "thumbnail": "thumbnails/{}.jpg"}
# To connect, and between two bytes; then how long the library may try again, and pause in between.
TIMEOUT = (2.0, 5.0)
RETRY = DEFAULT_RETRY.with_timeout(4.0).with_delay(initial=0.2, maximum=1.0)
PATIENT = {"timeout": TIMEOUT, "retry": RETRY}
PING = {"timeout": (0.7, 1.0), "retry": None}
# A viewer's browser may keep it, nobody on the way; as deliveries from a folder have it.
CACHE_CONTROL = "private, max-age=3600"


class GcsBlobs:
    def __init__(self, client: Client, sessions: httpx.AsyncClient, bucket: str, urls: SignedUrls | PlainUrls) -> None:
        self._bucket = client.bucket(bucket)
        self._sessions = sessions
        self._urls = urls
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bucket")
        self._arriving: set[str] = set()
        self._given_up: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        assert settings.gcs_bucket is not None
        async with open_account(settings) as account, open_sessions() as sessions:
            blobs = cls(account.client, sessions, settings.gcs_bucket, account.urls)
            try:
                yield blobs
            finally:
                blobs._threads.shutdown(wait=False, cancel_futures=True)

    async def write(self, filename: str, chunks: AsyncIterator[bytes], limit: int) -> int:
        blob = self._blob(filename, "video")
        blob.metadata = {"upload": secrets.token_hex(16)}  # by which it is known to be ours
        if filename in self._arriving:
            raise Conflict("This upload is being stored already.", code="already_stored")
        self._arriving.add(filename)
        try:
            session = await self._session(blob)
            try:
                return await self._receive(filename, blob, session, chunks, limit)
            except BaseException:
                await session.cancel()
                if session.may_exist:
                    await self._remove_own(blob)
                raise
        finally:
            self._arriving.discard(filename)
            self._given_up.discard(filename)

    def source(self, filename: str, size: int) -> "Video":
        return Video(size, self._blob(filename, "video"), self._run)

    async def finish(self, filename: str, jpeg: bytes) -> None:
        blob = self._blob(filename, "thumbnail")
        await self._run(partial(blob.upload_from_string, jpeg, content_type="image/jpeg", **PATIENT))

    async def address(self, filename: str, kind: Kind, content_type: str, method: Method) -> str:
        return await self._urls.url(_key(filename, kind), content_type, method)

    async def remove(self, filename: str) -> None:
        blobs = [self._blob(filename, kind) for kind in KEYS]
        if filename in self._arriving:
            self._given_up.add(filename)
        removing = [self._run(partial(_delete, blob)) for blob in blobs]
        for failure in await asyncio.gather(*removing, return_exceptions=True):
            if failure is not None:
                raise failure

    async def ping(self) -> None:
        # A list, since the right to read and write objects does not include that to look at the bucket itself.
        await self._run(lambda: list(self._bucket.list_blobs(max_results=1, prefix="videos/", **PING)))

    def _blob(self, filename: str, kind: Kind) -> Any:
        blob = self._bucket.blob(_key(filename, kind))
        blob.cache_control = CACHE_CONTROL
        return blob

    async def _session(self, blob: Any) -> Session:
        # Without a type of its own: what it is, inspection finds out, and the signed URL says.
        begin = partial(blob.create_resumable_upload_session, content_type="", checksum=None, if_generation_match=0)
        return Session(self._sessions, await self._run(partial(begin, **PATIENT)))

    async def _receive(
        self, filename: str, blob: Any, session: Session, chunks: AsyncIterator[bytes], limit: int
    ) -> int:
        size, checksum = 0, 0
        piece = bytearray()
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"The video is larger than the {limit} bytes reserved for it.", code="over_reservation")
            checksum = google_crc32c.extend(checksum, chunk)
            piece += chunk
            while len(piece) > CHUNK:  # and not as large: the last one must have something
                self._check_wanted(filename)
                await session.append(bytes(piece[:CHUNK]))
                del piece[:CHUNK]
        self._check_wanted(filename)
        try:
            stored = await session.finish(bytes(piece))
        except ServiceError:
            # It may be there all the same, if only the answer was lost: 404, 410 and 412 are what one hears then.
            own = await self._own(blob)
            if own is None:
                raise
            stored = own
        if (stored.size, stored.crc32c) != (size, base64.b64encode(checksum.to_bytes(4)).decode()):
            raise away(f"of an upload of {size} bytes there are {stored.size}, or other ones")
        self._check_wanted(filename)
        return size

    def _check_wanted(self, filename: str) -> None:
        if filename in self._given_up:
            raise Conflict("This upload has been given up; please start it again.", code="upload_gone")

    async def _own(self, blob: Any) -> Stored | None:
        """What of this very upload is in the bucket; another's of the same name is not ours."""
        found = await self._run(partial(self._bucket.get_blob, blob.name, **PATIENT))
        if found is None or found.metadata != blob.metadata:
            return None
        return Stored(int(found.generation), int(found.size), str(found.crc32c))

    async def _remove_own(self, blob: Any) -> None:
        with contextlib.suppress(ServiceError):  # the sweeper removes it when its reservation ends
            if own := await self._own(blob):
                await self._run(partial(_delete, blob, if_generation_match=own.generation))

    async def _run(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # A thread cannot be stopped: nothing is removed that it may yet write.
            await asyncio.wait([running])
            raise
        except PreconditionFailed:
            raise Conflict("This upload has been stored already.", code="already_stored") from None
        except _FAILED as error:
            raise away(_told(error)) from error


class Video:
    """A video in the bucket, to be inspected."""

    def __init__(self, size: int, blob: Any, run: Callable[[Callable[[], bytes]], Any]) -> None:
        self.size = size
        self._blob = blob
        self._run = run

    async def read(self, start: int, length: int) -> bytes:
        part: bytes = await self._run(
            partial(
                self._blob.download_as_bytes,
                start=start,
                end=start + length - 1,
                raw_download=True,
                checksum=None,
                **PATIENT,
            )
        )
        if len(part) != length:
            raise away(f"{len(part)} bytes came of the {length} that were asked for")
        return part


def _key(filename: str, kind: Kind) -> str:
    if not is_filename(filename):
        raise NotFound("There is no such file.")
    return KEYS[kind].format(filename)


def _delete(blob: Any, **conditions: int) -> None:
    with contextlib.suppress(Missing, PreconditionFailed):
        blob.delete(**conditions, **PATIENT)


def _told(error: BaseException) -> str:
    """What may be logged: a message of the transport's may quote the URI of a session, which is a secret."""
    cause = error.__cause__ or error
    code = cause.code if isinstance(cause, GoogleAPICallError) else None
    if isinstance(cause, InvalidResponse):
        code = cause.response.status_code
    advice = {403: "may this account read and write objects in the bucket?", 404: "is there such a bucket?"}
    what = " ".join(filter(None, [type(cause).__name__, str(code or "")]))
    return f"{what}: {advice.get(code or 0, 'can its address be reached from here?')}"
