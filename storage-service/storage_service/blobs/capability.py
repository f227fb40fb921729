"""URLs of this service's own upload targets: the holder may write one file, up to so many bytes.

``/uploads/{capability}/{filename}``: the capability is the number of bytes granted and a MAC over it and the filename.
It works as long as the upload is open: there is no file to write into before its reservation and after its end.
"""

import base64
import binascii
import hashlib
import hmac

from shared.errors import Forbidden
from shared.settings import ServiceSettings

_GRANTED_BYTES, _MAC_BYTES = 8, 16


class UploadUrls:
    def __init__(self, settings: ServiceSettings) -> None:
        # A key of its own, so that a capability made here is worth nothing as a token or a media URL.
        self._keys = [hmac.digest(secret.encode(), b"upload capability", hashlib.sha256) for secret in settings.secrets]

    def url(self, filename: str, granted: int) -> str:
        """The path at this service for an upload of ``granted`` bytes at most."""
        claim = granted.to_bytes(_GRANTED_BYTES)
        return f"/uploads/{_text(claim + _mac(self._keys[0], claim, filename))}/{filename}"

    def granted(self, capability: str, filename: str) -> int:
        """The bytes that the capability allows; raises ``Forbidden`` if it is not one of ours for this file."""
        try:
            raw = base64.b64decode(capability, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _forbidden() from None
        claim, mac = raw[:_GRANTED_BYTES], raw[_GRANTED_BYTES:]
        if not any(hmac.compare_digest(_mac(key, claim, filename), mac) for key in self._keys):
            raise _forbidden()
        return int.from_bytes(claim)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()  # 24 bytes: no padding


def _mac(key: bytes, claim: bytes, filename: str) -> bytes:
    return hmac.digest(key, claim + filename.encode(), hashlib.sha256)[:_MAC_BYTES]


def _forbidden() -> Forbidden:
    return Forbidden("This upload address is not valid.", code="bad_capability")
