"""The peer client: whatever a peer does becomes an answer, a refusal passed on, or our own 503."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel

from shared.contracts import Grant, UploadLock
from shared.errors import PeerRefused, Unavailable
from shared.http import Peer, open_client

Listen = Callable[[Any], Awaitable[str]]
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class Seen(BaseModel):
    method: str
    authorization: str
    traceparent: str
    body: str


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The real one, over real sockets."""
    async with open_client() as client:
        yield client


def peer_of(client: httpx.AsyncClient, url: str) -> Peer:
    return Peer(client, "some-peer", url, lambda: "our-token")


def answering(answer: Callable[[httpx.Request], Any]) -> Peer:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return peer_of(client, "http://peer")


def reply(status: int, body: bytes, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_call_carries_our_token_the_trace_and_the_body() -> None:
    app = FastAPI()

    @app.put("/lock")
    async def lock(request: Request) -> Seen:
        headers = request.headers
        body = (await request.body()).decode()
        return Seen(method="PUT", authorization=headers["authorization"], traceparent=headers["traceparent"], body=body)

    async with open_client(httpx.ASGITransport(app)) as client:
        seen = await peer_of(client, "http://peer").ask("PUT", "/lock", Seen, UploadLock(holder="a"))
    assert seen.authorization == "Bearer our-token"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", seen.traceparent)
    assert seen.body == '{"holder":"a"}'


async def test_nobody_there_is_a_503_that_names_the_peer(client: httpx.AsyncClient) -> None:
    peer = peer_of(client, "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="some-peer") as refused:
        await peer.call("GET", "/")
    assert refused.value.headers["Retry-After"]
    assert await peer.state() == "unreachable"


@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 416, 422, 429])
async def test_a_peers_refusal_is_passed_on_as_it_came(status: int) -> None:
    peer = answering(lambda _: httpx.Response(status, json={"message": "No.", "code": "why", "more": 1}))
    with pytest.raises(PeerRefused, match=r"^No\.$") as refused:
        await peer.call("GET", "/")
    assert (refused.value.status, refused.value.code) == (status, "why")


@pytest.mark.parametrize("status", [301, 302, 401, 403, 405, 500, 502, 503])
async def test_what_is_never_the_callers_fault_is_a_503(status: int) -> None:
    peer = answering(lambda _: httpx.Response(status, json={"message": "the peer's inner matter", "code": "x"}))
    with pytest.raises(Unavailable) as refused:
        await peer.call("GET", "/")
    assert "inner matter" not in refused.value.message


async def test_an_unknown_path_at_a_peer_is_a_503_and_not_the_pages_404() -> None:
    peer = answering(lambda _: httpx.Response(404, json={"message": "Nothing here.", "code": "not_found"}))
    with pytest.raises(Unavailable):
        await peer.call("GET", "/")


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[]", b'"x"', b"null", b'{"detail": "No."}', b"\xff"])
async def test_a_refusal_that_cannot_be_read_is_a_503(body: bytes) -> None:
    with pytest.raises(Unavailable):
        await answering(lambda _: httpx.Response(404, content=body)).call("GET", "/")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"granted": 5', b'{"granted": "many"}', b"{}", b"[]", b"\xff"])
async def test_an_answer_that_is_something_else_is_a_503(body: bytes) -> None:
    with pytest.raises(Unavailable):
        await answering(lambda _: httpx.Response(200, content=body)).ask("GET", "/", Grant)


async def test_a_truncated_answer_is_a_503(client: httpx.AsyncClient, listen: Listen) -> None:
    async def cut(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(200, b'{"granted": 5}', length=500))

    peer = peer_of(client, await listen(cut))
    with pytest.raises(Unavailable):
        await peer.ask("GET", "/", Grant)


async def test_a_peer_that_hangs_is_a_503_in_time(client: httpx.AsyncClient, listen: Listen) -> None:
    asked = 0

    async def hang(reader: Reader, writer: Writer) -> None:
        nonlocal asked
        asked += 1
        await reader.read()

    peer = peer_of(client, await listen(hang))
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await peer.call("GET", "/", seconds=0.1)
    assert asked == 1, "a late answer may be half done: it is not asked again"


async def test_a_connection_that_breaks_is_tried_once_more(listen: Listen) -> None:
    answers = [httpx.ConnectError("refused"), httpx.Response(200, json={"granted": 5})]

    def answer(_: httpx.Request) -> httpx.Response:
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    assert (await answering(answer).ask("GET", "/", Grant)).granted == 5
    answers[:] = [httpx.ConnectError("refused"), httpx.Response(200)]
    with pytest.raises(Unavailable):
        await answering(answer).call("GET", "/", tries=1)
    assert len(answers) == 1


async def test_a_redirect_is_not_followed_because_the_call_carries_our_token() -> None:
    asked: list[str] = []

    def redirect(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(307, headers={"Location": "http://elsewhere/"})

    async with open_client(httpx.MockTransport(redirect)) as client:
        with pytest.raises(Unavailable):
            await peer_of(client, "http://peer").call("GET", "/")
    assert asked == ["http://peer/"]


async def test_the_state_of_a_peer_is_a_word() -> None:
    def says(status: int, **body: str) -> Peer:
        return answering(lambda _: httpx.Response(status, json=body))

    assert await says(200, service="some-peer").state() == "ok"
    assert await says(200, service="another").state() == "answers as another"
    assert await says(200).state() == "answers as something else"
    assert await says(500).state() == "answers 500"
    assert "JWT_SECRET" in await says(401).state()
