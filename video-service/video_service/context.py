"""What the routes of video-service are given, and how. ``main.open_context`` makes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from shared.auth import Tokens
from shared.media_url import MediaUrls
from shared.turns import Turns
from shared.web import Check, Sweep
from video_service.service import VideoService
from video_service.upload import Uploads

if TYPE_CHECKING:
    from shared.identity import Identity


@dataclass(frozen=True, slots=True)
class Context:
    """The one name in ``app.state``: everything that is open while the service runs and that a route may need."""

    tokens: Tokens
    identity: "Identity | None"
    videos: VideoService
    uploads: Uploads
    upload_idle_seconds: float
    turns: Turns
    media_urls: MediaUrls
    checks: Mapping[str, Check]
    sweep: Sweep


async def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextDependency = Annotated[Context, Depends(get_context)]
