"""Where the bytes are: what a place for objects promises, and the choice of one.

An object is written once under a filename that is never used again, and read or removed after that, never changed.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

from storage_service.config import Settings

Kind = Literal["video", "thumbnail"]
Method = Literal["GET", "HEAD"]


class Remote(Protocol):
    """A video that is no file of this machine; it is read a range at a time."""

    size: int

    async def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes, which lie within ``size``; raises ``Unavailable``."""
        ...


class Blobs(Protocol):
    """Every method may raise ``Unavailable`` when the disk or the bucket does not take or give bytes."""

    async def write(self, filename: str, chunks: AsyncIterator[bytes], limit: int) -> int:
        """Take a video as it arrives, in constant memory; its size in bytes.

        It is complete when this returns, and for inspection only. Raises ``TooLarge`` at the first byte over
        ``limit``, ``Conflict`` if the filename is being written or was, or was removed meanwhile; after any failure
        nothing of it is left.
        """
        ...

    def source(self, filename: str, size: int) -> Path | Remote:
        """A video of ``size`` bytes that was written just now, to be inspected."""
        ...

    async def finish(self, filename: str, jpeg: bytes) -> None:
        """Give the video its thumbnail, and both to viewers: when this returns they are there, and on the disk.

        May raise ``Conflict`` if the video was removed meanwhile. After any failure ``remove`` what there is.
        """
        ...

    async def address(self, filename: str, kind: Kind, content_type: str, method: Method) -> Path | str:
        """Where a viewer gets it: a file to send him, which may be gone at any time, or a URL to send him to.

        A URL is good for ``method`` alone and for minutes, answers with ``content_type``, and is the same for all who
        ask within a window of time, so that a browser's cache works.
        """
        ...

    async def remove(self, filename: str) -> None:
        """Remove whatever there is of an object, finished or not; nothing there is fine."""
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

    return LocalBlobs.open(settings.data_dir, removed)
