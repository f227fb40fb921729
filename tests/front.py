"""A proxy in front of an emulator of Google Cloud Storage: what the emulators lack, and where a test may strike.

Neither emulator keeps a session's ``ifGenerationMatch``, answers again for a session that is complete, or lets one be
cancelled. The front does, as Google's documents have it.

    front.at(2, Cut(kept=262_144))    the second part of an upload breaks off, and so much of it had arrived
    front.at(2, Answer(503))          or is answered like that, and never seen
"""

import asyncio
import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit


@dataclass(frozen=True)
class Cut:
    """The connection breaks before the answer; ``kept`` bytes of this part had arrived, None for all of it."""

    kept: int | None = 0


@dataclass(frozen=True)
class Answer:
    """The bucket sees nothing of it."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Silence:
    """The bucket sees nothing of it, and nobody ever answers."""


@dataclass(frozen=True)
class Twist:
    """It is done, and the bucket says something else of it."""

    changes: dict[str, str]


Fault = Cut | Answer | Silence | Twist


@dataclass
class Call:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def session(self) -> str | None:
        return self.query.get("upload_id")

    @property
    def span(self) -> str:
        return self.headers.get("content-range", "")


@dataclass
class Upload:
    """A session: the object it is for, and the answer that completed it."""

    path: str
    only_new: bool
    answer: bytes | None = None
    cancelled: bool = False


class Front:
    """A proxy, for one emulator. ``calls`` is every call so far."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refuse: int | None = None
        """A status for everything that is no part of an upload."""
        self.upstream = 0
        self._strikes: dict[int, Fault] = {}
        self._parts = 0
        self._uploads: dict[str, Upload] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._one = asyncio.Lock()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="front")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def at(self, part: int, *faults: Fault) -> None:
        """Strike the ``part``-th PUT into a session from now on, counted from 1, and with more faults those behind."""
        self._strikes.update({self._parts + part + number: fault for number, fault in enumerate(faults)})

    def forget(self) -> None:
        self.calls.clear()
        self._strikes.clear()
        self.refuse = None

    @property
    def parts(self) -> list[str]:
        """What the PUTs were about, without ``bytes``."""
        return [call.span.removeprefix("bytes ") for call in self.calls if call.method == "PUT"]

    async def reached(self, part: int) -> None:
        """Wait until so many PUTs have come since ``forget``."""
        async with asyncio.timeout(5):
            while len(self.parts) < part:  # noqa: ASYNC110  they come in another thread
                await asyncio.sleep(0.005)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                call = await _read(reader)
                self.calls.append(call)
                writer.write(await self._answered(call))
                await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answered(self, call: Call) -> bytes:
        """Nothing, for a connection that breaks."""
        if call.session is None or call.method == "POST":
            if self.refuse is not None:
                return answer(self.refuse)
            answered = await self._pass_on(call)
            if call.query.get("uploadType") == "resumable":
                self._begun(call, answered)
            return answered
        upload = self._uploads[call.session]
        if call.method == "DELETE":
            upload.cancelled = True
            return answer(499)
        self._parts += 1
        match self._strikes.pop(self._parts, None):
            case Answer(status, body):
                return answer(status, body)
            case Silence():
                await self._end.wait()
                return b""
            case Cut(None):
                await self._take(upload, call)
                return b""
            case Cut(kept):
                if kept:
                    first = int(call.span.removeprefix("bytes ").split("-")[0])
                    whole = f"bytes {first}-{first + kept - 1}/*"
                    await self._pass_on(Call("PUT", call.target, {"content-range": whole}, call.body[:kept]))
                return b""
            case Twist(changes):
                told = json.loads((await self._take(upload, call)).partition(b"\r\n\r\n")[2])
                return answer(200, told | changes)
        return await self._take(upload, call)

    def _begun(self, call: Call, answered: bytes) -> None:
        location = re.search(rb"(?i)\r\nlocation: *(\S+)", answered)
        assert location, answered
        name = call.query.get("name") or json.loads(call.body)["name"]
        session = parse_qs(urlsplit(location[1].decode()).query)["upload_id"][0]
        path = f"{urlsplit(call.target).path.removeprefix('/upload')}/{quote(name, safe='')}"
        self._uploads[session] = Upload(path, call.query.get("ifGenerationMatch") == "0")

    async def _take(self, upload: Upload, call: Call) -> bytes:
        """https://cloud.google.com/storage/docs/performing-resumable-uploads"""
        if upload.cancelled:
            return answer(499)
        async with self._one:
            if upload.answer is None and upload.only_new and not call.span.endswith("*"):
                there = await self._pass_on(Call("GET", upload.path, {}, b""))
                if there.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
                    return answer(412)
            if upload.answer is None:
                answered = await self._pass_on(call)
                if b" 200 " not in answered[:16]:
                    # Of a session that has nothing yet, one emulator says that it has the first byte.
                    return re.sub(rb"(?i)\r\nrange: bytes=0-0(?=\r\n)", b"", answered)
                upload.answer = answered
            return upload.answer

    async def _pass_on(self, call: Call) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            kept = {name: value for name, value in call.headers.items() if name not in ("connection", "host")}
            headers = kept | {"host": f"127.0.0.1:{self.port}", "connection": "close"}
            headers |= {"content-length": str(len(call.body))} if call.body or call.method in ("PUT", "POST") else {}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"{call.method} {call.target} HTTP/1.1\r\n{lines}\r\n".encode() + call.body)
            return await reader.read()
        finally:
            writer.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._listener)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._end.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


def answer(status: int, body: dict[str, Any] | None = None) -> bytes:
    content = json.dumps(body or {"error": {"code": status, "message": "as the test wants it"}}).encode()
    head = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + content


async def _read(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Call(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
