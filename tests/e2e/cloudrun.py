"""What stands before each service on Cloud Run: a front that cuts large bodies off over HTTP/1, and has no limit over
HTTP/2. To a container that is deployed with ``--use-http2``, which is video-service alone, it speaks HTTP/2 with prior
knowledge, whatever its caller speaks; to the other four HTTP/1.1, and so do their callers here.

https://docs.cloud.google.com/run/quotas: 32 MiB for a request over HTTP/1, and for an answer that tells its length.
Without a certificate it takes HTTP/2 with prior knowledge; Cloud Run takes it over TLS alone.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import httpx

LIMIT = 32 * 1_048_576
USE_HTTP2 = {"video"}
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
PIECE = 256 * 1024
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # or each client makes one


class CloudRun:
    """One front for each of ``ports``, which may still change, at ``urls``.

    ``certificate`` is the files of one and of its key: callers come over TLS then.
    """

    def __init__(self, ports: dict[str, int], certificate: tuple[Path, Path] | None = None) -> None:
        self.urls: dict[str, str] = {}
        self.ports: dict[str, int] = {}
        self.cut = 0
        """How many requests and answers were too large."""
        self.spoken: dict[str, set[str]] = {name: set() for name in ports}
        """What the callers of each have spoken."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloud-run")
        self._connections: set[asyncio.Task[None]] = set()
        self._listeners: list[tuple[str, socket.socket]] = []
        self._servers: list[asyncio.Server] = []
        self._to = ports
        self._certificate = certificate
        for name in ports:
            listener = socket.create_server(("127.0.0.1", 0))
            self._listeners.append((name, listener))
            self.ports[name] = listener.getsockname()[1]
            self.urls[name] = f"http{'s' if certificate else ''}://127.0.0.1:{self.ports[name]}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        for name, listener in self._listeners:
            self._servers.append(await asyncio.start_server(self._connected(name), sock=listener, ssl=self._tls(name)))

    def _tls(self, name: str) -> ssl.SSLContext | None:
        if self._certificate is None:
            return None
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*self._certificate)
        tls.set_alpn_protocols(["h2", "http/1.1"] if name in USE_HTTP2 else ["http/1.1"])
        return tls

    def _connected(
        self, name: str
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                with suppress(OSError, asyncio.IncompleteReadError, httpx.HTTPError):
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.spoken[name].add("HTTP/2" if head == PREFACE else "HTTP/1.1")
                    if head == PREFACE:
                        await self._http2(head, self._to[name], reader, writer)
                    else:
                        await self._http1(head, name, reader, writer)
            finally:
                self._connections.discard(task)
                writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

        return connected

    async def _http2(self, head: bytes, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", port)
        to_there.write(head)
        ways = [asyncio.create_task(_pass(reader, to_there)), asyncio.create_task(_pass(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(ways, timeout=0.2)  # one side has ended; the other may have a word left
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_there.transport.abort()

    async def _http1(self, head: bytes, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call; then it hangs up."""
        url, http2 = f"http://127.0.0.1:{self._to[name]}", name in USE_HTTP2
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(headers, reader)
        if body is None:
            await _answer(writer, 413)
            return
        kept = {name: value for name, value in headers.items() if name not in HOP}
        # A client for each call: nothing of one stands in the way of another.
        async with (
            httpx.AsyncClient(http1=not http2, http2=http2, timeout=60, trust_env=False, verify=NO_TLS) as client,
            client.stream(method, url + target, headers=kept, content=body) as response,
        ):
            length = response.headers.get("content-length")
            if method != "HEAD" and length is not None and int(length) >= LIMIT:
                self.cut += 1
                await _answer(writer, 500)
                return
            fields = [(name, value) for name, value in response.headers.items() if name not in HOP]
            bare = method == "HEAD" or response.status_code in (204, 304)
            chunked = length is None and not bare
            fields += [("transfer-encoding", "chunked")] if chunked else [("content-length", length)] if length else []
            writer.write(_head(response.status_code, [*fields, ("connection", "close")]))
            async for piece in response.aiter_raw():
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
            writer.write(b"0\r\n\r\n" if chunked else b"")
            await writer.drain()

    async def _body(self, headers: dict[str, str], reader: asyncio.StreamReader) -> bytes | None:
        """None as soon as it is too long."""
        body = bytearray()
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        left = int(headers.get("content-length", 0))
        while True:
            if chunked and left == 0:
                left = int(await reader.readline(), 16)
                if left == 0:
                    await reader.readline()
                    return bytes(body)
            if len(body) + left > LIMIT:
                self.cut += 1
                return None
            body += await reader.readexactly(left)
            if not chunked:
                return bytes(body)
            await reader.readexactly(2)
            left = 0

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()


HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "upgrade", "expect", "te"}


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()


def _head(status: int, fields: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _answer(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(_head(status, [("content-length", "0"), ("connection", "close")]))
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    await asyncio.sleep(0.2)  # lest what is still coming takes the answer back
