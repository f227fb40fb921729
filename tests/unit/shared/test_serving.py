"""The server's own manners towards a connection."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from shared import serving

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
    config = uvicorn.Config(app, http=serving._Protocol, lifespan="off", log_config=None, access_log=False)
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
    monkeypatch.setattr(serving, "STALL_SECONDS", 0.2)
    film = Film()
    async with viewer(film) as idle:
        async with asyncio.timeout(10):
            await film.ended.wait()
        assert await read_all(idle) < SIZE, "the connection is gone"


async def test_who_is_slow_and_takes_a_little_now_and_then_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "STALL_SECONDS", 0.5)
    film = Film()
    async with viewer(film) as slow:
        assert await read_all(slow, pause=0.01) >= SIZE
