"""Videos sent to their upload targets as video-service sends them; a folder's target is storage-service's own route."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from types import SimpleNamespace

import httpx
from fastapi import FastAPI

from shared import errors, web
from shared.contracts import SentVideo
from shared.disk import Disk
from shared.turns import Turns
from storage_service import routes
from storage_service.blobs import Blobs, OpenTarget
from storage_service.blobs.capability import UploadUrls
from storage_service.blobs.local import LocalBlobs
from storage_service.config import Settings
from storage_service.targets import UploadTargets
from video_service.target import Targets, open_target_client

STORAGE_URL = "http://storage-service"


def target_app(blobs: LocalBlobs, settings: Settings) -> FastAPI:
    """Only the route of storage-service that takes bytes."""
    app = FastAPI(telemetry=web.TELEMETRY)
    app.state.context = SimpleNamespace(targets=UploadTargets(blobs, UploadUrls(settings), Turns()))
    app.include_router(routes.targets)
    errors.install(app)
    return app


@asynccontextmanager
async def open_wire(blobs: Blobs, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The client of video-service: a folder is reached in this process, a bucket through the network."""
    transport = httpx.ASGITransport(target_app(blobs, settings)) if isinstance(blobs, LocalBlobs) else None
    async with open_target_client(transport) as client:
        yield client


@asynccontextmanager
async def open_targets(blobs: Blobs, settings: Settings) -> AsyncIterator[Targets]:
    async with open_wire(blobs, settings) as client:
        with closing(Disk(settings.data_dir)) as disk:
            yield Targets(client, STORAGE_URL, disk)


async def upload(blobs: Blobs, targets: Targets, filename: str, content: bytes) -> tuple[OpenTarget, SentVideo]:
    """Opened and sent, not finished."""
    opened = await blobs.open_target(filename, len(content), None)
    return opened, await targets.send(opened.target, pieces(content))


async def pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
