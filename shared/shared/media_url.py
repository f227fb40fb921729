"""Media URLs: what a bare ``<video>`` or ``<img>`` may fetch, with no header and no cookie.

``{storage public URL}/media/{capability}/{filename}.mp4``, the thumbnail the same with ``.jpg``. The capability
names the viewer and an expiry, and is signed together with the filename; it holds no dot, so ``.mp4`` stands once in
the URL. Within a window the expiry, and so the URL, stays the same: a browser's cache keeps working.
"""

import base64
import binascii
import hashlib
import hmac
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from shared.errors import Forbidden
from shared.settings import ServiceSettings

_SIGNATURE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Capability:
    """The right of ``viewer`` to fetch one file until ``expires`` (seconds since the epoch)."""

    viewer: uuid.UUID
    expires: int


class MediaUrls:
    """Mints and opens capabilities. A URL lives between one and two ``window`` seconds."""

    def __init__(
        self,
        settings: ServiceSettings,
        public_url: str = "",
        window: float = 21_600,
        now: Callable[[], float] = time.time,
    ) -> None:
        # A key of its own, so that no signature made here means anything as a token, nor the reverse.
        self._keys = [hmac.digest(secret.encode(), b"media capability", hashlib.sha256) for secret in settings.secrets]
        self._public_url = public_url
        self._window = int(window)
        self._now = now
        # A film is fetched in ranges under one URL: a known one costs a look-up, its expiry still checked.
        self._verified = lru_cache(maxsize=1024)(self._verify)

    def mint(self, filename: str, viewer: uuid.UUID) -> str:
        """The absolute URL of ``filename``'s video for ``viewer``."""
        return self.minter(viewer)(filename)

    def minter(self, viewer: uuid.UUID) -> Callable[[str], str]:
        """``mint`` for many files of one page: what all have in common is signed once."""
        expires = (int(self._now()) // self._window + 2) * self._window
        claim = viewer.bytes + expires.to_bytes(5, "big")
        begun = _mac(self._keys[0], claim)
        url = f"{self._public_url}/media/{_text(claim)}"  # 21 bytes: the signature's signs follow without a seam

        def mint(filename: str) -> str:
            signing = begun.copy()
            signing.update(filename.encode())
            return f"{url}{_text(signing.digest())}/{filename}.mp4"

        return mint

    def open(self, capability: str, filename: str) -> Capability:
        """What the capability grants; raises ``Forbidden`` when it is forged, damaged or expired."""
        granted = self._verified(capability, filename)
        if granted.expires <= self._now():
            raise Forbidden("This media address has expired; load the page again.", code="expired_capability")
        return granted

    def _verify(self, capability: str, filename: str) -> Capability:
        try:
            raw = base64.b64decode(capability + "=" * (-len(capability) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        claim, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        known = any(hmac.compare_digest(_mac(key, claim + filename.encode()).digest(), signature) for key in self._keys)
        # In another spelling it would be another address of the same video, past every cache.
        if not known or len(claim) != 21 or _text(raw) != capability:
            raise Forbidden("This media address is not valid.", code="bad_capability")
        return Capability(uuid.UUID(bytes=claim[:16]), int.from_bytes(claim[16:], "big"))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _mac(key: bytes, signed: bytes) -> "hashlib.blake2s":
    """BLAKE2 is a MAC by itself (RFC 7693, 2.5): a page has sixteen, and each takes a sixth of an HMAC's time."""
    return hashlib.blake2s(signed, key=key, digest_size=_SIGNATURE_BYTES)
