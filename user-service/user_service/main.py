"""user-service: accounts, sessions, and the lock that gives each user one upload at a time."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from shared import web
from shared.audit import AuditLog
from shared.auth import Tokens
from shared.http import Peer, open_client
from shared.identity import open_identity
from shared.settings import load
from user_service import routes
from user_service.config import Settings
from user_service.passwords import Argon2
from user_service.service import UserService
from user_service.store import open_store


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The whole service; ``transport`` stands in for the network towards the peers."""
    settings = settings or load(Settings)
    tokens = Tokens(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(settings))
            passwords = await stack.enter_async_context(Argon2())
            identity = await stack.enter_async_context(open_identity(settings, transport))
            app.state.identity = identity
            client = await stack.enter_async_context(open_client(transport, identity))
            logging_service = Peer(client, "logging-service", settings.logging_service_url, tokens.for_service)
            audit = await stack.enter_async_context(AuditLog(logging_service))
            app.state.users = UserService(
                store,
                passwords,
                tokens,
                audit,
                token_seconds=settings.token_seconds,
                upload_lock_seconds=settings.upload_lock_seconds,
            )
            app.state.checks = {
                "database": lambda: web.answers(store.ping()),
                "logging-service": logging_service.state,
            }
            yield

    app = FastAPI(title="user-service", lifespan=lifespan, redirect_slashes=False, telemetry=web.TELEMETRY)
    app.state.tokens = tokens
    web.add_routes(
        app,
        routes.public,
        routes.internal,
        web.status_routes("user-service", lambda request: request.app.state.checks),
    )
    web.install(app, settings)
    return app
