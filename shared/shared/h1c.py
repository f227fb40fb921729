"""HTTP/1.1 as uvicorn speaks it, over connections that read large pieces, write no more often than they must, and end.

Uvicorn's own protocol does the parsing and keeps the state. What is other here: a byte of a body is copied once less on
its way in, and many bodies are read in turns; an answer's head leaves together with the beginning of its body; what is
not even HTTP gets an error of the same shape as everything else; a request's head has an end; and who takes nothing of
his answer for a while is let go, with what it holds of ours.
"""

import asyncio
import json
from collections import deque
from http import HTTPStatus
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.h2c import PREFACE, Http2Protocol

# Cloud Run's own limit, and four times a browser's longest; what arrives at once may go a little over it.
HEAD_BYTES = 64 * 1024
# What all connections together may keep of bodies that have arrived; each reads its share of it at once.
WAITING_BYTES = 6 * 1_048_576
MOST_AT_ONCE = 1_048_576
LEAST_AT_ONCE = 64 * 1024
# A piece of a body that is smaller joins the one before it: chunks of a byte must not become a million objects.
SMALL_PIECE = 4096
# For what the server has handed to a connection, 1 MiB at most: 9 KB/s.
STALL_SECONDS = 120.0


class _Common:
    """What all connections of an event loop have together."""

    _known: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, "_Common"]] = WeakKeyDictionary()

    def __init__(self) -> None:
        # Who reads into it hands on what he has read before the next one does.
        self.buffer = memoryview(bytearray(MOST_AT_ONCE))
        self.turn = asyncio.Lock()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "_Common":
        if loop not in cls._known:
            cls._known[loop] = cls()
        return cls._known[loop]


class _Receiver(asyncio.BufferedProtocol):
    """Reads into the common buffer: so a byte is copied once less, and more of them come at once."""

    def __init__(self, protocol: "Http1Protocol | Http2Protocol", buffer: memoryview) -> None:
        self.protocol = protocol
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[: self.protocol.share]

    def buffer_updated(self, nbytes: int) -> None:
        self.protocol.data_received(self._buffer[:nbytes])

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.protocol.connection_lost(exc)


class Http1Protocol(HttpToolsProtocol):
    """One connection, for uvicorn."""

    _in_head = True
    _head_bytes = 0
    cycle: "_Cycle"
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._common = _Common.of(self.loop)
        self._receiver = _Receiver(self, self._common.buffer)
        transport.set_protocol(self._receiver)

    @property
    def share(self) -> int:
        return max(LEAST_AT_ONCE, min(WAITING_BYTES // max(1, len(self.tasks)), MOST_AT_ONCE))

    def pause_writing(self) -> None:
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._moves_on()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._moves_on()
        super().connection_lost(exc)
        # Whoever is still at work on a request holds it himself. Held here, connection and request would hold each
        # other, with what has arrived of the body, until a collection.
        self.cycle = None  # type: ignore[assignment]  # as uvicorn has it before the first request
        del self._receiver

    def _moves_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()

    def data_received(self, data: bytes | memoryview) -> None:
        was_in_head, self._turned = self._in_head, False
        super().data_received(data)  # type: ignore[arg-type]  # a view will do
        if was_in_head and not self._turned:  # a piece of a head, and nothing else
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self._refuse(431, f"The request's head is larger than {HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._in_head, self._turned = False, True
        super().on_headers_complete()
        # Uvicorn makes it of its own class; it runs in the next moment only.
        self.cycle.__class__ = _Cycle
        self.cycle.pieces = deque()
        self.cycle.turn = self._common.turn
        self.cycle.transport = _Answer(self.cycle)  # type: ignore[assignment]  # all that a cycle asks of one

    def on_body(self, body: bytes) -> None:
        """As uvicorn's, without its two copies of every byte: what came in one piece is handed on as that piece."""
        if self.cycle.response_complete:
            return
        pieces = self.cycle.pieces
        if len(body) >= SMALL_PIECE:
            pieces.append(body)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += body
        else:
            pieces.append(bytearray(body))
        if not self.flow.read_paused and sum(map(len, pieces)) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _refuse(self, status: int, message: str) -> None:
        phrase = HTTPStatus(status).phrase
        body = json.dumps({"message": message, "code": phrase.lower().replace(" ", "_")}).encode()
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()


class _Answer:
    """The transport of one request. The head waits for the first piece of the body, which is at hand in the next moment
    or is what everybody waits for: "the protocol server must not start sending the response to the client until it has
    received at least one Response Body event" (ASGI, HTTP specification). One packet instead of two.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._before_head: RequestResponseCycle | None = cycle
        self._head = b""
        self._transport = cycle.transport
        self._finish = cycle.on_response
        cycle.on_response = self._finished

    def write(self, data: bytes | memoryview) -> None:
        if self._head:
            self._transport.writelines([self._head, data])
            self._head = b""
        elif self._before_head is not None and self._before_head.response_started:
            self._before_head, self._head = None, bytes(data)
        else:  # more of the body; or 100 Continue
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _finished(self) -> None:
        self._flush()
        self._finish()

    def _flush(self) -> None:
        if self._head:  # and no body: the answer to HEAD
            self._transport.write(self._head)
            self._head = b""


class _Cycle(RequestResponseCycle):
    """One request and its answer. What has arrived of its body waits in ``pieces``; the rest is uvicorn's."""

    pieces: deque[bytes | bytearray]
    turn: asyncio.Lock

    async def receive(self) -> Any:
        """Large bodies are read in turns: one piece of one of them, then everything else that waits. So a small request
        waits for one piece, and not for as many as there are uploads.
        """
        pieces = self.pieces
        if self.flow.read_paused and not pieces:
            async with self.turn:
                await asyncio.sleep(0)
        if not pieces or self.disconnected or self.response_complete:
            message = await super().receive()
            if not pieces or message["type"] != "http.request":
                return message
        return {"type": "http.request", "body": bytes(pieces.popleft()), "more_body": bool(pieces) or self.more_body}


class EitherProtocol(Http1Protocol):
    """HTTP/1.1, unless a connection opens with the preface of HTTP/2."""

    _opening = b""
    _is_http1 = False

    def data_received(self, data: bytes | memoryview) -> None:
        if self._is_http1:
            super().data_received(data)
            return
        self._opening += data
        if self._opening.startswith(PREFACE):
            self._hand_over(self._opening)
        elif not PREFACE.startswith(self._opening):
            self._is_http1 = True
            super().data_received(self._opening)

    def _hand_over(self, data: bytes) -> None:
        protocol = Http2Protocol(
            self.config, self.server_state, self.app_state, head_bytes=HEAD_BYTES, stall_seconds=STALL_SECONDS
        )
        self.connections.discard(self)
        self._receiver.protocol = protocol
        protocol.connection_made(self.transport)
        protocol.data_received(data)
