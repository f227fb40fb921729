"""logging-service: what users did, written by the services and read by the users themselves and the administrators."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from logging_service import routes
from logging_service.config import Settings
from logging_service.service import LoggingService
from logging_service.store import open_store
from shared import web
from shared.auth import Tokens
from shared.identity import open_identity
from shared.settings import load


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The whole service; it has no peers. ``transport`` stands in for the network towards Google."""
    settings = settings or load(Settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(settings))
            app.state.identity = await stack.enter_async_context(open_identity(settings, transport))
            app.state.logs = LoggingService(store)
            app.state.checks = {"database": lambda: web.answers(store.ping())}
            yield

    app = FastAPI(title="logging-service", lifespan=lifespan, redirect_slashes=False, telemetry=web.TELEMETRY)
    app.state.tokens = Tokens(settings)
    web.add_routes(app, routes.public, web.status_routes("logging-service", lambda request: request.app.state.checks))
    web.install(app, settings)
    return app
