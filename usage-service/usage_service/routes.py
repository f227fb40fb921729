"""The routes of usage-service: HTTP in, HTTP out."""

from fastapi import APIRouter

from shared.auth import CurrentUser, Service
from shared.contracts import Deletions, Filename, Grant, Reservation, StreamedBatch, UploadDone
from shared.errors import RESPONSES
from shared.routing import Route
from shared.settings import MIB
from usage_service.context import ContextDependency
from usage_service.models import DailyUsage

public = APIRouter(prefix="/api/usage", tags=["usage"], responses=RESPONSES, route_class=Route)
internal = APIRouter(prefix="/internal", include_in_schema=False, route_class=Route)


@public.get("/daily-usage")
async def daily_usage(viewer: CurrentUser, context: ContextDependency) -> DailyUsage:
    today = await context.usage.today(viewer.id)
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
async def reserve(upload_id: Filename, body: Reservation, context: ContextDependency, _: Service) -> Grant:
    return Grant(granted=await context.usage.reserve(upload_id, body))


@internal.delete("/reservations/{upload_id}", status_code=204)
async def release(upload_id: Filename, context: ContextDependency, _: Service) -> None:
    await context.usage.release(upload_id)


@internal.put("/uploads/{upload_id}", status_code=204)
async def commit(upload_id: Filename, body: UploadDone, context: ContextDependency, _: Service) -> None:
    await context.usage.commit(upload_id, body)


@internal.post("/deletions", status_code=204)
async def deletions(body: Deletions, context: ContextDependency, _: Service) -> None:
    await context.usage.count_deletions(body.deletions)


@internal.post("/streamed", status_code=204)
async def streamed(body: StreamedBatch, context: ContextDependency, _: Service) -> None:
    await context.usage.count_streamed(body.streamed)
