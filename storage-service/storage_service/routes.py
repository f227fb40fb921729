"""The routes of storage-service: HTTP in, HTTP out."""

from typing import Any

from fastapi import APIRouter, Request, Response

from shared.auth import CurrentUser, Service
from shared.contracts import Filename, Filenames, Reservation, SentVideo, StoredVideo, UploadGrant, is_filename
from shared.errors import RESPONSES, NotFound
from shared.routing import Route
from shared.settings import MIB
from storage_service.blobs import Kind
from storage_service.context import Context, ContextDependency
from storage_service.models import StorageUsage
from storage_service.verdict import CONTENT_TYPES

public = APIRouter(prefix="/api/storage", tags=["storage"], responses=RESPONSES, route_class=Route)
media = APIRouter(prefix="/media", tags=["media"], responses=RESPONSES, route_class=Route)
targets = APIRouter(prefix="/uploads", include_in_schema=False, route_class=Route)
internal = APIRouter(prefix="/internal", include_in_schema=False, route_class=Route)


@public.get("/usage")
async def usage(user: CurrentUser, context: ContextDependency) -> StorageUsage:
    kept, quota = await context.storage.usage(user.id)
    return StorageUsage(totalSizeMb=kept / MIB, maxStorageMb=quota / MIB, usagePercentage=f"{kept / quota * 100:.2f}")


def _bytes(*kinds: str) -> dict[int | str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
    return {
        200: {"description": "All of it.", "content": content},
        206: {"description": "The range that was asked for.", "content": content},
        302: {"description": "It is in a bucket, at the signed URL in `Location`."},
        304: {"description": "The viewer has it already."},
    }


_VIDEO, _THUMBNAIL = _bytes(*sorted(CONTENT_TYPES)), _bytes("image/jpeg")


@media.head("/{capability}/{filename}.mp4", operation_id="video_head", response_class=Response, responses=_VIDEO)
@media.get("/{capability}/{filename}.mp4", operation_id="video", response_class=Response, responses=_VIDEO)
async def video(capability: str, filename: str, request: Request, context: ContextDependency) -> Response:
    """The video, whole or a range of it; `capability` comes with the URL that video-service gives."""
    return await _deliver(request, context, capability, filename, "video")


@media.head(
    "/{capability}/{filename}.jpg", operation_id="thumbnail_head", response_class=Response, responses=_THUMBNAIL
)
@media.get("/{capability}/{filename}.jpg", operation_id="thumbnail", response_class=Response, responses=_THUMBNAIL)
async def thumbnail(capability: str, filename: str, request: Request, context: ContextDependency) -> Response:
    """A picture of the video, at most 480 pixels wide."""
    return await _deliver(request, context, capability, filename, "thumbnail")


async def _deliver(request: Request, context: Context, capability: str, filename: str, kind: Kind) -> Response:
    if not is_filename(filename):
        raise NotFound("There is nothing at this address.")
    viewer = context.media_urls.open(capability, filename).viewer
    found = await context.storage.find(filename)
    return await context.delivery.answer(request, found, kind, viewer)


@targets.put("/{capability}/{filename}")
async def take_piece(capability: str, filename: str, request: Request, context: ContextDependency) -> Response:
    if context.targets is None:
        raise NotFound("There is nothing at this address.")
    return await context.targets.answer(capability, filename, request)


@internal.post("/reservations/{filename}")
async def reserve(filename: Filename, body: Reservation, context: ContextDependency, _: Service) -> UploadGrant:
    return await context.storage.reserve(filename, body.user_id, body.least, body.most)


@internal.post("/objects/{filename}/finish")
async def finish(filename: Filename, body: SentVideo, context: ContextDependency, _: Service) -> StoredVideo:
    return await context.storage.finish(filename, body)


@internal.post("/keep", status_code=204)
async def keep(body: Filenames, context: ContextDependency, _: Service) -> None:
    await context.storage.keep(body.filenames)


@internal.post("/delete", status_code=204)
async def delete(body: Filenames, context: ContextDependency, _: Service) -> None:
    await context.storage.delete(body.filenames)
