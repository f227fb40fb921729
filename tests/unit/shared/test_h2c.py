"""HTTP/2 with prior knowledge: many requests on one connection, none of which stands in another one's way."""

import asyncio
import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from h2.errors import ErrorCodes
from http2 import Http2Wire
from starlette.types import Receive, Scope, Send

from shared import h1c, h2c

MIB = 1_048_576
FILM = 64 * MIB


class App:
    """Does what the path says; ``said`` is what became of it. A route that waits does so until ``go_on``."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.running = 0
        self.go_on = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        try:
            await getattr(self, scope["path"].strip("/").replace("-", "_") or "hello")(scope, receive, send)
        finally:
            self.running -= 1

    async def hello(self, scope: Scope, receive: Receive, send: Send, status: int = 200, body: bytes = b"hi") -> None:
        headers = [(b"Content-Length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def scope(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.said.append(scope)
        await self.hello(scope, receive, send)

    async def digest(self, scope: Scope, receive: Receive, send: Send) -> None:
        digest = hashlib.sha256()
        while True:
            message = await receive()
            digest.update(message["body"])
            if not message["more_body"]:
                break
        await self.hello(scope, receive, send, body=digest.hexdigest().encode())

    async def refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.hello(scope, receive, send, status=401)

    async def wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        while not self.go_on.is_set():  # noqa: ASYNC110  it is set in another thread
            await asyncio.sleep(0.01)
        await self.hello(scope, receive, send)

    async def listen(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            self.said.append(len(message["body"]))
        self.said.append("gone")
        await self.hello(scope, receive, send)  # to nobody

    async def film(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for step in range(FILM // MIB):
            await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
            self.said.append(step)
        await send({"type": "http.response.body", "body": b""})

    async def fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("as the test wants it")

    async def fail_halfway(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        raise RuntimeError("as the test wants it")


class Served:
    """A real server, in a thread."""

    def __init__(self, app: App, send_buffer: int | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=h1c.EitherProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        self.app = app
        self.server = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", 0))
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.port: int = listener.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([listener],))

    @contextmanager
    def running(self) -> Iterator["Served"]:
        self.thread.start()
        wait_for(lambda: self.server.started)
        try:
            yield self
        finally:
            self.app.go_on.set()
            self.server.should_exit = True
            self.thread.join()


@pytest.fixture(scope="module")
def of_all() -> Iterator[Served]:
    with Served(App()).running() as served:
        yield served


@pytest.fixture
def served(of_all: Served) -> Iterator[Served]:
    app = of_all.app
    app.go_on.clear()
    yield of_all
    app.go_on.set()
    wait_for(lambda: app.running == 0)
    app.said.clear()


@pytest.fixture
def own() -> Iterator[Served]:
    """For a test that ends it."""
    with Served(App()).running() as served:
        yield served


@pytest.fixture
def wire(served: Served) -> Iterator[Http2Wire]:
    with Http2Wire(served.port) as wire:
        yield wire


def wait_for(happened: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.005)


def test_one_port_speaks_both(served: Served, wire: Http2Wire) -> None:
    first = http.client.HTTPConnection("127.0.0.1", served.port)
    for _ in range(2):
        first.request("PUT", "/digest", body=b"x" * 100_000)
        assert first.getresponse().read() == hashlib.sha256(b"x" * 100_000).hexdigest().encode()
    first.close()
    for _ in range(2):
        answer = wire.get("/")
        assert (answer.status, answer.body) == (200, b"hi")
        assert set(answer.headers) == {"date", "content-length"}, "no banner, and nothing that is of HTTP/1 alone"


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 23])
def test_the_preface_may_come_in_pieces_and_who_says_put_means_it(served: Served, cut: int) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(h2c.PREFACE[:cut])
        time.sleep(0.02)
        connection.sendall(h2c.PREFACE[cut:] + bytes.fromhex("000000040000000000"))
        assert connection.recv(9)[3] == 4, "its settings"
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(b"P")
        time.sleep(0.02)
        connection.sendall(b"OST / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_a_route_sees_a_request_as_with_http_1(served: Served, wire: Http2Wire) -> None:
    assert wire.get("/sc%6Fpe?a=%20b", {"X-Some": "thing"}).status == 200
    (scope,) = served.app.said
    assert isinstance(scope, dict)
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("GET", "/scope", b"/sc%6Fpe")
    assert (scope["query_string"], scope["http_version"], scope["scheme"]) == (b"a=%20b", "2", "http")
    assert scope["headers"] == [(b"host", wire.host.encode()), (b"x-some", b"thing")]
    assert scope["client"] == wire.socket.getsockname()


def test_a_large_body_arrives_whole_also_on_several_streams_at_once(wire: Http2Wire) -> None:
    bodies = [bytes([number]) * (4 * MIB + number) for number in range(4)]
    uploads = [wire.request("PUT", "/digest") for _ in bodies]
    for start in range(0, 5 * MIB, 100_000):  # in turns
        for upload, body in zip(uploads, bodies, strict=True):
            piece = body[start : start + 100_000]
            assert upload.send(piece) == len(piece)
    for upload, body in zip(uploads, bodies, strict=True):
        upload.end()
        assert upload.answer().body == hashlib.sha256(body).hexdigest().encode()


def test_routes_that_read_nothing_take_a_window_each_and_hold_up_nobody(served: Served, wire: Http2Wire) -> None:
    still = [wire.request("PUT", "/wait") for _ in range(40)]
    for upload in still:
        assert upload.send(bytes(2 * h2c.WINDOW), patience=0.01) == h2c.WINDOW
    upload = wire.request("PUT", "/digest")
    assert upload.send(bytes(8 * MIB)) == 8 * MIB
    upload.end()
    assert upload.answer().body == hashlib.sha256(bytes(8 * MIB)).hexdigest().encode()
    served.app.go_on.set()
    assert [upload.answer().status for upload in still] == [200] * 40
    # What nobody read was given back to the connection.
    assert wire.h2.outbound_flow_control_window > h2c.WHOLE_WINDOW // 4


def test_who_reads_nothing_of_his_answer_holds_up_nobody_and_little_is_kept_for_him(
    served: Served, wire: Http2Wire
) -> None:
    wire.h2.increment_flow_control_window(100 * MIB)
    film = wire.request("GET", "/film", ended=True)
    film.reads = False
    wait_for(lambda: not wire.listen(0.1))
    assert len(film.body) == 65_535, "his window"
    assert served.app.said == [], "the first mebibyte is still being sent"
    assert wire.get("/").body == b"hi"
    whole = wire.request("GET", "/film", ended=True).answer()
    assert len(whole.body) == FILM


def test_who_takes_nothing_for_a_while_is_let_go_alone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h1c, "STALL_SECONDS", 0.3)
    with Http2Wire(served.port) as wire:
        wire.h2.increment_flow_control_window(100 * MIB)
        film = wire.request("GET", "/film", ended=True)
        film.reads = False
        until = time.monotonic() + 5
        while film.reset_by_peer is None and time.monotonic() < until:
            assert wire.get("/").status == 200, "others go on, and do not prolong it"
        assert film.reset_by_peer == ErrorCodes.CANCEL
        wait_for(lambda: served.app.running == 0)
        assert wire.get("/").status == 200


def test_a_connection_that_takes_nothing_is_let_go_with_all_that_it_holds(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h1c, "STALL_SECONDS", 0.3)
    with Http2Wire(served.port) as wire:
        wire.h2.increment_flow_control_window(100 * MIB)
        for _ in range(3):
            film = wire.request("GET", "/film", ended=True)
            wire.h2.increment_flow_control_window(100 * MIB, film.stream_id)
        wire.flush()
        wait_for(lambda: served.app.running == 3)
        wait_for(lambda: served.app.running == 0)


@pytest.mark.parametrize("how", ["resets", "hangs up", "crashes"])
def test_a_route_learns_that_its_caller_has_gone(served: Served, how: str) -> None:
    with Http2Wire(served.port) as wire:
        upload = wire.request("PUT", "/listen")
        upload.send(b"12345")
        wait_for(lambda: served.app.said)
        if how == "resets":
            upload.reset()
            assert wire.get("/").status == 200
        elif how == "crashes":
            wire.hang_up()
        else:
            wire.socket.close()
        wait_for(lambda: served.app.said == [5, "gone"])
        wait_for(lambda: served.app.running == 0)


def test_an_answer_before_the_body_arrives_and_the_rest_is_waved_off(wire: Http2Wire) -> None:
    for _ in range(20):  # what was sent meanwhile costs the connection nothing for good
        upload = wire.request("PUT", "/refuse")
        sent = upload.send(bytes(MIB))
        assert upload.answer().status == 401
        assert sent < MIB
    assert wire.get("/").status == 200
    assert upload.reset_by_peer == ErrorCodes.NO_ERROR


def test_who_asks_first_is_told_to_go_on(wire: Http2Wire) -> None:
    upload = wire.request("PUT", "/digest", {"expect": "100-continue"})
    wire.listen(1)
    upload.send(b"x")
    upload.end()
    assert upload.answer().body == hashlib.sha256(b"x").hexdigest().encode()


def test_a_head_request_gets_no_body(wire: Http2Wire) -> None:
    answer = wire.request("HEAD", "/", ended=True).answer()
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "2", b"")


def test_a_head_that_is_too_large_costs_its_own_request(served: Served, wire: Http2Wire) -> None:
    upload = wire.request("PUT", "/digest")
    largest = {f"x-{number}": "x" * 8000 for number in range(8)}
    assert wire.get("/", largest).status == 200
    answer = wire.get("/", largest | {"x-more": "x" * 1500})
    assert (answer.status, bool(answer.message)) == (431, True)
    upload.end()
    assert upload.answer().status == 200
    with Http2Wire(served.port) as another:
        endless = another.request("GET", "/", {f"x-{number}": "x" * 8000 for number in range(40)}, ended=True)
        wait_for(lambda: not another.listen(0.1) and another.is_closed)
        assert endless.status is None


def test_what_fails_is_never_taken_for_an_answer(wire: Http2Wire) -> None:
    for path in ("/fail", "/fail-halfway"):
        request = wire.request("GET", path, ended=True)
        wait_for(lambda request=request: wire.listen(0.1) and request.is_over)
        assert request.reset_by_peer == ErrorCodes.INTERNAL_ERROR
        assert not request.is_complete
    assert wire.get("/").status == 200


def test_who_resets_his_requests_at_once_does_not_make_more_of_them_run(served: Served, wire: Http2Wire) -> None:
    for _ in range(3 * h2c.STREAMS):
        wire.request("GET", "/wait", ended=True).reset()
    wire.listen(0.5)
    wait_for(lambda: served.app.running == h2c.STREAMS)
    refused = wire.request("GET", "/", ended=True)
    wait_for(lambda: wire.listen(0.1) and refused.is_over)
    assert refused.reset_by_peer == ErrorCodes.REFUSED_STREAM
    served.app.go_on.set()
    wait_for(lambda: served.app.running == 0)
    assert wire.get("/").status == 200


def test_what_is_no_http_2_is_hung_up_on(wire: Http2Wire) -> None:
    wire.socket.sendall(bytes.fromhex("000001000000000000") + b"x")  # data of no request
    wait_for(lambda: not wire.listen(0.1) and wire.is_closed)


def test_who_asks_for_pings_and_reads_none_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2c, "BACKLOG_BYTES", 300_000)
    ping = bytes.fromhex("000008060000000000") + bytes(8)
    with Served(App(), send_buffer=65_536).running() as served, Http2Wire(served.port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            endlessly(lambda: wire.socket.sendall(ping * 1000))


def endlessly(call: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        call()


def test_a_client_that_says_it_is_going_away_still_gets_its_answers(served: Served, wire: Http2Wire) -> None:
    upload = wire.request("PUT", "/digest")
    upload.send(bytes(MIB))
    wire.h2.close_connection()
    upload.send(bytes(MIB))
    upload.end()
    assert upload.answer().body == hashlib.sha256(bytes(2 * MIB)).hexdigest().encode()
    wait_for(lambda: not wire.listen(0.1) and wire.is_closed)


def test_at_the_end_what_is_under_way_is_finished_and_what_is_new_refused(own: Served) -> None:
    with Http2Wire(own.port) as wire, Http2Wire(own.port) as idle:
        assert idle.get("/").status == 200
        upload, waiting = wire.request("PUT", "/digest"), wire.request("GET", "/wait", ended=True)
        upload.send(bytes(MIB))
        own.server.should_exit = True
        wait_for(lambda: wire.listen(0.1) and wire.last_words is not None)
        assert wire.last_words == ErrorCodes.NO_ERROR
        late = wire.request("GET", "/", ended=True)
        upload.send(bytes(MIB))
        upload.end()
        assert upload.answer().body == hashlib.sha256(bytes(2 * MIB)).hexdigest().encode()
        own.app.go_on.set()
        assert waiting.answer().status == 200
        assert late.reset_by_peer == ErrorCodes.REFUSED_STREAM
        for one in (wire, idle):
            wait_for(lambda one=one: not one.listen(0.1) and one.is_closed)
            assert one.last_words == ErrorCodes.NO_ERROR
    own.thread.join(5)
    assert not own.thread.is_alive()


def test_a_connection_that_nobody_uses_is_ended(own: Served) -> None:
    own.server.config.timeout_keep_alive = 0  # of the next one
    with Http2Wire(own.port) as wire:
        wait_for(lambda: wire.listen(0.1) and wire.last_words == ErrorCodes.NO_ERROR)
        wait_for(lambda: not wire.listen(0.1) and wire.is_closed)
