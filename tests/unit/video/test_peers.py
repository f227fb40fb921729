"""What goes to which peer over which connections."""

from collections.abc import AsyncIterator

import httpx

from shared.http import Peer
from video_service.peers import Storage


async def test_an_upload_takes_no_connection_from_a_small_call() -> None:
    """However many uploads run, and however slow they are."""
    calls: list[tuple[str, str]] = []

    def peer(which: str) -> Peer:
        async def answer(request: httpx.Request) -> httpx.Response:
            await request.aread()
            calls.append((which, request.method))
            stored = {"size": 4, "content_type": "video/mp4", "duration": None, "width": 1, "height": 1}
            return httpx.Response(200, json=stored)

        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        return Peer(client, "storage-service", "http://storage", lambda: "our-token")

    async def film() -> AsyncIterator[bytes]:
        yield b"film"

    storage = Storage(peer("small"), peer("large"))
    assert (await storage.put("a", film())).size == 4
    await storage.keep(["a"])
    await storage.delete(["a"])
    await storage.answers()
    assert calls == [("large", "PUT"), ("small", "POST"), ("small", "POST"), ("small", "GET")]
