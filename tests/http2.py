"""HTTP/2 by hand, with prior knowledge: what no well-behaved client does, and several requests over one connection.

with Http2Wire(port) as wire:
    upload = wire.request("POST", "/api/videos/upload", headers)
    upload.send(body)       # as far as the service lets it, within some seconds; how many bytes went
    upload.end()
    upload.answer().status
"""

import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

from e2e.cloudrun import USE_HTTP2
from e2e.services import Services
from e2e.wire import Answer, Wire
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError

SECONDS = 20.0


class Http2Wire:
    """One connection. ``last_words`` is the peer's GOAWAY."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = f"{host}:{port}"
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.requests: dict[int, Request] = {}
        self.last_words: ErrorCodes | int | None = None
        self.is_closed = False
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, *, ended: bool = False
    ) -> "Request":
        request = Request(self, self.h2.get_next_available_stream_id(), method)
        self.requests[request.stream_id] = request
        pseudo = {":method": method, ":scheme": "http", ":authority": self.host, ":path": path}
        fields = [(name.lower().encode(), value.encode()) for name, value in (pseudo | dict(headers or {})).items()]
        self.h2.send_headers(request.stream_id, fields, end_stream=ended)
        self.flush()
        return request

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("GET", path, headers, ended=True).answer()

    def listen(self, seconds: float) -> bool:
        """Take what comes within that time; False if nothing does."""
        self.socket.settimeout(seconds or 0.000_001)
        try:
            data = self.socket.recv(1_048_576)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self.is_closed = True
            return False
        for event in self.h2.receive_data(data):
            if isinstance(event, ConnectionTerminated):
                self.last_words = event.error_code
            elif request := self.requests.get(getattr(event, "stream_id", 0) or 0):
                request.heard(event)
        self.flush()
        return True

    def flush(self) -> None:
        self.socket.settimeout(SECONDS)
        with suppress(ConnectionError):
            self.socket.sendall(self.h2.data_to_send())

    def hang_up(self) -> None:
        """Gone without a word, as by a crash or out of reach."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Http2Call:
    """One request over a connection of its own, as ``Wire`` has it."""

    def __init__(self, port: int) -> None:
        self.wire = Http2Wire(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.socket.close()

    def send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        self.request = self.wire.request(method, path, headers, ended=method == "GET")

    def send(self, body: bytes) -> None:
        self.request.send(body)

    def answer(self) -> Answer:
        return self.request.answer()

    def end(self) -> None:
        self.request.end()

    def begins(self) -> bool:
        """Whether an answer does."""
        self.request.reads = False
        while self.request.status is None:
            assert self.wire.listen(SECONDS), "nothing comes"
        return True

    def reset(self) -> None:
        self.wire.hang_up()


def wire_to(services: Services, name: str) -> Wire | Http2Call:
    """For one request, in the way that this set of services is spoken to."""
    front = services.cloud_run
    return Http2Call(front.ports[name]) if front is not None and name in USE_HTTP2 else Wire(services[name])


class Request:
    """``reads`` is whether its answer's bytes are acknowledged: who does not read leaves his window shut."""

    def __init__(self, wire: Http2Wire, stream_id: int, method: str) -> None:
        self.wire = wire
        self.stream_id = stream_id
        self.method = method
        self.reads = True
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.is_complete = False
        self.reset_by_peer: ErrorCodes | int | None = None

    @property
    def is_over(self) -> bool:
        return self.is_complete or self.reset_by_peer is not None or self.wire.is_closed

    def heard(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                self.headers = {name.decode(): value.decode() for name, value in event.headers}
                self.status = int(self.headers.pop(":status"))
            case DataReceived():
                self.body += event.data
                if self.reads:
                    self.wire.h2.acknowledge_received_data(event.flow_controlled_length, self.stream_id)
            case StreamEnded():
                self.is_complete = True
            case StreamReset():
                self.reset_by_peer = event.error_code

    def send(self, body: bytes, patience: float = SECONDS) -> int:
        """Until the service has taken nothing for so many seconds, or wants no more; how many bytes went."""
        rest = memoryview(body)
        moved = time.monotonic()
        while rest and not self.is_over:
            room = min(self._window(), self.wire.h2.max_outbound_frame_size)
            if room > 0:
                self.wire.h2.send_data(self.stream_id, rest[:room])
                self.wire.flush()
                rest, moved = rest[room:], time.monotonic()
            elif not self.wire.listen(min(patience, 0.2)) and time.monotonic() - moved > patience:
                break
            self.wire.listen(0)
        return len(body) - len(rest)

    def end(self) -> None:
        with suppress(ProtocolError):  # the service has ended it
            self.wire.h2.end_stream(self.stream_id)
        self.wire.flush()

    def reset(self) -> None:
        self.wire.h2.reset_stream(self.stream_id, ErrorCodes.CANCEL)
        self.wire.flush()

    def answer(self, seconds: float = SECONDS) -> Answer:
        deadline = time.monotonic() + seconds
        while not self.is_over:
            assert time.monotonic() < deadline, "no whole answer in time"
            self.wire.listen(0.2)
        assert self.is_complete, f"no whole answer: {self.reset_by_peer or 'the connection is closed'}"
        assert self.status is not None
        return Answer(self.status, self.headers, bytes(self.body))

    def _window(self) -> int:
        try:
            return self.wire.h2.local_flow_control_window(self.stream_id)
        except StreamClosedError:
            return 0
