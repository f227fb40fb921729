"""Large bodies over both versions of HTTP: what ``Peer.send`` promises, towards a real server of ours."""

import asyncio
import gc
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from certificates import certify
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from shared import h1c, h2_transport, http
from shared.body_transport import Exchange
from shared.errors import PeerRefused, TooLarge, Unavailable
from shared.http import Peer, open_body_client, open_client

Listen = Callable[[Any], Awaitable[str]]
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
MIB = 1_048_576


class Taken(BaseModel):
    sha256: str
    version: str


class Receiver:
    """A peer; it does what the path says. ``ended`` counts requests that are over, ``gone`` callers who left."""

    def __init__(self) -> None:
        self.read = self.ended = self.gone = 0
        self.connections: set[object] = set()
        self.go_on = asyncio.Event()
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.connections.add(scope["client"])
        try:
            await getattr(self, scope["path"].strip("/"))(receive, send)
        finally:
            self.ended += 1

    async def take(self, receive: Receive, send: Send) -> None:
        digest = hashlib.sha256()
        async for piece in self._body(receive):
            digest.update(piece)
        taken = Taken(sha256=digest.hexdigest(), version=self.scope["http_version"])
        await self._answer(send, 200, taken.model_dump_json().encode())

    async def take_late(self, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.03)
        await self.take(receive, send)

    async def refuse(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._answer(send, 413, b'{"message": "Too much.", "code": "quota"}')

    async def stand_still(self, receive: Receive, send: Send) -> None:
        await self.go_on.wait()
        await self.take(receive, send)

    async def fail(self, receive: Receive, send: Send) -> None:
        await receive()
        raise RuntimeError("as the test wants it")

    async def chatter(self, receive: Receive, send: Send) -> None:
        await self._answer(send, 200, bytes(2 * MIB))

    async def _body(self, receive: Receive) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                raise ConnectionError
            self.read += len(message["body"])
            yield message["body"]
            more = message["more_body"]

    async def _answer(self, send: Send, status: int, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        with suppress(ConnectionError):
            await send({"type": "http.response.body", "body": body})


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@asynccontextmanager
async def serving_of(receiver: Receiver, **more: Any) -> AsyncIterator[tuple[uvicorn.Server, str]]:
    config = uvicorn.Config(
        receiver,
        http=h1c.EitherProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        **more,
    )
    config.load()
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
        receiver.go_on.set()
        server.should_exit = True
        await running


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[str]:
    async with serving_of(receiver) as (_, url):
        yield url


@pytest.fixture(params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    async with open_body_client(http2=request.param) as client:
        yield client


@pytest.fixture
async def client2() -> AsyncIterator[httpx.AsyncClient]:
    async with open_body_client(http2=True) as client:
        yield client


def peer_of(client: httpx.AsyncClient, url: str) -> Peer:
    return Peer(client, "some-peer", url, lambda: "our-token")


async def chunks(total: int, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, total, size):
        yield bytes(min(size, total - start))


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def digest(total: int) -> str:
    return hashlib.sha256(bytes(total)).hexdigest()


async def test_a_body_arrives_whole(client: httpx.AsyncClient, receiver: Receiver, url: str) -> None:
    taken = await peer_of(client, url).send("/take", chunks(5 * MIB + 1), Taken)
    assert taken.sha256 == digest(5 * MIB + 1)
    assert (await peer_of(client, url).send("/take", chunks(0), Taken)).sha256 == digest(0)
    headers = dict(receiver.scope["headers"])
    assert headers[b"authorization"] == b"Bearer our-token"
    assert headers[b"traceparent"]
    assert headers[b"host"] == url.removeprefix("http://").encode()


async def test_a_body_that_is_none_or_of_known_length_is_not_sent_in_chunks(
    client: httpx.AsyncClient, receiver: Receiver, url: str
) -> None:
    answers = [await client.get(f"{url}/take_late"), await client.put(f"{url}/take_late", content=bytes(MIB))]
    assert [Taken.model_validate_json(answer.content).sha256 for answer in answers] == [digest(0), digest(MIB)]


async def test_a_body_and_a_small_call_leave_nothing_of_httpx_for_the_collector(receiver: Receiver, url: str) -> None:
    """Each would keep 40 objects, and an upload makes seven calls."""

    def alive() -> int:
        return sum(isinstance(one, httpx.Response | httpx.Request | Exchange) for one in gc.get_objects())

    async with open_body_client() as bodies, open_client() as small:
        gc.collect()
        gc.disable()
        try:
            before = alive()  # what other tests keep
            for _ in range(3):
                await peer_of(bodies, url).send("/take", chunks(MIB), Taken)
                await peer_of(small, url).call("POST", "/take")
            assert alive() == before
        finally:
            gc.enable()


async def test_each_upload_has_a_connection_of_its_own(client: httpx.AsyncClient, receiver: Receiver, url: str) -> None:
    for _ in range(2):
        assert (await peer_of(client, url).send("/take", chunks(1), Taken)).sha256 == digest(1)
    assert len(receiver.connections) == 2


@pytest.mark.parametrize("others", [7, 15])
async def test_one_that_stands_still_holds_up_none_of_the_others(
    client: httpx.AsyncClient, receiver: Receiver, url: str, others: int
) -> None:
    peer = peer_of(client, url)
    still = asyncio.create_task(peer.send("/stand_still", chunks(4 * MIB), Taken))
    async with asyncio.timeout(20):
        taken = await asyncio.gather(*[peer.send("/take", chunks(4 * MIB), Taken) for _ in range(others)])
    assert [one.sha256 for one in taken] == [digest(4 * MIB)] * others
    assert not still.done()
    receiver.go_on.set()
    assert (await still).sha256 == digest(4 * MIB)


async def test_a_source_is_asked_for_no_more_than_the_peer_takes(
    client2: httpx.AsyncClient, receiver: Receiver, url: str
) -> None:
    asked = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal asked
        async for chunk in chunks(50 * MIB):
            asked += len(chunk)
            yield chunk

    sending = asyncio.create_task(peer_of(client2, url).send("/stand_still", counted(), Taken))
    await until(lambda: asked > 0)
    await asyncio.sleep(0.3)
    assert asked < MIB
    receiver.go_on.set()
    assert (await sending).sha256 == digest(50 * MIB)


@pytest.mark.parametrize(
    "error", [TooLarge("the source's own"), ValueError("the source's own"), ConnectionError("the source's own")]
)
async def test_a_source_that_fails_raises_its_own_error_and_frees_the_peer(
    client: httpx.AsyncClient, receiver: Receiver, url: str, error: Exception
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * 100
        await until(lambda: receiver.read == 100)
        raise error

    with pytest.raises(type(error), match="the source's own"):
        await peer_of(client, url).send("/take", failing(), Taken)
    await until(lambda: receiver.gone == receiver.ended == 1)


async def test_who_is_cancelled_frees_the_peer(client: httpx.AsyncClient, receiver: Receiver, url: str) -> None:
    async def still() -> AsyncIterator[bytes]:
        yield b"x" * 100
        await asyncio.Event().wait()

    sending = asyncio.create_task(peer_of(client, url).send("/take", still(), Taken))
    await until(lambda: receiver.read == 100)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await until(lambda: receiver.gone == receiver.ended == 1)


@pytest.mark.parametrize("source", ["goes on", "stands still"])
async def test_a_refusal_in_the_middle_is_taken_and_stops_the_source(
    client: httpx.AsyncClient, url: str, source: str
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 1000
            await (asyncio.sleep(0.001) if source == "goes on" else asyncio.Event().wait())

    async with asyncio.timeout(5):
        with pytest.raises(PeerRefused, match="Too much") as refused:
            await peer_of(client, url).send("/refuse", body(), Taken)
    assert (refused.value.status, refused.value.code) == (413, "quota")
    stopped_at = sent
    await asyncio.sleep(0.02)
    assert sent == stopped_at


async def test_a_refusal_while_the_window_is_shut_is_taken(client: httpx.AsyncClient, url: str) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(PeerRefused, match="Too much"):
            await peer_of(client, url).send("/refuse", chunks(50 * MIB, size=MIB), Taken)


async def test_a_peer_that_stalls_is_a_503(
    client: httpx.AsyncClient, receiver: Receiver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "STALL_SECONDS", 0.2)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await peer_of(client, url).send("/stand_still", chunks(50 * MIB), Taken)
        with pytest.raises(Unavailable):
            await peer_of(client, url).send("/stand_still", chunks(1), Taken)


async def test_a_source_may_take_its_time(client: httpx.AsyncClient, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "STALL_SECONDS", 0.1)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0.2)
            yield b"\0"

    assert (await peer_of(client, url).send("/take", slow(), Taken)).sha256 == digest(3)


async def test_a_peer_that_fails_or_says_too_much_is_a_503(client: httpx.AsyncClient, url: str) -> None:
    for path in ("/fail", "/chatter"):
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await peer_of(client, url).send(path, chunks(5 * MIB), Taken)


async def test_a_peer_that_is_being_restarted_takes_what_it_has_begun(receiver: Receiver) -> None:
    async with serving_of(receiver) as (server, url), open_body_client(http2=True) as client:

        async def body() -> AsyncIterator[bytes]:
            yield bytes(MIB)
            await until(lambda: receiver.read)
            server.should_exit = True
            await asyncio.sleep(0.4)
            yield bytes(MIB)

        assert (await peer_of(client, url).send("/take", body(), Taken)).sha256 == digest(2 * MIB)


async def test_a_header_cannot_become_two(client: httpx.AsyncClient, receiver: Receiver, url: str) -> None:
    with pytest.raises(httpx.ProtocolError):
        await client.put(f"{url}/take", headers={"x": "1\r\ny: 2"}, content=chunks(1))
    assert receiver.ended == 0


async def test_a_peer_that_speaks_no_http_2_hangs_up_or_is_nobody_is_a_503(
    client2: httpx.AsyncClient, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def old(reader: Reader, writer: Writer) -> None:
        await reader.read(2**16)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def hang_up(reader: Reader, writer: Writer) -> None:
        await reader.read(10)

    for peer in (peer_of(client2, await listen(old)), peer_of(client2, await listen(hang_up))):
        with pytest.raises(Unavailable):
            await peer.send("/", chunks(5 * MIB), Taken)
    assert await peer_of(client2, await listen(old)).state() == "does not speak HTTP/2 (is HTTP2 set there, too?)"
    assert await peer_of(client2, await listen(hang_up)).state() == "unreachable"
    with pytest.raises(Unavailable):
        await peer_of(client2, "http://127.0.0.1:1").send("/", chunks(1), Taken)


@pytest.mark.parametrize(("offered", "status"), [(["h2", "http/1.1"], 200), (["http/1.1"], None)])
async def test_over_tls_both_must_choose_http_2(
    receiver: Receiver, tmp_path: Path, offered: list[str], status: int | None
) -> None:
    certificate, key = certify(tmp_path)
    async with serving_of(receiver, ssl_certfile=certificate, ssl_keyfile=key) as (server, url):
        assert server.config.ssl is not None
        server.config.ssl.set_alpn_protocols(offered)
        transport = h2_transport.Http2Transport(ssl.create_default_context(cafile=str(certificate)))
        async with open_client(transport) as client:
            peer = peer_of(client, url.replace("http:", "https:"))
            if status is None:
                with pytest.raises(Unavailable):
                    await peer.send("/take", chunks(1), Taken)
            else:
                assert (await peer.send("/take", chunks(MIB), Taken)) == Taken(sha256=digest(MIB), version="2")
