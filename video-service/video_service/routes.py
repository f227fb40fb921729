"""The routes of video-service: HTTP in, HTTP out."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from shared.auth import CurrentUser, Service
from shared.contracts import Filename, Message, VideoState, printable
from shared.cursor import Cursor
from shared.errors import RESPONSES, BadRequest
from shared.media_url import MediaUrls
from shared.routing import Route
from shared.web import After, Start, plain
from video_service.context import ContextDependency
from video_service.models import DeletedAll, Uploaded, VideoOut, VideoPage, VideoUrl
from video_service.multipart import UploadForm
from video_service.store import Page

Limit = Annotated[int, plain, Query(ge=1, le=100, description="How many to answer at most.")]
Search = Annotated[str, Query(max_length=255, description="Part of a title, in any case."), printable]

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
async def upload(request: Request, user: CurrentUser, context: ContextDependency) -> Uploaded:
    # The raw request: a form parameter would have the whole body read before the token is.
    content_type = request.headers.get("content-type", "")
    form = UploadForm(content_type, request.stream(), context.upload_idle_seconds, context.turns)
    video = await context.uploads.upload(user, _declared(request), form)
    return Uploaded(message="Video uploaded successfully", file=VideoOut.of(video, context.media_urls, user.id))


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
    context: ContextDependency,
    start: Start = 0,
    after: After = "",
    limit: Limit = 16,
    q: Search = "",
) -> Response:
    cursor = Cursor.parse(after) if after else None
    page = await context.videos.newest(user, search=q.strip(), start=start, limit=limit, after=cursor)
    return _answer(page, context.media_urls, user.id)


@public.get("/user/{user_id}", response_model=VideoPage)
async def of_user(
    user_id: uuid.UUID,
    user: CurrentUser,
    context: ContextDependency,
    start: Start = 0,
    after: After = "",
    limit: Limit = 4,
    q: Search = "",
) -> Response:
    cursor = Cursor.parse(after) if after else None
    page = await context.videos.of_user(user, user_id, search=q.strip(), start=start, limit=limit, after=cursor)
    return _answer(page, context.media_urls, user.id)


@public.get("/stream/{filename}")
async def watch(filename: str, user: CurrentUser, context: ContextDependency) -> VideoUrl:
    video = await context.videos.watch(user, filename)
    return VideoUrl(url=context.media_urls.mint(video.filename, user.id))


@public.delete("/delete/{filename}")
async def delete(filename: str, user: CurrentUser, context: ContextDependency) -> Message:
    await context.videos.delete(user, filename)
    return Message(message="Video deleted successfully")


@public.delete("/delete-all")
async def delete_all(user: CurrentUser, context: ContextDependency) -> DeletedAll:
    deleted = await context.videos.delete_all(user)
    return DeletedAll(message="All videos deleted successfully", deleted=deleted)


@internal.post("/{filename}/settle")
async def settle(filename: Filename, context: ContextDependency, _: Service) -> VideoState:
    return VideoState(exists=await context.videos.settle(filename))


def _answer(page: Page, urls: MediaUrls, viewer: uuid.UUID) -> Response:
    return Response(VideoPage.written(page, urls, viewer), media_type="application/json")
