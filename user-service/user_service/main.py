"""user-service: accounts, sessions, and the lock that gives each user one upload at a time."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from shared import web
from shared.audit import AuditLog
from shared.auth import Tokens, open_identity
from shared.http import Peer, open_client
from shared.settings import load
from user_service import routes
from user_service.config import Settings
from user_service.context import Context
from user_service.passwords import Argon2
from user_service.service import UserService
from user_service.store import open_store


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The whole service; ``transport`` stands in for the network towards the peers."""
    settings = settings or load(Settings)
    app = FastAPI(
        title="user-service",
        lifespan=web.lifespan(lambda: open_context(settings, transport)),
        redirect_slashes=False,
        telemetry=web.TELEMETRY,
    )
    app.include_router(routes.public)
    app.include_router(routes.internal)
    app.include_router(web.status_routes("user-service"))
    web.install(app, settings)
    return app


@asynccontextmanager
async def open_context(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Context]:
    """Open everything that the service stands on, in this order; it is closed in the reverse one."""
    tokens = Tokens(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        passwords = await stack.enter_async_context(Argon2())
        identity = await stack.enter_async_context(open_identity(settings, transport))
        client = await stack.enter_async_context(open_client(transport, identity))
        logging_service = Peer(client, "logging-service", settings.logging_service_url, tokens.for_service)
        audit = await stack.enter_async_context(AuditLog(logging_service))
        users = UserService(
            store,
            passwords,
            tokens,
            audit,
            token_seconds=settings.token_seconds,
            upload_lock_seconds=settings.upload_lock_seconds,
        )
        checks = {
            "database": lambda: web.answers(store.ping()),
            "logging-service": logging_service.state,
        }
        yield Context(tokens=tokens, identity=identity, users=users, checks=checks)
