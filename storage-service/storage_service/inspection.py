"""Has stored files judged in processes of their own, and tells what they are.

One server process loads ffmpeg once and forks judges. A judge is confined (probe.py), takes one file and is gone;
as many as may work at once stand ready before they are needed. So a file waits for nothing but its own judgement,
and processes and memory are the same at rest and under load.

    service ── a socket for each judge ──▶ server ── fork ──▶ judge ◀── file, verdict ──▶ service

The file is named by its path; or, where it is none of this machine, the service lends it a range at a time
(lending.py). Then a judge's time stands still while he waits for us.

multiprocessing has such a server too. Its processes would inherit the service's environment with the secrets in it,
its judges would answer in pickle, which can make the service run anything, and import the main program's file again;
and two processes of it would stay behind.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from shared.errors import Unavailable
from storage_service.blobs import Remote
from storage_service.lending import LENT, MOST_AT_ONCE, PATH, SIZE, SPAN, WANTED
from storage_service.verdict import NotAVideo, Probe, decode

__all__ = ["Inspector", "NotAVideo", "Probe"]

JUDGES = min(2, os.cpu_count() or 1)
SECONDS = 15.0  # by the clock on the wall; a judge's processor time ends sooner
SECONDS_TO_START = 10.0
LONGEST_VERDICT = 8 * 2**20
# For all that one judge reads of a lent file. Together they stay within the 45 s that our caller waits (shared.http).
LENDING_SECONDS = 20.0
SERVER = (sys.executable, "-P", "-m", "storage_service.probe")
# Nothing of the service's, which has the secrets. Half of a judge's time went into page faults: glibc gave the memory
# of one picture back to the system before the next one. So it keeps what is less than a picture of 4K, in large pages.
# https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=16777216:glibc.malloc.trim_threshold=16777216"
}

Source = str | os.PathLike[str] | Remote


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def gone(self) -> bool:
        return self.reader.at_eof()

    async def judge(self, source: Source, seconds: float) -> Probe:
        async with asyncio.timeout(seconds) as deadline:
            verdict = bytearray()
            if isinstance(source, str | os.PathLike):
                self.writer.write(PATH + os.fsencode(source))
                self.writer.write_eof()
            else:
                self.writer.write(LENT + SIZE.pack(source.size))
                verdict += await self._lend(source, deadline)
            while len(verdict) <= LONGEST_VERDICT and (part := await self.reader.read(2**16)):
                verdict += part
            return decode(bytes(verdict))

    async def _lend(self, remote: Remote, deadline: asyncio.Timeout) -> bytes:
        """Until he begins his verdict; the first byte of it."""
        loop = asyncio.get_running_loop()
        patience = LENDING_SECONDS
        while (first := await self.reader.readexactly(1)) == WANTED:
            start, length = SPAN.unpack(await self.reader.readexactly(SPAN.size))
            if not 0 < length <= MOST_AT_ONCE or start + length > remote.size:
                raise ValueError("no part of the file")
            began = loop.time()
            left = (deadline.when() or 0) - began
            deadline.reschedule(None)
            try:
                async with asyncio.timeout(patience):
                    part = await remote.read(start, length)
            except TimeoutError:
                raise Unavailable("The storage is slow; please try again later.") from None
            deadline.reschedule(loop.time() + left)
            patience -= loop.time() - began
            self.writer.write(part)
            await self.writer.drain()
        return first

    def dismiss(self) -> None:
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.writer.close()


@dataclass(frozen=True, slots=True)
class _Server:
    process: Process
    control: socket.socket

    @classmethod
    async def start(cls, command: tuple[str, ...]) -> Self:
        control, theirs = socket.socketpair()
        try:
            with theirs:  # on its standard input; that closes with `control`, and the server goes
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=theirs.fileno(), stdout=DEVNULL, env=ENVIRONMENT
                )
        except BaseException:
            control.close()
            raise
        return cls(process, control)

    async def fork(self) -> _Judge:
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                socket.send_fds(self.control, [b"\0"], [theirs.fileno()])
                theirs.close()  # so that the judge's end is the last one, and its death is heard
                return _Judge(int(await reader.readline()), reader, writer)
            except BaseException:
                writer.close()
                raise

    async def stop(self) -> None:
        self.control.close()
        try:
            async with asyncio.timeout(1):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Inspector:
    """Enter it to start the processes; leave it after the last inspection, and none of them stays."""

    def __init__(self, *, judges: int = JUDGES, seconds: float = SECONDS, server: tuple[str, ...] = SERVER) -> None:
        self._count = judges
        self.seconds = seconds
        self._command = server
        self._server: _Server | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._judges: set[_Judge] = set()
        self._forks: set[asyncio.Task[_Judge]] = set()
        self._ready: asyncio.Queue[asyncio.Task[_Judge]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*[self._prepare() for _ in range(self._count)])
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def inspect(self, source: Source) -> Probe:
        """Waits for a judge. Raises NotAVideo, also when the file is the end of its judge; OSError if there is none.

        What the source raises when it is read, ``Unavailable``, rises from here as it is.
        """
        fork = await self._ready.get()
        try:
            judge = fork.result()
            if judge.gone:  # it died while it waited, and this file is not to blame
                self._dismiss(judge)
                judge = await self._fork()
            try:
                return await judge.judge(source, self.seconds)
            except TimeoutError:
                raise NotAVideo(f"The file could not be read within {self.seconds:g} seconds.") from None
            except (ConnectionError, EOFError, ValueError):
                if self._closed:
                    raise ChildProcessError("the inspector was closed during an inspection") from None
                raise NotAVideo("The file could not be read within the limits of time and memory.") from None
            finally:
                self._dismiss(judge)
        finally:
            if not self._closed:
                self._prepare()

    def _prepare(self) -> asyncio.Task[_Judge]:
        """Another judge, for whoever comes next; the failure to fork one also waits in the queue for him."""
        fork = asyncio.create_task(self._fork())
        self._forks.add(fork)
        fork.add_done_callback(self._forks.discard)
        fork.add_done_callback(self._ready.put_nowait)
        return fork

    async def _fork(self) -> _Judge:
        for _ in range(2):
            server = await self._serving()
            try:
                async with asyncio.timeout(SECONDS_TO_START):
                    judge = await server.fork()
            except (OSError, ValueError):  # the server died, for it forks without fail; another takes its place
                self._server = None if self._server is server else self._server
                await server.stop()
            else:
                self._judges.add(judge)
                return judge
        raise ChildProcessError("no process to judge files could be started")

    async def _serving(self) -> _Server:
        async with self._starting:
            if self._closed:
                raise RuntimeError("the inspector is closed")
            if self._server is None:
                self._server = await _Server.start(self._command)
            return self._server

    def _dismiss(self, judge: _Judge) -> None:
        self._judges.discard(judge)
        judge.dismiss()

    async def _close(self) -> None:
        self._closed = True
        for fork in self._forks:
            fork.cancel()
        await asyncio.gather(*self._forks, return_exceptions=True)
        for judge in list(self._judges):
            self._dismiss(judge)
        if self._server is not None:
            await self._server.stop()
