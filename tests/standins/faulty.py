"""Faults between a service and PostgREST: a proxy that strikes at a certain call, as networks and gateways do.

    with Faulty(standin.url) as faulty:
        … a service whose SUPABASE_URL is faulty.url …
        strike = faulty.at("POST", "/rest/v1/rpc/videos_add", RESET, after=True)
        … it adds a video, and the connection breaks …
        assert strike.times_left == 0

With ``after`` the call reaches PostgREST first, which does it and answers; else it never arrives. It is struck with
RESET, with SILENCE (no answer ever, and the connection stays), or with one of the answers below instead of the real
one. ``refusing`` is when nobody listens. (``e2e.faults`` is between services, where it is a process that is struck.)
"""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from ports import HeldPort

Answer = Callable[[bytes], bytes]
"""Makes an answer, head and body, of the real one, which is empty if the call did not get that far."""

RESET: Literal["reset"] = "reset"
SILENCE: Literal["silence"] = "silence"
What = Answer | Literal["reset", "silence"]


def answer(status: str, content_type: str, body: bytes) -> Answer:
    """Always this one."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return lambda _: head.encode() + body


BAD_GATEWAY = answer("502 Bad Gateway", "text/html", b"<html><body><h1>502 Bad Gateway</h1></body></html>")
UNAVAILABLE = answer("503 Service Unavailable", "text/plain", b"upstream connect error")
INVALID_KEY = answer("401 Unauthorized", "application/json", b'{"message":"Invalid API key"}')
NULL = answer("200 OK", "application/json", b"null")
EMPTY_LIST = answer("200 OK", "application/json", b"[]")
TEXT = answer("200 OK", "application/json", b'"text"')


def cut_short(real: bytes) -> bytes:
    """Half of the body under a head that promises all of it; then the connection ends."""
    head, body = _split(real)
    return head + body[: len(body) // 2]


def cut_clean(real: bytes) -> bytes:
    """Half of the body, in chunks that end as they should: nothing but the JSON tells."""
    head, body = _split(real)
    half = body[: len(body) // 2]
    head = re.sub(rb"(?i)\r\ncontent-length:[^\r]*", b"\r\nTransfer-Encoding: chunked", head)
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(half), half)


@dataclass
class Strike:
    method: str
    path: str
    what: What
    after: bool
    calls_before: int
    times_left: int

    def is_due(self, method: str, path: str) -> bool:
        """Whether this call is struck; told of each call once."""
        if not self.times_left or method != self.method or not re.match(self.path, path):
            return False
        if self.calls_before:
            self.calls_before -= 1
            return False
        self.times_left -= 1
        return True


class Faulty:
    """``url`` is the proxy's own; ``calls`` is every call so far: its method and its path with the query."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._there = (parts.hostname, parts.port)
        self.calls: list[tuple[str, str]] = []
        self._strikes: list[Strike] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._port = HeldPort()
        self._run(self._open())
        self.url = f"http://127.0.0.1:{self._port.number}"
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._port.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def at(self, method: str, path: str, what: What, *, after: bool = False, nth: int = 1, times: int = 1) -> Strike:
        """At the ``nth`` such call from now on and ``times`` in a row; ``path`` is a pattern of its beginning."""
        strike = Strike(method, path, what, after or what in (cut_short, cut_clean), nth - 1, times)
        self._strikes.append(strike)
        return strike

    def forget(self) -> None:
        """All strikes and calls."""
        self._strikes.clear()
        self.calls.clear()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens, and what was connected is so no more."""
        self._run(self._close())
        try:
            yield
        finally:
            self._run(self._open())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port.number, reuse_address=True)

    async def _close(self) -> None:
        self._server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # Cancelled it is by us alone, and Python 3.11 would print so.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one_call(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether another one may follow on this connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        method, path = head.decode("latin-1").split(" ", 2)[:2]
        self.calls.append((method, path))
        strike = next((strike for strike in self._strikes if strike.is_due(method, path)), None)
        real = b"" if strike and not strike.after else await self._ask(head, body)
        if strike is None:
            writer.write(real)
        elif strike.what == "reset":
            _reset(writer)
            return False
        elif strike.what == "silence":
            await reader.read()  # until the caller gives up
            return False
        else:
            writer.write(strike.what(real))
        await writer.drain()
        return strike is None or strike.what is not cut_short

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        """Over a connection of its own: then the end of the answer is the end of what comes."""
        reader, writer = await asyncio.open_connection(*self._there)
        try:
            head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
            writer.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
            return re.sub(rb"(?i)\r\nconnection: close", b"", await reader.read(), count=1)
        finally:
            writer.close()


def _split(real: bytes) -> tuple[bytes, bytes]:
    head, separator, body = real.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), f"there is nothing to cut: {head!r}"
    return head + separator, body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Not a polite end but RST, as from a process that was killed."""
    connected = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
