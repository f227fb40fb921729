"""The routes of storage-service: HTTP in, HTTP out."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from shared.auth import CurrentUser, Service
from shared.contracts import Filename, Filenames, Reservation, SentVideo, StoredVideo, UploadGrant, is_filename
from shared.errors import RESPONSES, NotFound
from shared.media_url import MediaUrls
from shared.routing import Route
from shared.settings import MIB
from storage_service import accel, ranges
from storage_service.blobs import Blobs, Kind, Method
from storage_service.delivery import answer
from storage_service.metering import StreamMeter
from storage_service.models import StorageUsage
from storage_service.service import StorageService
from storage_service.store import StoredObject
from storage_service.targets import UploadTargets
from storage_service.verdict import CONTENT_TYPES

MEDIA_CACHE_SECONDS = 3600


async def _storage(request: Request) -> StorageService:
    storage: StorageService = request.app.state.storage
    return storage


Storage = Annotated[StorageService, Depends(_storage)]

public = APIRouter(prefix="/api/storage", tags=["storage"], responses=RESPONSES, route_class=Route)
media = APIRouter(prefix="/media", tags=["media"], responses=RESPONSES, route_class=Route)
targets = APIRouter(prefix="/uploads", include_in_schema=False, route_class=Route)
internal = APIRouter(prefix="/internal", include_in_schema=False, route_class=Route)


@public.get("/usage")
async def usage(user: CurrentUser, storage: Storage) -> StorageUsage:
    kept, quota = await storage.usage(user.id)
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
async def video(capability: str, filename: str, request: Request, storage: Storage) -> Response:
    """The video, whole or a range of it; `capability` comes with the URL that video-service gives."""
    return await _deliver(capability, filename, "video", request, storage)


@media.head(
    "/{capability}/{filename}.jpg", operation_id="thumbnail_head", response_class=Response, responses=_THUMBNAIL
)
@media.get("/{capability}/{filename}.jpg", operation_id="thumbnail", response_class=Response, responses=_THUMBNAIL)
async def thumbnail(capability: str, filename: str, request: Request, storage: Storage) -> Response:
    """A picture of the video, at most 480 pixels wide."""
    return await _deliver(capability, filename, "thumbnail", request, storage)


async def _deliver(capability: str, filename: str, kind: Kind, request: Request, storage: StorageService) -> Response:
    urls: MediaUrls = request.app.state.media_urls
    blobs: Blobs = request.app.state.blobs
    meter: StreamMeter = request.app.state.meter
    if not is_filename(filename):
        raise NotFound("There is nothing at this address.")
    grant = urls.open(capability, filename)
    found = await storage.find(filename)
    assert found.video is not None
    headers = {
        "Content-Type": found.video.content_type if kind == "video" else "image/jpeg",
        "Cache-Control": f"private, max-age={MEDIA_CACHE_SECONDS}",
        "Content-Disposition": "inline",
        "X-Content-Type-Options": "nosniff",
        # A page that isolates itself (COEP) may embed it; the capability is what protects it.
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    method: Method = "HEAD" if request.method == "HEAD" else "GET"
    address = await blobs.address(filename, kind, headers["Content-Type"], method)
    if isinstance(address, str):
        if kind == "video" and method == "GET":
            meter.count(grant.viewer, _asked(request, found))
        return _elsewhere(address, headers, request.app.state.redirect_seconds)
    etag, modified = f'"{filename}.{kind}"', found.created_at

    def sent(size: int) -> None:
        meter.count(grant.viewer, size)

    try:
        if location := request.app.state.accel_redirect:
            by_nginx = accel.answer(
                request, address, location, etag=etag, modified=modified, headers=headers, asked=sent
            )
            if by_nginx is not None:
                return by_nginx
        return answer(
            request,
            address,
            files=request.app.state.files,
            etag=etag,
            modified=modified,
            headers=headers,
            sent=sent,
            turn=request.app.state.delivery_turn,
            sized_below=request.app.state.sized_below,
        )
    except FileNotFoundError:
        raise NotFound("This video does not exist any more.") from None


def _elsewhere(address: str, headers: dict[str, str], seconds: int) -> Response:
    moved = {**headers, "Location": address, "Cache-Control": f"private, max-age={seconds}"}
    del moved["Content-Type"], moved["Content-Disposition"]  # those are the bucket's affair
    return Response(status_code=302, headers=moved)


def _asked(request: Request, found: StoredObject) -> int:
    """The bytes that a viewer is sent elsewhere for; how many of them he takes, nobody tells us.

    His conditions are about what the bucket has given him, and for the bucket to judge.
    """
    assert found.video is not None
    span = {"range": request.headers["range"]} if "range" in request.headers else {}
    part = ranges.select(span, size=found.video.size, etag="", modified=found.created_at, is_get=True)
    return part.stop - part.start


@targets.put("/{capability}/{filename}")
async def take_piece(capability: str, filename: str, request: Request) -> Response:
    target: UploadTargets | None = request.app.state.targets
    if target is None:
        raise NotFound("There is nothing at this address.")
    return await target.answer(capability, filename, request)


@internal.post("/reservations/{filename}")
async def reserve(filename: Filename, body: Reservation, storage: Storage, _: Service) -> UploadGrant:
    return await storage.reserve(filename, body.user_id, body.least, body.most)


@internal.post("/objects/{filename}/finish")
async def finish(filename: Filename, body: SentVideo, storage: Storage, _: Service) -> StoredVideo:
    return await storage.finish(filename, body)


@internal.post("/keep", status_code=204)
async def keep(body: Filenames, storage: Storage, _: Service) -> None:
    await storage.keep(body.filenames)


@internal.post("/delete", status_code=204)
async def delete(body: Filenames, storage: Storage, _: Service) -> None:
    await storage.delete(body.filenames)
