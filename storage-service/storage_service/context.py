"""What the routes of storage-service are given, and how. ``main.open_context`` makes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from shared.auth import Tokens
from shared.media_url import MediaUrls
from shared.web import Check, Sweep
from storage_service.delivery import Delivery
from storage_service.service import StorageService
from storage_service.targets import UploadTargets

if TYPE_CHECKING:
    from shared.identity import Identity


@dataclass(frozen=True, slots=True)
class Context:
    """The one name in ``app.state``: everything that is open while the service runs and that a route may need."""

    tokens: Tokens
    identity: "Identity | None"
    storage: StorageService
    media_urls: MediaUrls
    delivery: Delivery
    targets: UploadTargets | None
    checks: Mapping[str, Check]
    sweep: Sweep


async def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextDependency = Annotated[Context, Depends(get_context)]
