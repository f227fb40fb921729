"""Large bodies over HTTP/2: prior knowledge for http://, ALPN for https://.

httpx's own HTTP/2 does not hear a refusal in the middle of a body, and never tells a peer that a request was given up.
Here every request has a connection of its own: no upload waits for another one's flow control, and closing it frees the
peer.
"""

import asyncio
from collections.abc import AsyncIterable

import httpx
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from shared.body_transport import AnotherVersion, BodyTransport, BrokenRules, Exchange
from shared.contracts import Chunk
from shared.h2_connection import OF_ONE_CONNECTION, Connection


class Http2Exchange(Exchange):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._h2 = Connection(client=True, settings={SettingCodes.ENABLE_PUSH: 0})
        self._stream_id = self._h2.get_next_available_stream_id()
        self._may_send = asyncio.Event()

    def _send_head(self, request: httpx.Request) -> None:
        self._h2.initiate_connection()
        self._h2.send_headers(self._stream_id, _fields(request))
        self._flush()

    def _heard(self, data: bytes) -> None:
        if not self._answer.headers and data.startswith(b"HTTP/1"):  # to h2 it is the beginning of a long frame
            raise AnotherVersion
        try:
            for event in self._h2.receive_data(data):
                self._happened(event)
            self._flush()
        except ProtocolError as error:
            raise BrokenRules(f"{type(error).__name__}: {error}") from error
        self._may_send.set()

    def _happened(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                self._status_code = next(int(value) for name, value in event.headers if name == b":status")
                self._answer.headers = [(name, value) for name, value in event.headers if not name.startswith(b":")]
            case DataReceived():
                self._answer.more(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, self._stream_id)
            case StreamEnded():
                self._answer.complete = True
            case StreamReset() if not self._answer.complete:  # behind an answer it only says that it has heard enough
                raise ConnectionResetError(f"the peer gave up: {event.error_code}")
            case ConnectionTerminated() if event.error_code != ErrorCodes.NO_ERROR:
                raise ConnectionResetError(f"the peer gave up: {event.error_code}")

    def _status(self) -> int:
        return self._status_code

    async def _send_body(self, body: AsyncIterable[Chunk]) -> None:
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


class Http2Transport(BodyTransport):
    alpn = "h2"
    exchange = Http2Exchange


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
