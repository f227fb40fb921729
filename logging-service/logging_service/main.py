"""logging-service: what users did, written by the services and read by the users themselves and the administrators."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from logging_service import routes
from logging_service.config import Settings
from logging_service.context import Context
from logging_service.service import LoggingService
from logging_service.store import open_store
from shared import web
from shared.auth import Tokens, open_identity
from shared.settings import load


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The whole service; it has no peers. ``transport`` stands in for the network towards Google."""
    settings = settings or load(Settings)
    app = FastAPI(
        title="logging-service",
        lifespan=web.lifespan(lambda: open_context(settings, transport)),
        redirect_slashes=False,
        telemetry=web.TELEMETRY,
    )
    app.include_router(routes.public)
    app.include_router(web.status_routes("logging-service"))
    web.install(app, settings)
    return app


@asynccontextmanager
async def open_context(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Context]:
    """Open everything that the service stands on, in this order; it is closed in the reverse one."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        identity = await stack.enter_async_context(open_identity(settings, transport))
        checks = {"database": lambda: web.answers(store.ping())}
        yield Context(tokens=Tokens(settings), identity=identity, logs=LoggingService(store), checks=checks)
