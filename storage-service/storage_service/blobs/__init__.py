"""Where the bytes are: what a place for objects promises, and the choice of one.

An object arrives at an upload target, becomes readable when it is finished, and is read or removed after that, never
changed. Its filename is never used again.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from shared.contracts import SentVideo, UploadTarget
from storage_service.config import Settings

Kind = Literal["video", "thumbnail"]
Method = Literal["GET", "HEAD"]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine; it may be removed at any time."""

    path: Path


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """An absolute URL of the bucket, by which a browser fetches the object without us."""

    url: str


class Remote(Protocol):
    """A video that is no file of this machine; it is read a range at a time."""

    size: int

    async def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes, which lie within ``size``; raises ``Unavailable``."""
        ...


class OpenTarget(NamedTuple):
    """``session`` is what has to be remembered to cancel the target, for example a bucket's session; None: nothing."""

    target: UploadTarget
    session: str | None


class Blobs(Protocol):
    """Every method may raise ``Unavailable`` when the disk or the bucket does not take or give bytes."""

    async def open_target(self, filename: str, granted: int, session: str | None) -> OpenTarget:
        """A target for an upload of ``granted`` bytes at most; ``session`` is that of the same upload, if it has one.

        Repeated, it leads to the same bytes. After the upload is finished it takes none, or raises ``Conflict``.
        """
        ...

    async def cancel(self, session: str) -> None:
        """End a session that was opened and is not used; failing leaves one that ends by itself."""
        ...

    async def arrived(self, filename: str) -> SentVideo | None:
        """Size and checksum of all that has arrived at the target; None if there is nothing, or no end yet.

        The target takes no more bytes after this.
        """
        ...

    def source(self, filename: str, size: int) -> Path | Remote:
        """A video of ``size`` bytes that has arrived, to be inspected."""
        ...

    async def finish(self, filename: str, size: int, jpeg: bytes) -> None:
        """Give the video its thumbnail, and both to viewers: when this returns they are there, and on the disk.

        May raise ``Conflict`` if the video was removed meanwhile. After any failure ``remove`` what there is.
        """
        ...

    async def address(self, filename: str, kind: Kind, content_type: str, method: Method) -> LocalFile | SignedUrl:
        """Where the object is: a file to be sent, or a URL to redirect to.

        A URL is good for ``method`` alone and for minutes, answers with ``content_type``, and is the same for all who
        ask within a window of time, so that a browser's cache works.
        """
        ...

    async def remove(self, filename: str, session: str | None) -> None:
        """Remove an object and its target, finished or not. That there is nothing is no error."""
        ...

    async def ping(self) -> None: ...


def open_blobs(
    settings: Settings, removed: Callable[[Path], None] = lambda path: None
) -> AbstractAsyncContextManager[Blobs]:
    """``removed`` is told of each file of this machine that is gone."""
    # Only the chosen backend is imported: Google's library costs half a second and 40 MB.
    if settings.gcs_bucket:
        from storage_service.blobs.gcs import GcsBlobs  # noqa: PLC0415

        return GcsBlobs.open(settings)
    from storage_service.blobs.local import LocalBlobs  # noqa: PLC0415

    return LocalBlobs.open(settings, removed)
