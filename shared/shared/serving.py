"""``python -m <service>``: read the settings, take the port, serve until SIGTERM or Ctrl-C. Or ``check``: see there."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from tempfile import TemporaryFile

import uvicorn
import uvloop
from fastapi import FastAPI

from shared import logs, memory
from shared.check import Pingable, Trial, check
from shared.database import DatabaseError
from shared.settings import S, SettingsError, load

log = logging.getLogger(__name__)

# Longer than our peers keep a connection in their pool (shared.http).
KEEPALIVE_SECONDS = 75
# Below the 1,024 files that a process may have open where nothing else is set: past that it can open no database and
# no video. uvicorn answers 503 in plain text then, the one refusal beside 400 that is not JSON; a client
# tries again after either. Cloud Run sends a container at most 80 requests at once.
MOST_CONNECTIONS = 900
# Cloud Run kills 10 s after SIGTERM; the last reports and the flush of the log queue need up to 4 of them.
DRAIN_SECONDS = 3

Server = Callable[[FastAPI, socket.socket, asyncio.Event], Awaitable[None]]
"""Serves until the event is set; running requests then have DRAIN_SECONDS. The app's lifespan is the caller's."""


async def serve_http1(app: FastAPI, listener: socket.socket, asked_to_end: asyncio.Event) -> None:
    """By uvicorn. It takes both signals itself, and raises them again at its end: ``_serve`` has them back by then."""
    config = uvicorn.Config(
        app,
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing asks for the caller's address or scheme
        ws="none",
        lifespan="off",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEPALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def run(
    settings_kind: type[S],
    create_app: Callable[[S], FastAPI],
    open_store: Callable[[S], AbstractAsyncContextManager[Pingable]],
    trials: Callable[[S], Mapping[str, Trial]] = lambda settings: {},
    *,
    choose_server: Callable[[S], Server] = lambda settings: serve_http1,
    arguments: Sequence[str] | None = None,
    also: str = "",
) -> int:
    """What the command line asks for; the exit status. ``also`` names what else the service can be told to do."""
    match sys.argv[1:] if arguments is None else arguments:
        case []:
            return serve(settings_kind, create_app, choose_server)
        case ["check"]:
            return check(settings_kind, open_store, trials)
        case _:
            package = settings_kind.service.replace("-", "_")
            sys.stderr.write(f"usage: python -m {package} [{' | '.join(filter(None, ['check', also]))}]\n")
            return 2


def serve(kind: type[S], create_app: Callable[[S], FastAPI], choose_server: Callable[[S], Server]) -> int:
    """Run one service. What stops the start is one line, and an exit status: 2 for a setting, 3 for the database."""
    try:
        settings = load(kind)
        if settings.needs_disk:
            _own(settings.service, settings.data_dir)
        listener = _listen(settings.service, settings.host, settings.port)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.configure(settings)
    try:
        uvloop.run(_serve(create_app(settings), listener, choose_server(settings)))
    except (DatabaseError, SettingsError) as error:
        log.error("%s: %s", settings.service, str(error).removeprefix(f"{settings.service}: "))
        return 3
    except Exception:
        log.exception("%s cannot go on", settings.service)
        return 3
    return 0


async def _serve(app: FastAPI, listener: socket.socket, server: Server) -> None:
    """Until SIGTERM or Ctrl-C, also while the app opens. A second signal does not stop the app from closing."""
    asked_to_end = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, asked_to_end.set)
    async with app.router.lifespan_context(app):
        memory.settle()
        if not asked_to_end.is_set():
            await server(app, listener, asked_to_end)


def _own(service: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SettingsError(f"{service}: DATA_DIR {folder} cannot be written ({error.strerror})") from None


def _listen(service: str, host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = f"cannot listen on {host} port {port} ({error.strerror}): stop what uses it, or set PORT"
        raise SettingsError(f"{service}: {reason}") from None
    return listener
