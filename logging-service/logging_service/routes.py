"""The routes of logging-service: HTTP in, HTTP out."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response

from logging_service.models import Batch, LogPage, Message
from logging_service.service import LoggingService
from logging_service.store import Page
from shared.auth import Admin, CurrentUser, Service
from shared.contracts import LogEntry
from shared.errors import RESPONSES
from shared.routing import Route
from shared.web import Start


async def _logs(request: Request) -> LoggingService:
    logs: LoggingService = request.app.state.logs
    return logs


Logs = Annotated[LoggingService, Depends(_logs)]

public = APIRouter(prefix="/api/logs", tags=["logs"], responses=RESPONSES, route_class=Route)


@public.post("/add", status_code=201, summary="Write one log (services only)")
async def add(body: LogEntry, logs: Logs, _: Service) -> Message:
    await logs.write([body])
    return Message(message="Log added successfully")


@public.post("/batch", status_code=201, summary="Write many logs (services only)")
async def batch(body: Annotated[Batch, Body()], logs: Logs, _: Service) -> Message:
    await logs.write(body.entries)
    return Message(message="Logs added successfully")


@public.get(
    "/user/{user_id}",
    response_model=LogPage,
    summary="One user's logs, newest first (the user, or an administrator)",
)
async def user_logs(user_id: uuid.UUID, viewer: CurrentUser, logs: Logs, start: Start = 0) -> Response:
    return _answer(await logs.of_user(viewer, user_id, start))


@public.get("/all", response_model=LogPage, summary="Everybody's logs, newest first (administrators)")
async def all_logs(_: Admin, logs: Logs, start: Start = 0) -> Response:
    return _answer(await logs.of_all(start))


def _answer(page: Page) -> Response:
    return Response(LogPage.written(page), media_type="application/json")
