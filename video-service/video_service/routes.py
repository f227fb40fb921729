"""The routes of video-service: HTTP in, HTTP out."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from shared.auth import CurrentUser, Service
from shared.contracts import Filename, VideoState, printable
from shared.errors import RESPONSES, BadRequest
from shared.media_url import MediaUrls
from shared.routing import Route
from shared.web import Start, plain
from video_service.models import DeletedAll, Message, Uploaded, VideoOut, VideoPage, VideoUrl
from video_service.multipart import UploadForm
from video_service.service import VideoService
from video_service.store import Page
from video_service.upload import Uploads


async def _videos(request: Request) -> VideoService:
    videos: VideoService = request.app.state.videos
    return videos


async def _uploads(request: Request) -> Uploads:
    uploads: Uploads = request.app.state.uploads
    return uploads


async def _urls(request: Request) -> MediaUrls:
    urls: MediaUrls = request.app.state.media_urls
    return urls


Videos = Annotated[VideoService, Depends(_videos)]
Urls = Annotated[MediaUrls, Depends(_urls)]
Limit = Annotated[int, plain, Query(ge=1, le=100, description="How many to answer at most.")]

public = APIRouter(prefix="/api/videos", tags=["videos"], responses=RESPONSES, route_class=Route)
internal = APIRouter(prefix="/internal/videos", include_in_schema=False, route_class=Route)

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["video", "title"],
                    "properties": {
                        "video": {"type": "string", "format": "binary", "description": "MP4, MOV, WebM or Matroska."},
                        "title": {"type": "string", "minLength": 1, "maxLength": 255},
                    },
                }
            }
        },
    }
}


@public.post("/upload", openapi_extra=_FORM)
async def upload(
    request: Request, user: CurrentUser, urls: Urls, uploads: Annotated[Uploads, Depends(_uploads)]
) -> Uploaded:
    # The raw request: a form parameter would have the whole body read before the token is.
    form = UploadForm(request.headers.get("content-type", ""), request.stream(), request.app.state.upload_idle_seconds)
    video = await uploads.upload(user, _declared(request), form)
    return Uploaded(message="Video uploaded successfully", file=VideoOut.of(video, urls, user.id))


def _declared(request: Request) -> int | None:
    length = request.headers.get("content-length")
    if length is None:
        return None
    if not length.isdecimal():
        raise BadRequest("The Content-Length is not a number.")
    return int(length[:19])


@public.get("/stream", response_model=VideoPage)
async def newest(
    user: CurrentUser,
    videos: Videos,
    urls: Urls,
    start: Start = 0,
    limit: Limit = 16,
    q: Annotated[str, Query(max_length=255, description="Part of a title, in any case."), printable] = "",
) -> Response:
    return _answer(await videos.newest(user, search=q.strip(), start=start, limit=limit), urls, user.id)


@public.get("/user/{user_id}", response_model=VideoPage)
async def of_user(
    user_id: uuid.UUID, user: CurrentUser, videos: Videos, urls: Urls, start: Start = 0, limit: Limit = 4
) -> Response:
    return _answer(await videos.of_user(user, user_id, start=start, limit=limit), urls, user.id)


@public.get("/stream/{filename}")
async def watch(filename: str, user: CurrentUser, videos: Videos, urls: Urls) -> VideoUrl:
    video = await videos.watch(user, filename)
    return VideoUrl(url=urls.mint(video.filename, user.id))


@public.delete("/delete/{filename}")
async def delete(filename: str, user: CurrentUser, videos: Videos) -> Message:
    await videos.delete(user, filename)
    return Message(message="Video deleted successfully")


@public.delete("/delete-all")
async def delete_all(user: CurrentUser, videos: Videos) -> DeletedAll:
    deleted = await videos.delete_all(user)
    return DeletedAll(message="All videos deleted successfully", deleted=deleted)


@internal.post("/{filename}/settle")
async def settle(filename: Filename, videos: Videos, _: Service) -> VideoState:
    return VideoState(exists=await videos.settle(filename))


def _answer(page: Page, urls: MediaUrls, viewer: uuid.UUID) -> Response:
    return Response(VideoPage.written(page, urls, viewer), media_type="application/json")
