"""HTTP/2 without TLS and with prior knowledge (RFC 9113, 3.3): what Cloud Run speaks to a container, and under which no
body has a limit of its own.

It is one more kind of connection of the same uvicorn, so that a service starts, drains and ends as it always does.
Many people's requests share a connection here, so nobody's may hold up another's: a body is acknowledged when its route
has read it, each stream has a window of its own, and the connection's is so large that it never shuts.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes
from starlette.types import ASGIApp, Scope
from uvicorn import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from shared import errors
from shared.errors import HeadTooLarge
from shared.h2_connection import Connection
from shared.h2_exchange import Exchange

log = logging.getLogger(__name__)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# At once on a connection; a front opens another one for more. Also what bounds a connection's memory: each may have
# sent WINDOW bytes that its route has not read.
STREAMS = 128
WINDOW = 256 * 1024
WHOLE_WINDOW = 2**31 - 1
# Larger frames than the usual 16 KiB, for whoever makes use of them: each costs Python the same.
FRAME_BYTES = 64 * 1024
# Taken from the transport, and handed to it, in one piece.
READ_BYTES = 256 * 1024
WRITE_BYTES = 64 * 1024
# More than this is waiting only if somebody asks for pings and the like, and reads none of them.
BACKLOG_BYTES = 1_048_576
# A head of this size, as the protocol counts, costs the connection; a smaller one that is too large, its stream.
LARGEST_HEAD = 256 * 1024
LINGER_SECONDS = 0.5


class Http2Protocol(asyncio.Protocol):
    """One connection, for uvicorn. ``data_received`` gets everything from the preface on.

    ``stall_seconds`` is how long somebody may take nothing of what he asked for.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        head_bytes: int,
        stall_seconds: float,
    ) -> None:
        self.app: ASGIApp = config.loaded_app
        self.server_state = server_state
        self.stall_seconds = stall_seconds
        self._app_state = app_state
        self._head_bytes = head_bytes
        self._keep_alive_seconds = config.timeout_keep_alive
        self._loop = asyncio.get_running_loop()
        self._exchanges: dict[int, Exchange] = {}
        self._paused = self._closing = self._said_all = False
        self._stalled: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.h2 = Connection(
            client=False,
            settings={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: head_bytes,
            },
        )
        self.h2.decoder.max_header_list_size = LARGEST_HEAD

    # ── what asyncio tells ──

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._ends = {"client": get_remote_addr(transport), "server": get_local_addr(transport)}
        self.server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own two kinds
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WHOLE_WINDOW - self.h2.inbound_flow_control_window)
        self._flush()
        self._rest()

    share = READ_BYTES

    def data_received(self, data: bytes | memoryview) -> None:
        try:
            events = self.h2.receive_data(bytes(data))
        except ProtocolError as error:
            log.warning("a connection that broke the rules of HTTP/2 is closed: %s", type(error).__name__)
            self._flush()
            self._lose_all()
            self._transport.close()
            return
        for event in events:
            self._heard(event)
        self._flush()

    def pause_writing(self) -> None:
        self._paused = True
        self._stalled = self._loop.call_later(self.stall_seconds, self._transport.abort)

    def resume_writing(self) -> None:
        self._paused = False
        self._moves_on()
        self._wake_all()

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.connections.discard(self)
        self._moves_on()
        self._stir()
        self._lose_all()

    # ── what uvicorn tells ──

    def shutdown(self) -> None:
        """No new requests; the connection ends when those under way have."""
        if not self._closing:
            self._closing = True
            self.h2.close_connection()
            self._flush()
        self._end_if_done()

    # ── what an exchange tells ──

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self.server_state.default_headers

    def room(self, stream_id: int) -> int:
        window = 0 if self._paused else self.h2.local_flow_control_window(stream_id)
        return max(0, min(window, WRITE_BYTES))  # new settings may leave less than nothing

    def send_head(self, stream_id: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.h2.send_headers(stream_id, headers)
        self._flush()

    def send_data(self, stream_id: int, data: memoryview) -> None:
        frame = self.h2.max_outbound_frame_size
        for start in range(0, len(data), frame):
            self.h2.send_data(stream_id, data[start : start + frame])
        self._flush()

    def end(self, stream_id: int, *, whole_request: bool) -> None:
        self.h2.end_stream(stream_id)
        if not whole_request:
            self.h2.reset_stream(stream_id, ErrorCodes.NO_ERROR)
        self._flush()

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        with suppress(StreamClosedError):  # h2 knows already what it has yet to tell
            self.h2.reset_stream(stream_id, code)
        self._flush()

    def acknowledge(self, stream_id: int, size: int) -> None:
        if size:
            self.h2.acknowledge_received_data(size, stream_id)
            self._flush()

    def finished(self, stream_id: int) -> None:
        del self._exchanges[stream_id]
        self.server_state.total_requests += 1
        self._rest()
        self._end_if_done()

    # ── ──

    def _heard(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event.stream_id, event.headers)
            case DataReceived():
                exchange = self._exchanges.get(event.stream_id)
                if exchange is None or not exchange.body_came(event.data, event.flow_controlled_length):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded() if exchange := self._exchanges.get(event.stream_id):
                exchange.body_ended()
            case StreamReset() if exchange := self._exchanges.get(event.stream_id):
                exchange.lost()
            case WindowUpdated() if exchange := self._exchanges.get(event.stream_id):
                exchange.wake()
            case WindowUpdated() | RemoteSettingsChanged():
                self._wake_all()
            case ConnectionTerminated():
                self._closing = True
                self._end_if_done()

    def _begin(self, stream_id: int, fields: list[tuple[bytes, bytes]]) -> None:
        # An exchange counts until its route has ended: who resets his streams at once starts no more work by it.
        if self._closing or len(self._exchanges) >= STREAMS:
            self.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._stir()
        exchange = self._exchanges[stream_id] = Exchange(self, stream_id, self._scope(fields))
        too_large = sum(len(name) + len(value) for name, value in fields) > self._head_bytes
        refusal = errors.render(HeadTooLarge(f"The request's head is larger than {self._head_bytes} bytes."))
        task = self._loop.create_task(exchange.run(refusal if too_large else self.app))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def _scope(self, fields: list[tuple[bytes, bytes]]) -> Scope:
        pseudo = {name: value for name, value in fields if name.startswith(b":")}
        headers = [(name, value) for name, value in fields if not name.startswith(b":") and name != b"host"]
        host = pseudo.get(b":authority") or next((value for name, value in fields if name == b"host"), b"")
        path, _, query = pseudo[b":path"].partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "scheme": "http",
            "method": pseudo[b":method"].decode("latin-1"),
            "root_path": "",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "headers": [(b"host", host), *headers],
            "state": self._app_state.copy(),
            **self._ends,
        }

    def _flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self._said_all and not self._transport.is_closing():
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > BACKLOG_BYTES:
                self._transport.abort()

    def _wake_all(self) -> None:
        for exchange in self._exchanges.values():
            exchange.wake()

    def _lose_all(self) -> None:
        for exchange in self._exchanges.values():
            exchange.lost()

    def _moves_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()

    def _rest(self) -> None:
        if not self._exchanges:
            self._idle = self._loop.call_later(self._keep_alive_seconds, self.shutdown)

    def _stir(self) -> None:
        if self._idle is not None:
            self._idle.cancel()

    def _end_if_done(self) -> None:
        """Say that this was all, then wait a moment: a close with something unread would take back what was sent."""
        if self._closing and not self._exchanges and not self._said_all and not self._transport.is_closing():
            self._said_all = True
            self._stir()
            self._transport.write_eof()
            self._loop.call_later(LINGER_SECONDS, self._transport.close)
