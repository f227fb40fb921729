"""Files written through the page cache without holding up the event loop.

``os.writev`` into the page cache is a copy: done inline it costs less than the hop to a thread and back. Only a disk
that is slow, a full page cache for example, makes it wait; then threads do the writing for a while.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from shared.contracts import Chunk
from shared.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
THREADS = 4
# Written at once: large enough that system calls do not count, small enough for many uploads at once.
BLOCK_BYTES = 256 * 1024
MOST_CHUNKS = 256
# Write-back begins after so many bytes. Without it the final fsync would have to write all of an upload.
WRITE_BACK_BYTES = 4 * 1_048_576
# A write that took longer than SLOW_SECONDS waited for the disk: threads do all writing for WARY_SECONDS.
SLOW_SECONDS = 0.02
WARY_SECONDS = 5.0


class Disk:
    """Runs what may wait for the disk. An ``OSError`` becomes ``Unavailable`` (503)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
        self._wary_until = 0.0

    async def run(self, work: Callable[[], T], *, expected: tuple[type[OSError], ...] = ()) -> T:
        """``work`` in a thread; errors that are ``expected`` rise as they are. When the caller is cancelled, this waits
        for the thread first: nothing is closed or removed while a thread still uses it.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        with self._translated(expected):
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise

    async def write(self, descriptor: int, chunks: Sequence[Chunk], write_back: tuple[int, int] | None = None) -> None:
        """All ``chunks`` at the descriptor's position; ``write_back`` is a byte range to begin with on disk."""
        started = time.monotonic()
        if write_back or started < self._wary_until:
            await self.run(partial(write_chunks, descriptor, chunks, write_back))
            return
        with self._translated(()):
            write_chunks(descriptor, chunks, None)
        if (ended := time.monotonic()) - started > SLOW_SECONDS:
            self._wary_until = ended + WARY_SECONDS

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _translated(self, expected: tuple[type[OSError], ...]) -> Iterator[None]:
        try:
            yield
        except expected:
            raise
        except OSError as error:
            log.exception("the disk does not take or give bytes")
            reason = f"the folder {self._folder} cannot be used ({error.strerror}): is DATA_DIR right?"
            raise Unavailable("The storage does not answer; please try again later.", reason=reason) from error


class FileWriter:
    """Appends to an existing file of ``size`` bytes. ``close`` must be called; it writes nothing."""

    def __init__(self, disk: Disk, descriptor: int, size: int) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self._chunks: list[Chunk] = []
        self._waiting = 0
        self._write_back_from = size
        self.size = size

    @classmethod
    async def open(cls, disk: Disk, path: Path) -> "FileWriter":
        """At the end of the file. Raises ``FileNotFoundError``; never creates the file."""
        opened: list[FileWriter] = []  # filled by the thread, so that a cancelled caller can close it

        def work() -> None:
            descriptor = os.open(path, os.O_WRONLY)
            opened.append(cls(disk, descriptor, os.lseek(descriptor, 0, os.SEEK_END)))

        try:
            await disk.run(work, expected=(FileNotFoundError,))
        except BaseException:
            for writer in opened:
                writer.close()
            raise
        return opened[0]

    async def write(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        self.size += len(chunk)
        if self._waiting >= BLOCK_BYTES or len(self._chunks) >= MOST_CHUNKS:
            await self.flush()

    async def flush(self) -> None:
        """Hand over to the system what was written so far; not fsync."""
        chunks, self._chunks, self._waiting = self._chunks, [], 0
        write_back = None
        if self.size - self._write_back_from >= WRITE_BACK_BYTES:
            write_back, self._write_back_from = (self._write_back_from, self.size), self.size
        await self._disk.write(self._descriptor, chunks, write_back)

    def close(self) -> None:
        os.close(self._descriptor)


def write_chunks(descriptor: int, chunks: Sequence[Chunk], write_back: tuple[int, int] | None) -> None:
    """All of them, however little the system takes at a time."""
    left = [memoryview(chunk) for chunk in chunks if chunk]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]
    # POSIX_FADV_DONTNEED makes Linux start write-back, and keeps the dirty pages in the cache.
    if write_back and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # some file systems take no advice
            os.posix_fadvise(descriptor, write_back[0], write_back[1] - write_back[0], os.POSIX_FADV_DONTNEED)
