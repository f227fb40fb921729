"""Where the bytes are: what a place for objects promises, and the choice of one.

An object is written once under a filename that is never used again, and read or removed after that, never changed.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

from storage_service.config import Settings

Kind = Literal["video", "thumbnail"]


class Blobs(Protocol):
    """Every method may raise ``Unavailable`` when the disk or the bucket does not take or give bytes."""

    async def write(self, filename: str, chunks: AsyncIterator[bytes], limit: int) -> int:
        """Store a video as it arrives, in constant memory; its size in bytes.

        It is complete and on the disk when this returns. Raises ``TooLarge`` at the first byte over ``limit``,
        ``Conflict`` if the filename is being written or was, or was removed meanwhile; after any failure nothing of it
        is left.
        """
        ...

    async def write_thumbnail(self, filename: str, jpeg: bytes) -> None: ...

    def path(self, filename: str, kind: Kind) -> Path:
        """The file to inspect or deliver; it may be gone at any time."""
        ...

    async def remove(self, filename: str) -> None:
        """Remove whatever there is of an object, finished or not; nothing there is fine."""
        ...

    async def ping(self) -> None: ...


def open_blobs(settings: Settings) -> AbstractAsyncContextManager[Blobs]:
    from storage_service.blobs.local import LocalBlobs  # noqa: PLC0415  only the chosen backend is imported

    return LocalBlobs.open(settings.data_dir)
