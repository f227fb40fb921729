"""Objects as files in a folder: ``incoming/`` while they arrive, ``objects/ab/`` once they are whole.

Bytes arrive at ``PUT /uploads/{capability}/{filename}`` (targets.py), or straight in the file where video-service can
reach it. Either way the file in ``incoming/`` is the upload: its size is how much has arrived.
"""

import base64
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import google_crc32c

from shared.contracts import SentVideo, UploadTarget, is_filename
from shared.disk import Disk, FileWriter
from shared.errors import Conflict, NotFound, Unavailable
from storage_service.blobs import Kind, LocalFile, Method, OpenTarget
from storage_service.blobs.capability import UploadUrls
from storage_service.config import Settings

SUFFIX: dict[Kind, str] = {"video": ".video", "thumbnail": ".jpg"}
INCOMING_SUFFIX: dict[Kind, str] = {"video": "", "thumbnail": ".jpg"}
READ_BYTES = 1_048_576


class LocalBlobs:
    def __init__(
        self,
        root: Path,
        urls: UploadUrls,
        *,
        offer_files: bool = False,
        removed: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self._root = root
        self._urls = urls
        self._offer_files = offer_files
        self._removed = removed
        # Who writes an upload now. A later request takes over from an earlier one, whose connection may be dead.
        self._writers: dict[str, object] = {}
        # Uploads that have arrived, until they are finished or removed: they take no more bytes.
        self._ended: set[str] = set()
        self._synced_folders: set[Path] = set()
        self._incoming = root / "incoming"
        self._objects = root / "objects"
        self.disk = Disk(root)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, removed: Callable[[Path], None] = lambda path: None) -> AsyncIterator[Self]:
        urls = UploadUrls(settings)
        blobs = cls(settings.data_dir, urls, offer_files=settings.offer_upload_files, removed=removed)
        await blobs.make_folders()
        try:
            yield blobs
        finally:
            blobs.disk.close()

    async def make_folders(self) -> None:
        def work() -> None:
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._objects.mkdir(exist_ok=True)

        await self.disk.run(work)

    async def open_target(self, filename: str, granted: int, session: str | None) -> OpenTarget:
        part, final = self._part(filename), self.path(filename, "video")
        try:
            await self.disk.run(lambda: _create(part, final), expected=(FileExistsError,))
        except FileExistsError:
            raise Conflict("This upload has been stored already.", code="already_stored") from None
        file = str(part.resolve()) if self._offer_files else None
        return OpenTarget(UploadTarget(url=self._urls.url(filename, granted), file=file), None)

    async def cancel(self, session: str) -> None:
        raise AssertionError("the folder has no sessions")

    async def received(self, filename: str) -> int:
        """How many bytes have arrived; raises ``NotFound`` if there is no such target."""
        part = self._part(filename)
        try:
            return (await self.disk.run(part.stat, expected=(FileNotFoundError,))).st_size
        except FileNotFoundError:
            raise _no_target() from None

    @asynccontextmanager
    async def writer(self, filename: str) -> AsyncIterator[FileWriter]:
        """Appends to what has arrived; what is written before a failure stays. Raises ``NotFound`` if it has ended."""
        try:
            writer = await FileWriter.open(self.disk, self._part(filename))
        except FileNotFoundError:
            raise _no_target() from None
        if filename in self._ended:
            writer.close()
            raise _no_target()
        self._writers[filename] = writer
        try:
            try:
                yield writer
            finally:
                if self._writers.get(filename) is writer:
                    await writer.flush()
        finally:
            if self._writers.get(filename) is writer:
                del self._writers[filename]
            writer.close()

    def check_current(self, filename: str, writer: FileWriter) -> None:
        """Raises ``Conflict`` when a later request has taken over, or the upload has ended."""
        if self._writers.get(filename) is not writer:
            raise Conflict("Another request goes on with this upload.", code="taken_over")

    async def arrived(self, filename: str) -> SentVideo | None:
        part = self._part(filename)
        self._ended.add(filename)
        self._writers.pop(filename, None)
        try:
            size, checksum = await self.disk.run(lambda: _size_and_checksum(part), expected=(FileNotFoundError,))
        except FileNotFoundError:
            return None
        return SentVideo(size=size, crc32c=checksum) if size else None

    def source(self, filename: str, size: int) -> Path:
        return self._part(filename)

    async def finish(self, filename: str, size: int, jpeg: bytes) -> None:
        part, final = self._part(filename), self.path(filename, "video")
        picture, final_picture = self._part(filename, "thumbnail"), self.path(filename, "thumbnail")

        def work() -> None:
            _write_synced(picture, jpeg)
            with part.open("rb+") as file:
                if os.fstat(file.fileno()).st_size != size:
                    raise Unavailable("The storage does not answer; please try again later.")
                os.fsync(file.fileno())
            self._make_folder(final.parent)
            part.rename(final)
            picture.rename(final_picture)
            _sync_folder(final.parent)  # a name is on the disk only when its folder is

        try:
            await self.disk.run(work, expected=(FileNotFoundError,))
            self._ended.discard(filename)
        except FileNotFoundError:
            # Removed meanwhile; or the whole folder is gone.
            await self.disk.run(lambda: _unlink([picture]))
            await self.ping()
            raise Conflict("This upload has been given up; please start it again.", code="upload_gone") from None

    async def address(self, filename: str, kind: Kind, content_type: str, method: Method) -> LocalFile:
        return LocalFile(self.path(filename, kind))

    def path(self, filename: str, kind: Kind) -> Path:
        if not is_filename(filename):
            raise NotFound("There is no such file.")
        return self._objects / filename[:2] / (filename + SUFFIX[kind])

    async def remove(self, filename: str, session: str | None) -> None:
        paths = [place(filename, kind) for place in (self._part, self.path) for kind in SUFFIX]
        self._writers.pop(filename, None)
        try:
            await self.disk.run(lambda: _unlink(paths))
        finally:  # also when the caller was cancelled
            self._ended.discard(filename)
            for path in paths:
                self._removed(path)

    async def ping(self) -> None:
        await self.disk.run(lambda: os.stat(self._objects))

    def _part(self, filename: str, kind: Kind = "video") -> Path:
        """Where it is until it is finished."""
        if not is_filename(filename):
            raise NotFound("There is no such file.")
        return self._incoming / (filename + INCOMING_SUFFIX[kind])

    def _make_folder(self, folder: Path) -> None:
        """The folder, and its name on the disk; another thread that made it may not have synced it yet."""
        folder.mkdir(exist_ok=True)
        if folder not in self._synced_folders:
            _sync_folder(self._objects)
            self._synced_folders.add(folder)


def _no_target() -> NotFound:
    return NotFound("There is no such upload, or it has ended.", code="no_such_upload")


def _create(part: Path, final: Path) -> None:
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600))
    # Checked after the file was made: an upload that is being finished has its last name by now.
    if final.exists():
        part.unlink(missing_ok=True)
        raise FileExistsError(final)


def _size_and_checksum(path: Path) -> tuple[int, str]:
    size = checksum = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_BYTES):
            size += len(block)
            checksum = google_crc32c.extend(checksum, block)
    return size, base64.b64encode(checksum.to_bytes(4)).decode()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
