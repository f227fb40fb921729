"""Objects as files in a folder: ``incoming/`` while they arrive, ``objects/ab/`` once they are whole."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from shared.contracts import is_filename
from shared.errors import Conflict, NotFound, TooLarge, Unavailable
from storage_service.blobs import Kind, Method

log = logging.getLogger(__name__)

T = TypeVar("T")
# What is written at once: large enough that calls do not count, small enough for many uploads at once.
PIECE = 256 * 1024
MOST_PIECES = 256
# The disk begins with what has come while more comes, or all of it would have to wait for the disk at the end.
BEGUN = 4 * 1_048_576
THREADS = 4
# A disk that lets a write wait for so long (seconds) is waited for by threads, for a while.
SLOW = 0.02
WARY = 5.0
SUFFIX: dict[Kind, str] = {"video": ".video", "thumbnail": ".jpg"}
INCOMING_SUFFIX: dict[Kind, str] = {"video": "", "thumbnail": ".jpg"}


class LocalBlobs:
    def __init__(self, root: Path, removed: Callable[[Path], None]) -> None:
        self._removed = removed
        # Films that have arrived, and are not known to be on the disk. A disk that fails tells it to the descriptor.
        self._unfinished: dict[str, int] = {}
        self._lasting: set[Path] = set()
        self._incoming = root / "incoming"
        self._objects = root / "objects"
        self._disk = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
        self._wary_until = 0.0

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path, removed: Callable[[Path], None] = lambda path: None) -> AsyncIterator[Self]:
        blobs = cls(root, removed)
        await blobs._run(blobs._make_folders)
        try:
            yield blobs
        finally:
            blobs._disk.shutdown(wait=False, cancel_futures=True)
            for filename in list(blobs._unfinished):
                blobs._let_go(filename)

    async def write(self, filename: str, chunks: AsyncIterator[bytes], limit: int) -> int:
        part, final = self._part(filename), self.path(filename, "video")
        opened: list[int] = []  # filled by the thread: nothing is lost if nobody waits for it any more
        try:
            await self._run(lambda: opened.append(_create(part, final)))
            size = waiting = begun = 0
            pieces: list[bytes] = []
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise TooLarge(
                        f"The video is larger than the {limit} bytes reserved for it.", code="over_reservation"
                    )
                pieces.append(chunk)
                waiting += len(chunk)
                if waiting >= PIECE or len(pieces) >= MOST_PIECES:
                    begin = (begun, size) if size - begun >= BEGUN else None
                    await self._take(opened[0], pieces, begin)
                    pieces, waiting, begun = [], 0, size if begin else begun
            await self._run(partial(_write_last, opened[0], pieces, (begun, size)))
        except BaseException:
            try:
                if opened:
                    await self._run(lambda: _unlink([part]))
            finally:
                for descriptor in opened:
                    os.close(descriptor)
            raise
        self._unfinished[filename] = opened[0]
        return size

    async def finish(self, filename: str, jpeg: bytes) -> None:
        part, final = self._part(filename), self.path(filename, "video")
        picture, final_picture = self._part(filename, "thumbnail"), self.path(filename, "thumbnail")
        descriptor = self._unfinished.pop(filename, None)
        if descriptor is None:
            raise _given_up()

        def work() -> None:
            with picture.open("wb") as file:
                file.write(jpeg)
                file.flush()
                os.fsync(file.fileno())
            os.fsync(descriptor)
            self._make_folder(final.parent)
            try:
                part.rename(final)
                picture.rename(final_picture)
            except FileNotFoundError:
                _unlink([picture])
                raise _given_up() from None
            _sync_folder(final.parent)  # a name is on the disk only when its folder is

        try:
            await self._run(work)
        finally:
            os.close(descriptor)

    def source(self, filename: str, size: int) -> Path:
        return self._part(filename)

    async def address(self, filename: str, kind: Kind, content_type: str, method: Method) -> Path:
        return self.path(filename, kind)

    def path(self, filename: str, kind: Kind) -> Path:
        if not is_filename(filename):
            raise NotFound("There is no such file.")
        return self._objects / filename[:2] / (filename + SUFFIX[kind])

    async def remove(self, filename: str) -> None:
        paths = [place(filename, kind) for place in (self._part, self.path) for kind in SUFFIX]
        self._let_go(filename)
        try:
            await self._run(lambda: _unlink(paths))
        finally:  # also if nobody waits for it any more
            for path in paths:
                self._removed(path)

    async def ping(self) -> None:
        await self._run(lambda: os.stat(self._objects))

    def _part(self, filename: str, kind: Kind = "video") -> Path:
        """Where it is until it is finished."""
        if not is_filename(filename):
            raise NotFound("There is no such file.")
        return self._incoming / (filename + INCOMING_SUFFIX[kind])

    def _let_go(self, filename: str) -> None:
        descriptor = self._unfinished.pop(filename, None)
        if descriptor is not None:
            os.close(descriptor)

    def _make_folders(self) -> None:
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._objects.mkdir(exist_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """It, and its name on the disk; whoever else has made it may not have come so far."""
        folder.mkdir(exist_ok=True)
        if folder not in self._lasting:
            _sync_folder(self._objects)
            self._lasting.add(folder)

    async def _take(self, descriptor: int, pieces: Sequence[bytes], begin: tuple[int, int] | None) -> None:
        """Here and now, for it goes to the page cache: a hop to a thread and back would cost more than the copy.

        What has to wait for the disk, or had to a moment ago, is left to a thread.
        """
        started = time.monotonic()
        if begin or started < self._wary_until:
            await self._run(partial(_write, descriptor, pieces, begin))
            return
        with self._telling():
            _write(descriptor, pieces, None)
        if (ended := time.monotonic()) - started > SLOW:
            self._wary_until = ended + WARY

    async def _run(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._disk, work)
        with self._telling():
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # A thread cannot be stopped: nothing is closed or removed under its hands.
                await asyncio.wait([running])
                raise

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What the disk says, in our words."""
        try:
            yield
        except FileExistsError:
            raise Conflict("This upload has been stored already.", code="already_stored") from None
        except OSError as error:
            log.exception("the disk does not take or give bytes")
            reason = f"the folder {self._objects.parent} cannot be used ({error.strerror}): is DATA_DIR right?"
            raise Unavailable("The storage does not answer; please try again later.", reason=reason) from error


def _given_up() -> Conflict:
    return Conflict("This upload has been given up; please start it again.", code="upload_gone")


def _create(part: Path, final: Path) -> int:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    # Only now: whoever wrote it before has renamed its part by the time that this one could be made.
    if final.exists():
        os.close(descriptor)
        part.unlink()
        raise FileExistsError(final)
    return descriptor


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _write(descriptor: int, pieces: Sequence[bytes], begin: tuple[int, int] | None) -> None:
    """All of them; and the disk begins with what has come from one place to another."""
    left = [memoryview(piece) for piece in pieces if piece]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]
    # Linux starts to write what it is told to forget, and forgets no page that is not yet on the disk.
    if begin and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # some file systems take no advice
            os.posix_fadvise(descriptor, begin[0], begin[1] - begin[0], os.POSIX_FADV_DONTNEED)


def _write_last(descriptor: int, pieces: Sequence[bytes], begin: tuple[int, int]) -> None:
    _write(descriptor, pieces, begin)
    if os.fstat(descriptor).st_nlink == 0:
        raise _given_up()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
