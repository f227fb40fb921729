"""HTTP/2 with prior knowledge (h2c) and HTTP/1.1 on one port, by hypercorn: for Cloud Run with ``--use-http2``.

Two things of hypercorn 0.18 an application has to keep clear of; ``Considerate`` goes when hypercorn has mended both.

- Once an answer is complete, the next piece of the request's body is a KeyError in hypercorn, and every other request
  on that connection is lost (https://github.com/pgjones/hypercorn/issues/329). A body that nothing reads any more fills
  hypercorn's queue, and then it reads nothing of that connection again. Each refusal of an upload can do both. So the
  end of an answer waits for the end of the body, or until nothing more of it comes; what comes is dropped. The client
  has the whole answer but its end by then. nginx does the same (``lingering_close``).
- After ``graceful_timeout`` hypercorn cancels what writes to a connection together with what answers on it: an answer
  of that moment, "is being restarted", would wait for ever, and the process with it. So requests are cancelled a moment
  earlier, and what has not ended by then goes on without a connection while the service closes, as with uvicorn.
"""

import asyncio
import contextlib
import logging
import socket

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import errors
from shared.serving import DRAIN_SECONDS, KEEPALIVE_SECONDS

# Longer than a mobile network's pause between two packets; the client waits for the end of its answer so long.
QUIET_SECONDS = 1.0
LONGEST_SECONDS = 60.0
# What a cancelled request has for its answer, and hypercorn then for writing it.
ANSWER_SECONDS = 0.25


async def serve_http1_and_http2(app: ASGIApp, listener: socket.socket, asked_to_end: asyncio.Event) -> None:
    """Serve until ``asked_to_end``, as ``shared.serving.Server`` says. Takes ``listener`` over."""
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")  # a name instead would get a handler of its own
    config.include_server_header = False
    config.keep_alive_timeout = KEEPALIVE_SECONDS
    config.graceful_timeout = DRAIN_SECONDS + 2 * ANSWER_SECONDS
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    async def end() -> None:
        await asked_to_end.wait()
        loop.call_later(DRAIN_SECONDS, over.set_result, None)

    await serve(Considerate(app, over), config, shutdown_trigger=end)  # type: ignore[arg-type]  # its own ASGI types


class Considerate:
    """``app``, whose answers end when their request's body has. Once ``over`` is done, requests are cancelled."""

    def __init__(self, app: ASGIApp, over: "asyncio.Future[None]") -> None:
        self.app = app
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = _Exchange(receive, send, self._over)
        task = asyncio.ensure_future(self.app(scope, exchange.receive, exchange.send))
        try:
            await asyncio.wait({task, self._over}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=ANSWER_SECONDS)
        except asyncio.CancelledError:  # the connection is lost
            task.cancel()
            raise
        if task.done():
            await task
            return
        exchange.is_let_go = True
        if not exchange.is_answered:
            answer = errors.render(errors.Unavailable("The service is being restarted; please try again."))
            await answer(scope, receive, send)


class _Exchange:
    """ASGI's ``receive`` and ``send`` of one request."""

    def __init__(self, receive: Receive, send: Send, over: "asyncio.Future[None]") -> None:
        self._receive = receive
        self._send = send
        self._over = over
        self._body_ended = False
        self.is_answered = self.is_let_go = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):  # the end of the body, or of the connection
            self._body_ended = True
        return message

    async def send(self, message: Message) -> None:
        if self.is_let_go:
            return
        self.is_answered = True
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and not self._body_ended and not self._over.done():
            await self._send({**message, "more_body": True})
            await self._drop_the_rest()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drop_the_rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_SECONDS):
                while not self._body_ended:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await self.receive()
