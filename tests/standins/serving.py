"""The stand-in for PostgREST as a server: in a thread of the tests' process, or as a process of its own.

    with Served(PostgREST(database.as_authenticator, keys.secret)) as standin:
        httpx.get(f"{standin.url}/rest/v1/users", headers=…)

    with ServedApart(database.as_authenticator, keys.secret) as standin:
        standin.kill()      # SIGKILL
        standin.start()     # again, on the same port

A process of its own it is also for a shell, which ends it by Ctrl-C or by the end of its input:

    PYTHONPATH=tests python -m standins.serving --dsn "host=… user=authenticator dbname=…" --secret … --port 54321
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import uvicorn
from ports import HeldPort
from standins.postgrest import PostgREST, Version

START_SECONDS = 30.0
IDLE_SECONDS = 30.0


class Served:
    """``url`` is what a project's SUPABASE_URL is; 0 is any free port."""

    def __init__(self, app: PostgREST, port: int = 0) -> None:
        self._app = app
        self._port = port

    def __enter__(self) -> Self:
        listener = _listen(self._port)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(configured(self._app))
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="postgrest", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            assert self._thread.is_alive(), "the stand-in for PostgREST did not start"
            assert time.monotonic() < deadline, "the stand-in for PostgREST does not start"
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def wait_until_idle(self) -> None:
        """Until every request has ended, also one whose caller has gone."""
        deadline = time.monotonic() + IDLE_SECONDS
        while self._app.in_flight:
            assert time.monotonic() < deadline, "a request to the stand-in for PostgREST does not end"
            time.sleep(0.001)


class ServedApart:
    """It ends when this process ends, in whatever way: its input closes then."""

    def __init__(self, dsn: str, secret: str, *, version: Version = 13) -> None:
        self._port = HeldPort()
        self._given = {"dsn": dsn, "secret": secret, "version": str(version), "port": str(self._port.number)}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._port.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port.number}"

    def start(self) -> None:
        assert self._process is None, "the stand-in for PostgREST is running"
        given = [f"--{name}={value}" for name, value in self._given.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "standins.serving", *given],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the stand-in for PostgREST did not start"

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """What it has begun is answered first."""
        self._end(signal.SIGTERM)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        with process:
            process.send_signal(sign)


def configured(app: PostgREST) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


def _listen(port: int) -> socket.socket:
    # asyncio sends at once (TCP_NODELAY) only what it knows to be TCP; an answer would take 40 ms otherwise.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)  # who has the address may call, and is answered when the server is up
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m standins.serving", description="A stand-in for PostgREST.")
    parser.add_argument("--dsn", required=True, help="how to connect, as the role authenticator")
    parser.add_argument("--secret", required=True, help="what keys are signed with")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", type=int, choices=(12, 13), default=13)
    given = parser.parse_args()
    listener = _listen(given.port)
    server = uvicorn.Server(configured(PostgREST(given.dsn, given.secret, version=given.version)))

    def end_with_the_input() -> None:
        while sys.stdin.buffer.raw.read(1024):
            pass
        server.should_exit = True

    threading.Thread(target=end_with_the_input, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server.run([listener])


if __name__ == "__main__":
    main()
