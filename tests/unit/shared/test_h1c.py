"""The server's own manners towards a connection."""

import asyncio
import gc
import hashlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from shared import h1c, serving

SIZE = 64 * 1_048_576


class Film:
    """Sends far more than any buffer holds; ``ended`` is set when nobody is there to take it any more."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % SIZE)]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(SIZE // 1_048_576):
                await send({"type": "http.response.body", "body": bytes(1_048_576), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.ended.set()


@asynccontextmanager
async def viewer(app: Film) -> AsyncIterator[socket.socket]:
    """Who has asked, and has read nothing yet."""
    config = uvicorn.Config(app, http=h1c.Http1Protocol, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    running = asyncio.create_task(server.serve([listener]))
    loop = asyncio.get_running_loop()
    with socket.socket() as viewer:
        viewer.setblocking(False)
        await loop.sock_connect(viewer, listener.getsockname())
        await loop.sock_sendall(viewer, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        yield viewer
    server.should_exit = True
    await running


async def read_all(viewer: socket.socket, *, pause: float = 0) -> int:
    loop, read = asyncio.get_running_loop(), 0
    try:
        while piece := await loop.sock_recv(viewer, 1_048_576):
            read += len(piece)
            if read >= SIZE:
                break
            await asyncio.sleep(pause)
    except ConnectionResetError:
        pass
    return read


async def test_who_takes_nothing_of_his_answer_is_let_go_with_all_that_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(h1c, "STALL_SECONDS", 0.2)
    film = Film()
    async with viewer(film) as idle:
        async with asyncio.timeout(10):
            await film.ended.wait()
        assert await read_all(idle) < SIZE, "the connection is gone"


async def test_who_is_slow_and_takes_a_little_now_and_then_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h1c, "STALL_SECONDS", 0.5)
    film = Film()
    async with viewer(film) as slow:
        assert await read_all(slow, pause=0.01) >= SIZE


class Reader:
    """Takes bodies as they come: of each its path, its hash, and how many pieces it came in."""

    def __init__(self) -> None:
        self.pieces: dict[str, list[int]] = {}
        self.order: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        digest, more, pieces = hashlib.sha256(), True, self.pieces.setdefault(scope["path"], [])
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            digest.update(message["body"])
            pieces.append(len(message["body"]))
            self.order.append(scope["path"])
            more = message["more_body"]
        answer = digest.hexdigest().encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(answer)), (b"x-path", scope["path"].encode())],
            }
        )
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture(params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


def on(loops: Callable[[], asyncio.AbstractEventLoop], app: Any, caller: Callable[[int], Awaitable[None]]) -> None:
    """``caller`` against a server of ``app``, on a loop of that kind; it is given the port."""

    async def serve() -> None:
        server = uvicorn.Server(
            uvicorn.Config(app, http=h1c.Http1Protocol, lifespan="off", log_config=None, access_log=False)
        )
        listener = socket.create_server(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(30):
            await caller(listener.getsockname()[1])
        server.should_exit = True
        await running

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(serve())


def sized(path: str, body: bytes) -> bytes:
    return f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(path: str, body: bytes, size: int) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def answers(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    bodies = []
    for _ in range(count):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        bodies.append(await reader.readexactly(64))
    return bodies


def test_bodies_arrive_whole_sized_or_in_chunks_one_after_the_other_on_a_connection(
    loops: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    content = random.Random(1).randbytes(5_000_000)
    requests = [
        sized("/a", content),
        sized("/b", b"short"),
        chunked("/c", content, 300_000),
        chunked("/d", content[:200_000], 1),
        chunked("/e", content, 5000),
        sized("/f", content),
    ]
    bodies = [content, b"short", content, content[:200_000], content, content]
    app = Reader()

    async def caller(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        heard = asyncio.create_task(answers(reader, len(requests)))
        for request in requests:  # also those that are not answered yet
            writer.write(request)
            await writer.drain()
        assert await heard == [hashlib.sha256(body).hexdigest().encode() for body in bodies]
        writer.close()
        await writer.wait_closed()

    on(loops, app, caller)
    assert len(app.pieces["/d"]) < 100, "chunks of a byte are not handed on one by one"
    assert max(map(max, app.pieces.values())) <= h1c.MOST_AT_ONCE + h1c.SMALL_PIECE


def test_large_bodies_are_read_in_turns(loops: Callable[[], asyncio.AbstractEventLoop]) -> None:
    content = bytes(16 * 1_048_576)
    app = Reader()

    async def caller(port: int) -> None:
        async def upload(path: str) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sized(path, content))
            await answers(reader, 1)
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(upload("/a"), upload("/b"), upload("/c"))

    on(loops, app, caller)
    middle = app.order[len(app.order) // 4 : len(app.order) // 2]
    assert {"/a", "/b", "/c"} == set(middle), "none of them waits for the end of another"


class Answering:
    """Says the head at once, and the body when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        self.begun.set()
        if scope["path"] == "/fails":
            raise RuntimeError("in the middle")
        if scope["method"] != "HEAD":
            await self.may.wait()
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            await send({"type": "http.response.body", "body": b"def"})
        else:
            await send({"type": "http.response.body", "body": b""})


def test_the_head_of_an_answer_leaves_with_the_beginning_of_its_body(
    loops: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def caller(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.begun.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        app.may.set()
        first = await reader.read(65_536)
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\nabc" in first
        assert first[-3:] == b"def" or await reader.readexactly(3) == b"def"
        writer.close()
        await writer.wait_closed()

    app = Answering()
    on(loops, app, caller)


def test_an_answer_to_head_has_no_body_to_wait_for(loops: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def caller(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"content-length: 6" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    on(loops, Answering(), caller)


def test_an_app_that_fails_after_the_head_ends_the_connection(loops: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def caller(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n")
        said = await reader.read()
        assert b"content-length: 6" in said, "so that nobody takes it for the whole answer"
        writer.close()
        await writer.wait_closed()

    on(loops, Answering(), caller)


def test_who_waits_for_leave_to_send_his_body_gets_it_at_once(loops: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def caller(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert await answers(reader, 1) == [hashlib.sha256(b"abc").hexdigest().encode()]
        writer.close()
        await writer.wait_closed()

    on(loops, Reader(), caller)


def alive(*kinds: type) -> int:
    return sum(isinstance(one, kinds) for one in gc.get_objects())


def test_a_request_leaves_nothing_for_the_collector(loops: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Or every one of them, with what it holds of its body, would wait for a collection that is rare by design."""

    async def caller(port: int) -> None:
        gc.collect()
        gc.disable()
        try:
            cycles, all_of_it = alive(h1c._Cycle), alive(h1c._Cycle, h1c.Http1Protocol)  # what other tests keep
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number in range(20):
                writer.write(sized(f"/{number}", bytes(100_000)))
                await answers(reader, 1)
            assert alive(h1c._Cycle) <= cycles + 1, "the last one belongs to the connection"
            writer.close()
            await writer.wait_closed()
            for _ in range(500):
                if alive(h1c._Cycle, h1c.Http1Protocol) <= all_of_it:
                    break
                await asyncio.sleep(0.01)
            else:
                pytest.fail("what belonged to the connection stayed")
        finally:
            gc.enable()

    on(loops, Reader(), caller)


def test_a_burst_of_callers_is_let_in_within_a_few_rounds_of_the_loop() -> None:
    """In each round all who are in already are served: one a round, the last would wait for all of theirs."""
    arrived: list[asyncio.BaseTransport] = []

    class Arriving(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            arrived.append(transport)

    async def rounds(listener: socket.socket, callers: int) -> int:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(Arriving, sock=one) for one in serving.listeners(listener)]
        count = 0
        while len(arrived) < callers and count < 1000:
            count += 1
            await asyncio.sleep(0)
        for transport in arrived:
            transport.close()
        for server in servers:
            server.close()
        return count

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    callers = [socket.create_connection(listener.getsockname()) for _ in range(96)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(rounds(listener, len(callers))) < 30, "one a round it is a hundred"
    for caller in callers:
        caller.close()
