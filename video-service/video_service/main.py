"""video-service: the catalogue of videos, and the upload that fills it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing

import httpx
from fastapi import FastAPI

from shared import memory, web
from shared.audit import AuditLog
from shared.auth import Tokens, open_identity
from shared.disk import Disk
from shared.http import Peer, open_client
from shared.media_url import MediaUrls
from shared.settings import load
from shared.turns import Turns
from video_service import multipart, routes
from video_service.config import Settings
from video_service.context import Context
from video_service.outbox import Outbox
from video_service.peers import Storage, Usage, Users
from video_service.service import VideoService
from video_service.store import open_store
from video_service.target import Targets, open_target_client
from video_service.upload import Uploads


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The whole service; ``transport`` stands in for the network towards the peers."""
    settings = settings or load(Settings)
    app = FastAPI(
        title="video-service",
        lifespan=web.lifespan(lambda: open_context(settings, transport)),
        redirect_slashes=False,
        telemetry=web.TELEMETRY,
    )
    app.include_router(routes.public)
    app.include_router(routes.internal)
    app.include_router(web.sweep_route())
    app.include_router(web.status_routes("video-service"))
    web.install(app, settings, streams=["/api/videos/upload"])
    return app


@asynccontextmanager
async def open_context(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Context]:
    """Open everything that the service stands on, in this order; it is closed in the reverse one."""
    memory.keep_pieces()
    tokens = Tokens(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        identity = await stack.enter_async_context(open_identity(settings, transport))
        client = await stack.enter_async_context(open_client(transport, identity))
        user_service = Peer(client, "user-service", settings.user_service_url, tokens.for_service)
        disk = stack.enter_context(closing(Disk(settings.data_dir)))
        pieces = await stack.enter_async_context(open_target_client(transport))
        storage_service = Peer(client, "storage-service", settings.storage_service_url, tokens.for_service)
        usage_service = Peer(client, "usage-service", settings.usage_service_url, tokens.for_service)
        logging_service = Peer(client, "logging-service", settings.logging_service_url, tokens.for_service)
        audit = await stack.enter_async_context(AuditLog(logging_service))
        users, usage = Users(user_service), Usage(usage_service)
        storage = Storage(storage_service, Targets(pieces, settings.storage_service_url, disk))
        outbox = Outbox(store, users, storage, usage)
        videos = VideoService(store, outbox, storage, audit)
        uploads = Uploads(
            store,
            outbox,
            users,
            storage,
            usage,
            audit,
            max_bytes=settings.max_upload_bytes,
            overhead=multipart.OVERHEAD,
            renew_seconds=settings.renew_seconds,
        )
        stack.push_async_callback(uploads.wait_for_cancelled)
        checks = {
            "database": lambda: web.answers(store.ping()),
            "user-service": user_service.state,
            "storage-service": storage_service.state,
            "usage-service": usage_service.state,
            "logging-service": logging_service.state,
        }
        sweep = await stack.enter_async_context(web.sweeping(videos.sweep, settings.sweep_seconds))
        yield Context(
            tokens=tokens,
            identity=identity,
            videos=videos,
            uploads=uploads,
            upload_idle_seconds=settings.upload_idle_seconds,
            turns=Turns(),
            media_urls=MediaUrls(settings, settings.storage_public_url, settings.media_url_seconds),
            checks=checks,
            sweep=sweep,
        )
