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
import signal
import socket
from collections.abc import Callable

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import errors

# Longer than a mobile network's pause between two packets; the client waits for the end of its answer so long.
QUIET_SECONDS = 1.0
LONGEST_SECONDS = 60.0
# Between the cancelling of requests and the end of their connections.
AFTER_CANCEL_SECONDS = 0.5


def serve_http1_and_http2(app: ASGIApp, listener: socket.socket, *, keep_alive: int, drain: int) -> None:
    """Serve until SIGTERM or Ctrl-C; ``keep_alive`` and ``drain`` are in seconds. Takes ``listener`` over.

    Raises what hypercorn raises if ``app`` does not start.
    """
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")  # a name instead would get a handler of its own
    config.include_server_header = False
    config.keep_alive_timeout = keep_alive
    config.graceful_timeout = drain + AFTER_CANCEL_SECONDS
    uvloop.run(_serve(Considerate(app), config, drain))


async def _serve(app: "Considerate", config: Config, drain: int) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, asked.set)

    async def asked_to_end() -> None:
        await asked.wait()
        loop.call_later(drain, app.cancel)
        loop.call_later(drain + AFTER_CANCEL_SECONDS / 2, app.let_go)

    await serve(app, config, shutdown_trigger=asked_to_end)  # type: ignore[arg-type]  # its own type of the same thing


class Considerate:
    """``app``, whose answers end when their request's body has, and whose requests can be cancelled and let go."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._running: dict[asyncio.Task[None], asyncio.Event] = {}
        self._is_ending = False

    def cancel(self) -> None:
        """Cancel what runs; what it still answers ends at once."""
        self._is_ending = True
        for task in self._running:
            task.cancel()

    def let_go(self) -> None:
        """Answer for what still runs; what it answers later goes nowhere."""
        for done in self._running.values():
            done.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, lambda: self._is_ending)
        task = asyncio.ensure_future(self.app(scope, exchange.receive, exchange.send))
        done = self._running[task] = asyncio.Event()
        task.add_done_callback(lambda _: done.set())
        try:
            await done.wait()
        except asyncio.CancelledError:  # the connection is lost
            task.cancel()
            raise
        finally:
            del self._running[task]
        if task.done():
            await task
            return
        exchange.let_go = True
        if not exchange.started:
            answer = errors.render(errors.Unavailable("The service is being restarted; please try again."))
            await answer(scope, receive, send)


class _Exchange:
    """ASGI's ``receive`` and ``send`` of one request."""

    def __init__(self, receive: Receive, send: Send, is_ending: Callable[[], bool]) -> None:
        self._receive = receive
        self._send = send
        self._is_ending = is_ending
        self._body_ended = False
        self.started = self.let_go = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):  # the end of the body, or of the connection
            self._body_ended = True
        return message

    async def send(self, message: Message) -> None:
        if self.let_go:
            return
        self.started = True
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and not self._body_ended and not self._is_ending():
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
