"""Faults between services: a proxy in front of each, where a test may strike at a certain call.

    strike = faults.at("storage", "PUT", "/uploads/", "within", services["video"].kill)
    … upload …
    assert strike.happened

``before``: the call has left its caller and not reached the callee, nor will it.
``within``: some of its body has.
``after``: the callee has done it and answered, and the answer is lost.
With ``lost=False`` the call goes on after the strike, which may then be a delay.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Moment = Literal["before", "within", "after"]
# Of the body of a call; test videos are larger.
WITHIN_BYTES = 64 * 1024


@dataclass
class Strike:
    service: str
    method: str
    path: str
    moment: Moment
    act: Callable[[], object]
    lost: bool
    wait: int
    happened: bool = field(default=False, init=False)

    def is_due(self, service: str, method: str, path: str) -> bool:
        """Whether this call is the one; told of each call once."""
        if self.wait == 0 or (service, method) != (self.service, self.method) or not re.match(self.path, path):
            return False
        self.wait -= 1
        return self.wait == 0


class Faults:
    """``urls`` are the proxies' own; ``calls`` is every call so far: service, method, path."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.urls: dict[str, str] = {}
        self.calls: list[tuple[str, str, str]] = []
        self._strikes: list[Strike] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faults")
        self._servers = []
        self._connections: set[asyncio.Task[None]] = set()
        for name, port in ports.items():
            server = self._loop.run_until_complete(asyncio.start_server(self._connected(name, port), "127.0.0.1", 0))
            self._servers.append(server)
            self.urls[name] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def at(
        self,
        service: str,
        method: str,
        path: str,
        moment: Moment,
        act: Callable[[], object],
        *,
        nth: int = 1,
        lost: bool = True,
    ) -> Strike:
        """Do ``act``, once, at the ``nth`` such call from now on; ``path`` is a pattern of its beginning."""
        strike = Strike(service, method, path, moment, act, lost, nth)
        self._strikes.append(strike)
        return strike

    @property
    def struck(self) -> bool:
        return any(strike.happened for strike in self._strikes)

    def forget(self) -> None:
        """All strikes and calls."""
        self._strikes.clear()
        self.calls.clear()

    def _connected(
        self, name: str, port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await self._one_call(name, port, reader, writer)
            finally:
                self._connections.discard(task)
                writer.close()

        return connected

    async def _one_call(self, name: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection carries one call: then the end of the answer is the end of what the callee sends."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.decode("latin-1").split(" ", 2)[:2]
        self.calls.append((name, method, path))
        strike = next((strike for strike in self._strikes if strike.is_due(name, method, path)), None)
        if strike and await self._struck(strike, "before"):
            return
        there, to_there = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
            to_there.write(head[:-2] + b"Connection: close\r\n\r\n")
            answer = asyncio.create_task(there.read())
            body = asyncio.create_task(self._pass_on(reader, to_there, strike))
            try:
                await asyncio.wait([answer, body], return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    return  # the caller has gone, or the call was struck in the middle
                if not await answer or (strike and await self._struck(strike, "after")):
                    return
                writer.write(answer.result())
                await writer.drain()
            finally:
                answer.cancel()
                body.cancel()
                await asyncio.gather(answer, body, return_exceptions=True)
        finally:
            to_there.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, to_there: asyncio.StreamWriter, strike: Strike | None
    ) -> None:
        """The body, until its caller goes away."""
        passed = 0
        while piece := await reader.read(WITHIN_BYTES // 4):
            to_there.write(piece)
            await to_there.drain()
            passed += len(piece)
            if strike and passed >= WITHIN_BYTES and await self._struck(strike, "within"):
                return

    async def _struck(self, strike: Strike, moment: Moment) -> bool:
        """Strike if this is the moment; whether the call is lost by it."""
        if strike.happened or strike.moment != moment:
            return False
        strike.happened = True
        await asyncio.to_thread(strike.act)
        return strike.lost

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
