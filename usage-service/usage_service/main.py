"""usage-service: what each user uploaded and watched on each day, and the daily limit on uploads."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from shared import web
from shared.audit import AuditLog
from shared.auth import Tokens, open_identity
from shared.http import Peer, open_client
from shared.settings import load
from usage_service import routes
from usage_service.config import Settings
from usage_service.context import Context
from usage_service.service import UsageService
from usage_service.store import open_store


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The whole service; ``transport`` stands in for the network towards the peers."""
    settings = settings or load(Settings)
    app = FastAPI(
        title="usage-service",
        lifespan=web.lifespan(lambda: open_context(settings, transport)),
        redirect_slashes=False,
        telemetry=web.TELEMETRY,
    )
    app.include_router(routes.public)
    app.include_router(routes.internal)
    app.include_router(web.sweep_route())
    app.include_router(web.status_routes("usage-service"))
    web.install(app, settings)
    return app


@asynccontextmanager
async def open_context(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Context]:
    """Open everything that the service stands on, in this order; it is closed in the reverse one."""
    tokens = Tokens(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        identity = await stack.enter_async_context(open_identity(settings, transport))
        client = await stack.enter_async_context(open_client(transport, identity))
        logging_service = Peer(client, "logging-service", settings.logging_service_url, tokens.for_service)
        audit = await stack.enter_async_context(AuditLog(logging_service))
        usage = UsageService(
            store,
            audit,
            daily_limit=settings.daily_limit,
            reservation_seconds=settings.reservation_seconds,
        )
        checks = {
            "database": lambda: web.answers(store.ping()),
            "logging-service": logging_service.state,
        }
        sweep = await stack.enter_async_context(web.sweeping(usage.sweep, settings.sweep_seconds))
        yield Context(tokens=tokens, identity=identity, usage=usage, checks=checks, sweep=sweep)
