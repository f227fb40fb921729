"""One request of an HTTP/2 connection and its answer: ASGI's ``receive`` and ``send`` over one stream."""

import asyncio
import logging
from typing import Protocol

from h2.errors import ErrorCodes
from starlette.types import ASGIApp, Message, Scope

from shared.h2_connection import OF_ONE_CONNECTION

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What an exchange asks of its connection, and tells it."""

    stall_seconds: float
    """How long somebody may take nothing of what he asked for."""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...

    def room(self, stream_id: int) -> int:
        """How many bytes may be sent at the moment."""
        ...

    def send_head(self, stream_id: int, headers: list[tuple[bytes, bytes]]) -> None: ...

    def send_data(self, stream_id: int, data: memoryview) -> None:
        """No more than there is ``room`` for."""
        ...

    def end(self, stream_id: int, *, whole_request: bool) -> None:
        """The answer is complete; what is left of a request that was not read to its end need not be sent."""
        ...

    def reset(self, stream_id: int, code: ErrorCodes) -> None: ...

    def acknowledge(self, stream_id: int, size: int) -> None: ...

    def finished(self, stream_id: int) -> None: ...


class Exchange:
    """A request and its answer: ASGI's ``receive`` and ``send`` over one stream."""

    def __init__(self, connection: Connection, stream_id: int, scope: Scope) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._scope = scope
        self._body: list[bytes] = []
        self._unacknowledged = 0
        self._more_body = True
        self._asks_first = (b"expect", b"100-continue") in scope["headers"]
        self._news = asyncio.Event()
        self._may_write = asyncio.Event()
        self._gone = self._started = self._complete = False

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException:
            log.exception("the application failed")
        finally:
            self._acknowledge()
            if not self._complete and not self._gone:
                self._reset(ErrorCodes.INTERNAL_ERROR)
            self._connection.finished(self._stream_id)

    def body_came(self, data: bytes, size: int) -> bool:
        """Whether anybody will read it; if so, it is acknowledged then."""
        if self._complete or self._gone:
            return False
        self._body.append(data)
        self._unacknowledged += size
        self._news.set()
        return True

    def body_ended(self) -> None:
        self._more_body = False
        self._news.set()

    def lost(self) -> None:
        self._gone = True
        self._news.set()
        self.wake()

    def wake(self) -> None:
        self._may_write.set()

    async def receive(self) -> Message:
        if self._asks_first and not self._started and not self._gone:
            self._asks_first = False
            self._connection.send_head(self._stream_id, [(b":status", b"100")])
        if not self._gone and not self._complete:
            await self._news.wait()
            self._news.clear()
        if self._gone or self._complete:
            return {"type": "http.disconnect"}
        body, self._body = b"".join(self._body), []
        self._acknowledge()
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    async def send(self, message: Message) -> None:
        """As with uvicorn's, what goes to nobody any more goes nowhere."""
        if self._gone:
            return
        if self._complete:
            raise RuntimeError(f"{message['type']} after the answer was complete")
        if not self._started:
            self._started = True
            status = (b":status", b"%d" % message["status"])
            headers = [(name.lower(), value) for name, value in message.get("headers", [])]
            sent = [(name, value) for name, value in headers if name not in OF_ONE_CONNECTION]
            self._connection.send_head(self._stream_id, [status, *self._connection.default_headers, *sent])
            return
        if self._scope["method"] != "HEAD":
            await self._write(memoryview(message.get("body", b"")))
        if not message.get("more_body", False) and not self._gone:
            self._complete = True
            self._connection.end(self._stream_id, whole_request=not self._more_body)
            self._news.set()

    async def _write(self, body: memoryview) -> None:
        while body and not self._gone:
            room = self._connection.room(self._stream_id) or await self._room()
            if room:
                self._connection.send_data(self._stream_id, body[:room])
                body = body[room:]

    async def _room(self) -> int:
        """Wait for it; 0 when there is nobody to write for any more."""
        try:
            async with asyncio.timeout(self._connection.stall_seconds):
                while not self._gone:
                    if room := self._connection.room(self._stream_id):
                        return room
                    self._may_write.clear()
                    await self._may_write.wait()
        except TimeoutError:
            self._reset(ErrorCodes.CANCEL)
        return 0

    def _reset(self, code: ErrorCodes) -> None:
        self._gone = True
        self._connection.reset(self._stream_id, code)
        self._news.set()

    def _acknowledge(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0
        self._connection.acknowledge(self._stream_id, size)
