"""The routes of logging-service: HTTP in, HTTP out."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.responses import Response

from logging_service.context import ContextDependency
from logging_service.models import Batch, LogPage
from logging_service.store import Page
from shared.auth import Admin, CurrentUser, Service
from shared.contracts import LogEntry, Message
from shared.cursor import Cursor
from shared.errors import RESPONSES
from shared.routing import Route
from shared.web import After, Start

public = APIRouter(prefix="/api/logs", tags=["logs"], responses=RESPONSES, route_class=Route)


@public.post("/add", status_code=201, summary="Write one log (services only)")
async def add(body: LogEntry, context: ContextDependency, _: Service) -> Message:
    await context.logs.write([body])
    return Message(message="Log added successfully")


@public.post("/batch", status_code=201, summary="Write many logs (services only)")
async def batch(body: Annotated[Batch, Body()], context: ContextDependency, _: Service) -> Message:
    await context.logs.write(body.entries)
    return Message(message="Logs added successfully")


@public.get(
    "/user/{user_id}",
    response_model=LogPage,
    summary="One user's logs, newest first (the user, or an administrator)",
)
async def user_logs(
    user_id: uuid.UUID, viewer: CurrentUser, context: ContextDependency, start: Start = 0, after: After = ""
) -> Response:
    return _answer(await context.logs.of_user(viewer, user_id, start, Cursor.parse(after) if after else None))


@public.get("/all", response_model=LogPage, summary="Everybody's logs, newest first (administrators)")
async def all_logs(_: Admin, context: ContextDependency, start: Start = 0, after: After = "") -> Response:
    return _answer(await context.logs.of_all(start, Cursor.parse(after) if after else None))


def _answer(page: Page) -> Response:
    return Response(LogPage.written(page), media_type="application/json")
