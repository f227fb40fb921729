"""httpx for large bodies: a connection for each, on which the answer is heard while the body is still on its way.

The client for small calls would copy every byte twice more, and take its time to hear a refusal. What speaks the two
versions of HTTP is in ``h1_transport`` and ``h2_transport``. Answers are small, and arrive whole.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable
from typing import ClassVar

import httpx

from shared.contracts import Chunk

LARGEST_ANSWER = 1_048_576
READ_BYTES = 64 * 1024


class BrokenRules(Exception):
    """What the peer says is not HTTP, or too much of it."""


class AnotherVersion(Exception):
    """The peer speaks another version of HTTP."""


class Answer:
    """What has been heard of it so far."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.complete = False

    def more(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > LARGEST_ANSWER:
            raise BrokenRules("the answer is too large")


class Exchange(ABC):
    """One request and its answer, over a connection that carries nothing else."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer | None = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer or Answer()

    async def answered(self, request: httpx.Request) -> httpx.Response:
        """Raises what the request's body raises; ``OSError`` or ``BrokenRules`` if there is no whole answer."""
        assert isinstance(request.stream, AsyncIterable)
        self._send_head(request)
        answer = asyncio.create_task(self._read_answer())
        body = asyncio.create_task(self._send_body(request.stream))
        try:
            await asyncio.wait([answer, body], return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                body.result()  # a source that fails is told before a peer that hangs up
            await answer
        finally:
            answer.cancel()
            body.cancel()
            await asyncio.gather(answer, body, return_exceptions=True)
        return httpx.Response(self._status(), headers=self._answer.headers, content=bytes(self._answer.body))

    async def _read_answer(self) -> None:
        while not self._answer.complete:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("the peer hung up")
            self._heard(data)

    @abstractmethod
    def _send_head(self, request: httpx.Request) -> None: ...

    @abstractmethod
    async def _send_body(self, body: AsyncIterable[Chunk]) -> None:
        """Until its end, or until the peer takes no more; why not, ``_read_answer`` hears."""

    @abstractmethod
    def _heard(self, data: bytes) -> None:
        """A piece of the answer: what comes of it is in ``_answer``."""

    @abstractmethod
    def _status(self) -> int: ...


class BodyTransport(httpx.AsyncBaseTransport):
    alpn: ClassVar[str]
    exchange: ClassVar[type[Exchange]]

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reader, writer = await self._connect(request)
        try:
            return await self.exchange(reader, writer).answered(request)
        except AnotherVersion:
            raise httpx.UnsupportedProtocol(f"the peer does not speak {self.alpn}") from None
        except (OSError, BrokenRules) as error:
            raise httpx.RemoteProtocolError(f"{type(error).__name__}: {error}") from error
        finally:
            writer.transport.abort()  # what is not sent yet nobody waits for any more

    async def _connect(self, request: httpx.Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = self._context() if request.url.scheme == "https" else None
        port = request.url.port or (443 if tls else 80)
        try:
            async with asyncio.timeout(request.extensions["timeout"].get("connect")):
                reader, writer = await asyncio.open_connection(request.url.host, port, ssl=tls)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        if tls is not None and not self._speaks(writer.get_extra_info("ssl_object")):
            writer.transport.abort()
            raise httpx.UnsupportedProtocol(f"the peer does not speak {self.alpn}")
        return reader, writer

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        self._tls.set_alpn_protocols([self.alpn])
        return self._tls

    def _speaks(self, tls: ssl.SSLObject) -> bool:
        return tls.selected_alpn_protocol() == self.alpn
