"""URLs by which a browser fetches straight from Google Cloud Storage: who has one may read one object, for minutes.

Google's library signs with the current second, or with another by an argument that is private and for its tests. Here
the moment is the start of a window, so that all who ask within it get the same URL and a browser's cache works; so the
V4 signature is made here, over the public interface of the credentials. A test compares it with the library's.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from google.auth import iam
from google.auth.exceptions import GoogleAuthError

from shared.errors import Unavailable
from storage_service.blobs import Method

log = logging.getLogger(__name__)

MOST_KNOWN = 2000
THREADS = 4


class Signing(Protocol):
    """Both may take a network call and block. A key file's credentials are one."""

    @property
    def signer_email(self) -> str: ...

    def sign_bytes(self, message: bytes, /) -> bytes: ...


class IamSigning:
    """Where no key is at hand, as on Cloud Run: IAM's signBlob signs in the name of the service's own account.

    That account needs the role Service Account Token Creator on itself.
    """

    def __init__(self, credentials: Any, request: Callable[..., Any]) -> None:
        self._credentials = credentials
        self._request = request

    @property
    def signer_email(self) -> str:
        if not self._credentials.valid:  # before the first time, Cloud Run's account is called "default"
            self._credentials.refresh(self._request)
        return str(self._credentials.service_account_email)

    def sign_bytes(self, message: bytes, /) -> bytes:
        signer = iam.Signer(self._request, self._credentials, self.signer_email)  # type: ignore[no-untyped-call]
        return bytes(signer.sign(message))


class SignedUrls:
    """A URL is good for one to two ``window`` seconds after it is given."""

    def __init__(
        self, credentials: Signing, endpoint: str, bucket: str, window: int, now: Callable[[], float] = time.time
    ) -> None:
        self._credentials = credentials
        self._endpoint = endpoint
        self._bucket = bucket
        self._window = window
        self._now = now
        self._known: dict[tuple[int, str, str, Method], str] = {}
        # Not those of the bucket: to sign must not wait for uploads.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sign")

    async def url(self, key: str, content_type: str, method: Method) -> str:
        """Raises ``Unavailable`` when the one who signs does not answer."""
        start = int(self._now()) // self._window * self._window
        wanted = (start, key, content_type, method)
        if wanted in self._known:
            return self._known[wanted]
        try:
            signed = await asyncio.get_running_loop().run_in_executor(self._threads, self._sign, *wanted)
        except (GoogleAuthError, OSError, ValueError, KeyError) as error:
            raise bucket_unavailable(f"a URL cannot be signed: {type(error).__name__}") from error
        while len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return self._known.setdefault(wanted, signed)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _sign(self, start: int, key: str, content_type: str, method: Method) -> str:
        """https://cloud.google.com/storage/docs/access-control/signing-urls-manually"""
        moment = datetime.fromtimestamp(start, UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{moment[:8]}/auto/storage/goog4_request"
        path = quote(f"/{self._bucket}/{key}", safe="/~")
        query = {
            "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
            "X-Goog-Credential": f"{self._credentials.signer_email}/{scope}",
            "X-Goog-Date": moment,
            "X-Goog-Expires": str(2 * self._window),
            "X-Goog-SignedHeaders": "host",
            **presented(content_type),
        }
        asked = urlencode(sorted(query.items()), quote_via=quote, safe="~")
        host = urlsplit(self._endpoint).netloc
        canonical = f"{method}\n{path}\n{asked}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = self._credentials.sign_bytes(f"GOOG4-RSA-SHA256\n{moment}\n{scope}\n{digest}".encode())
        return f"{self._endpoint}{path}?{asked}&X-Goog-Signature={signature.hex()}"


class PlainUrls:
    """An emulator's, which asks for no signature. There is nothing like it for a real bucket."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self._root = f"{endpoint}/{bucket}"

    async def url(self, key: str, content_type: str, method: Method) -> str:
        return f"{self._root}/{key}?{urlencode(presented(content_type), quote_via=quote, safe='')}"

    def close(self) -> None:
        pass


def bucket_unavailable(reason: str) -> Unavailable:
    """``reason`` is for the log and the operator; it never quotes a URL, which may be a secret."""
    log.error("Google Cloud Storage: %s", reason)
    return Unavailable("The storage does not answer; please try again later.", reason=reason)


def presented(content_type: str) -> dict[str, str]:
    """How the bucket is to answer. It follows the type only where the object has none of its own."""
    return {"response-content-disposition": "inline", "response-content-type": content_type}
