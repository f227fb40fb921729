"""Objects in a bucket of Google Cloud Storage: ``videos/`` and ``thumbnails/``.

An upload's target is a resumable session of the bucket: its bytes never pass this service. The video appears with its
last byte, and only where nothing is yet: ``if_generation_match=0``. Viewers fetch it by signed URLs (signing.py).
Google's library blocks: it runs in threads, with limits of time on each call and on its retries.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, TypeVar

import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, PreconditionFailed
from google.api_core.exceptions import NotFound as Missing
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse  # type: ignore[import-untyped]
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]

from shared.contracts import SentVideo, UploadTarget, is_filename
from shared.errors import Conflict, NotFound, Unavailable
from storage_service.blobs import Kind, Method, OpenTarget, SignedUrl
from storage_service.blobs.account import Account, open_account
from storage_service.blobs.signing import bucket_unavailable
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
# A session that will take nothing more: 499 is Google's answer to a cancellation, 404 and 410 say that it had ended.
ENDED = {200, 204, 404, 410, 499}
# A viewer's browser may keep it, nobody on the way; as deliveries from a folder have it.
CACHE_CONTROL = "private, max-age=3600"


class GcsBlobs:
    def __init__(self, account: Account, bucket: str) -> None:
        self._bucket = account.client.bucket(bucket)
        self._urls = account.urls
        self._http = account.http
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bucket")

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        assert settings.gcs_bucket is not None
        async with open_account(settings) as account:
            blobs = cls(account, settings.gcs_bucket)
            try:
                yield blobs
            finally:
                blobs._threads.shutdown(wait=False, cancel_futures=True)

    async def open_target(self, filename: str, granted: int, session: str | None) -> OpenTarget:
        if session is None:
            # Without a type of its own: inspection finds the type, and the signed URL says it. The object appears with
            # its last byte, and only where none is yet.
            begin = partial(
                self._blob(filename, "video").create_resumable_upload_session,
                content_type="",
                checksum=None,
                if_generation_match=0,
            )
            session = str(await self._run(partial(begin, **PATIENT)))
        return OpenTarget(UploadTarget(url=session), session)

    async def cancel(self, session: str) -> None:
        with contextlib.suppress(Unavailable):  # it has been logged; the bucket ends a session after a week
            await self._run(partial(self._cancel, session))

    async def arrived(self, filename: str) -> SentVideo | None:
        found = await self._run(partial(self._bucket.get_blob, _key(filename, "video"), **PATIENT))
        return SentVideo(size=int(found.size), crc32c=str(found.crc32c)) if found and found.size else None

    def source(self, filename: str, size: int) -> "Video":
        return Video(size, self._blob(filename, "video"), self._run)

    async def finish(self, filename: str, size: int, jpeg: bytes) -> None:
        blob = self._blob(filename, "thumbnail")
        await self._run(partial(blob.upload_from_string, jpeg, content_type="image/jpeg", **PATIENT))

    async def address(self, filename: str, kind: Kind, content_type: str, method: Method) -> SignedUrl:
        return SignedUrl(await self._urls.url(_key(filename, kind), content_type, method))

    async def remove(self, filename: str, session: str | None) -> None:
        blobs = [self._blob(filename, kind) for kind in KEYS]
        if session is not None:
            # First: after it nothing can appear any more.
            await self._run(partial(self._cancel, session))
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

    def _cancel(self, session: str) -> None:
        """A session's URI is the right to cancel it; no credentials are sent."""
        answer = self._http.delete(session, timeout=TIMEOUT)
        if answer.status_code not in ENDED:
            raise GoogleAPIError(f"a session was not cancelled: {answer.status_code}")

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
            raise bucket_unavailable(_told(error)) from error


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
            raise bucket_unavailable(f"{len(part)} bytes came of the {length} that were asked for")
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
