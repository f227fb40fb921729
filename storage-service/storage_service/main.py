"""storage-service: stored bytes, the quota ledger, and the media URLs that browsers fetch."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from shared import memory, web
from shared.audit import AuditLog
from shared.auth import Tokens, open_identity
from shared.http import Peer, open_client
from shared.media_url import MediaUrls
from shared.settings import load
from shared.turns import Turns
from storage_service import routes
from storage_service.blobs import open_blobs
from storage_service.blobs.capability import UploadUrls
from storage_service.blobs.local import LocalBlobs
from storage_service.config import Settings
from storage_service.context import Context
from storage_service.delivery import Delivery
from storage_service.inspection import Inspector
from storage_service.metering import StreamMeter
from storage_service.open_files import OpenFiles
from storage_service.peers import Catalogue, Usage
from storage_service.service import StorageService
from storage_service.store import open_store
from storage_service.targets import UploadTargets


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The whole service; ``transport`` stands in for the network towards the peers."""
    settings = settings or load(Settings)
    app = FastAPI(
        title="storage-service",
        lifespan=web.lifespan(lambda: open_context(settings, transport)),
        redirect_slashes=False,
        telemetry=web.TELEMETRY,
    )
    app.include_router(routes.public)
    app.include_router(routes.media)
    app.include_router(routes.targets)
    app.include_router(routes.internal)
    app.include_router(web.sweep_route())
    app.include_router(web.status_routes("storage-service"))
    web.install(app, settings, streams=["/uploads/"])
    return app


@asynccontextmanager
async def open_context(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Context]:
    """Open everything that the service stands on, in this order; it is closed in the reverse one."""
    memory.keep_pieces()
    tokens = Tokens(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        turns, files = Turns(), OpenFiles()
        blobs = await stack.enter_async_context(open_blobs(settings, files.forget))
        inspector = await stack.enter_async_context(Inspector())
        identity = await stack.enter_async_context(open_identity(settings, transport))
        client = await stack.enter_async_context(open_client(transport, identity))
        logging_service = Peer(client, "logging-service", settings.logging_service_url, tokens.for_service)
        video_service = Peer(client, "video-service", settings.video_service_url, tokens.for_service)
        usage_service = Peer(client, "usage-service", settings.usage_service_url, tokens.for_service)
        audit = await stack.enter_async_context(AuditLog(logging_service))
        storage = StorageService(
            store,
            blobs,
            inspector,
            Catalogue(video_service),
            audit,
            max_bytes=settings.max_storage_bytes,
            reservation_seconds=settings.reservation_seconds,
        )
        meter = await stack.enter_async_context(StreamMeter(Usage(usage_service), settings.streamed_report_seconds))
        delivery = Delivery(
            blobs,
            files,
            meter,
            turns,
            nginx_location=settings.accel_redirect,
            # A browser may keep where it was sent for a part of the time that the URL lives at least.
            redirect_seconds=settings.signed_url_seconds // 2,
        )
        checks = {
            "database": lambda: web.answers(store.ping()),
            "storage": lambda: web.answers(blobs.ping()),
            "video-service": video_service.state,
            "usage-service": usage_service.state,
            "logging-service": logging_service.state,
        }
        sweep = await stack.enter_async_context(web.sweeping(storage.sweep, settings.sweep_seconds))
        yield Context(
            tokens=tokens,
            identity=identity,
            storage=storage,
            media_urls=MediaUrls(settings),
            delivery=delivery,
            targets=UploadTargets(blobs, UploadUrls(settings), turns) if isinstance(blobs, LocalBlobs) else None,
            checks=checks,
            sweep=sweep,
        )
