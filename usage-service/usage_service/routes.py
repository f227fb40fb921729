"""The routes of usage-service: HTTP in, HTTP out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from shared.auth import CurrentUser, Service
from shared.contracts import Deletions, Filename, Grant, Reservation, StreamedBatch, UploadDone
from shared.errors import RESPONSES
from shared.routing import Route
from shared.settings import MIB
from usage_service.models import DailyUsage
from usage_service.service import UsageService


async def _usage(request: Request) -> UsageService:
    usage: UsageService = request.app.state.usage
    return usage


Usage = Annotated[UsageService, Depends(_usage)]

public = APIRouter(prefix="/api/usage", tags=["usage"], responses=RESPONSES, route_class=Route)
internal = APIRouter(prefix="/internal", include_in_schema=False, route_class=Route)


@public.get("/daily-usage")
async def daily_usage(viewer: CurrentUser, usage: Usage) -> DailyUsage:
    today = await usage.today(viewer.id)
    return DailyUsage(
        totalUsageMb=today.uploaded / MIB,
        dailyLimitMb=today.limit / MIB,
        isThresholdExceeded=today.exceeded,
        message=today.sentence,
        streamedMb=today.streamed / MIB,
        uploads=today.uploads,
        deletions=today.deletions,
        resetsAt=today.resets_at,
    )


@internal.post("/reservations/{upload_id}")
async def reserve(upload_id: Filename, body: Reservation, usage: Usage, _: Service) -> Grant:
    return Grant(granted=await usage.reserve(upload_id, body))


@internal.delete("/reservations/{upload_id}", status_code=204)
async def release(upload_id: Filename, usage: Usage, _: Service) -> None:
    await usage.release(upload_id)


@internal.put("/uploads/{upload_id}", status_code=204)
async def commit(upload_id: Filename, body: UploadDone, usage: Usage, _: Service) -> None:
    await usage.commit(upload_id, body)


@internal.post("/deletions", status_code=204)
async def deletions(body: Deletions, usage: Usage, _: Service) -> None:
    await usage.count_deletions(body.deletions)


@internal.post("/streamed", status_code=204)
async def streamed(body: StreamedBatch, usage: Usage, _: Service) -> None:
    await usage.count_streamed(body.streamed)
