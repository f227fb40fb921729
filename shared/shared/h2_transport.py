"""httpx over HTTP/2 for large bodies: prior knowledge for http://, ALPN for https://.

httpx's own HTTP/2 does not hear a refusal in the middle of a body, and never tells a peer that a request was given up.
Here every request has a connection of its own: no upload waits for another one's flow control, and closing it frees the
peer. Answers are small, and arrive whole.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable

import httpx
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from shared.h2_connection import OF_ONE_CONNECTION, Connection

LARGEST_ANSWER = 1_048_576
READ_BYTES = 64 * 1024


class Http2Transport(httpx.AsyncBaseTransport):
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reader, writer = await self._connect(request)
        try:
            return await _Exchange(reader, writer).answered(request)
        except NotHttp2:
            raise httpx.UnsupportedProtocol("the peer does not speak HTTP/2") from None
        except (OSError, ProtocolError) as error:
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
        if tls is not None and writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            writer.transport.abort()
            raise httpx.UnsupportedProtocol("the peer does not speak HTTP/2")
        return reader, writer

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        self._tls.set_alpn_protocols(["h2"])
        return self._tls


class NotHttp2(Exception):
    """The peer answers in HTTP/1."""


class _Exchange:
    """One request and its answer, over a connection that carries nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = Connection(client=True, settings={SettingCodes.ENABLE_PUSH: 0})
        self._stream_id = self._h2.get_next_available_stream_id()
        self._may_send = asyncio.Event()
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._complete = False

    async def answered(self, request: httpx.Request) -> httpx.Response:
        """Raises what the request's body raises; ``OSError`` or ``ProtocolError`` if there is no whole answer."""
        assert isinstance(request.stream, AsyncIterable)
        self._h2.initiate_connection()
        self._h2.send_headers(self._stream_id, _fields(request))
        self._flush()
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
        status = next(int(value) for name, value in self._headers if name == b":status")
        headers = [(name, value) for name, value in self._headers if not name.startswith(b":")]
        return httpx.Response(status, headers=headers, content=bytes(self._body))

    async def _read_answer(self) -> None:
        while not self._complete:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("the peer hung up")
            if not self._headers and data.startswith(b"HTTP/1"):  # to h2 it is the beginning of a long frame
                raise NotHttp2
            for event in self._h2.receive_data(data):
                self._heard(event)
            self._flush()
            self._may_send.set()

    def _heard(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                self._headers = event.headers
            case DataReceived():
                self._body += event.data
                if len(self._body) > LARGEST_ANSWER:
                    raise ProtocolError("the answer is too large")
                self._h2.acknowledge_received_data(event.flow_controlled_length, self._stream_id)
            case StreamEnded():
                self._complete = True
            case StreamReset() if not self._complete:  # behind an answer it only says that it has heard enough
                raise ConnectionResetError(f"the peer gave up: {event.error_code}")
            case ConnectionTerminated() if event.error_code != ErrorCodes.NO_ERROR:
                raise ConnectionResetError(f"the peer gave up: {event.error_code}")

    async def _send_body(self, body: AsyncIterable[bytes]) -> None:
        """Until its end, or until the peer takes no more; why not, ``_read_answer`` hears."""
        async for chunk in body:
            if not await self._sent(memoryview(chunk)):
                return
        try:
            self._h2.end_stream(self._stream_id)
            self._flush()
        except ProtocolError:
            return

    async def _sent(self, piece: memoryview) -> bool:
        try:
            while piece:
                window = self._h2.local_flow_control_window(self._stream_id)
                room = min(window, self._h2.max_outbound_frame_size)
                if room <= 0:
                    self._may_send.clear()
                    await self._may_send.wait()
                    continue
                self._h2.send_data(self._stream_id, piece[:room])
                piece = piece[room:]
                self._flush()
                await self._writer.drain()
        except (OSError, ProtocolError):
            return False
        return True

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())


def _fields(request: httpx.Request) -> list[tuple[bytes, bytes]]:
    fields = [(name.lower(), value) for name, value in request.headers.raw]
    authority = next(value for name, value in fields if name == b"host")
    return [
        (b":method", request.method.encode()),
        (b":scheme", request.url.scheme.encode()),
        (b":authority", authority),
        (b":path", request.url.raw_path),
        *[(name, value) for name, value in fields if name != b"host" and name not in OF_ONE_CONNECTION],
    ]
