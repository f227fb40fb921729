"""The stand-in for PostgREST as the image of the real one is: at /, with an admin server, told by PGRST_… variables."""

import asyncio
import os
from contextlib import suppress
from typing import Any

import psycopg
import uvicorn
from standins.postgrest import PREFIX, PostgREST
from standins.serving import configured

DSN = os.environ["PGRST_DB_URI"]


class AtRoot:
    def __init__(self, app: PostgREST) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = scope | {"path": PREFIX + scope["path"].removeprefix("/")}
        await self.app(scope, receive, send)


async def admin(scope: Any, receive: Any, send: Any) -> None:
    """/ready: whether the database answers."""
    if scope["type"] == "lifespan":
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})
        return
    status = 503
    with suppress(psycopg.Error):
        async with await psycopg.AsyncConnection.connect(DSN, connect_timeout=2) as connection:
            await connection.execute("SELECT")
            status = 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def server(app: Any, port: int) -> uvicorn.Server:
    config = configured(app)
    config.host, config.port = "0.0.0.0", port  # noqa: S104  a container's own
    return uvicorn.Server(config)


async def main() -> None:
    app = AtRoot(PostgREST(DSN, os.environ["PGRST_JWT_SECRET"]))
    servers = [server(app, 3000), server(admin, int(os.environ["PGRST_ADMIN_SERVER_PORT"]))]
    await asyncio.gather(*(one.serve() for one in servers))


asyncio.run(main())
