"""The routes of user-service: HTTP in, HTTP out."""

import uuid

from fastapi import APIRouter

from shared.auth import CurrentUser, Service
from shared.contracts import Filename, Message, UploadLock
from shared.errors import RESPONSES
from shared.routing import Route
from user_service.context import ContextDependency
from user_service.models import LoggedIn, Login, Registration, UserAnswer, UserOut

public = APIRouter(prefix="/api/users", tags=["users"], responses=RESPONSES, route_class=Route)
internal = APIRouter(prefix="/internal/users", include_in_schema=False, route_class=Route)


@public.post("/register", status_code=201)
async def register(body: Registration, context: ContextDependency) -> Message:
    await context.users.register(body.email, body.password, body.username)
    return Message(message="User registered successfully")


@public.post("/login")
async def login(body: Login, context: ContextDependency) -> LoggedIn:
    return LoggedIn(message="Login successful", token=await context.users.login(body.email, body.password))


@public.get("/user/{user_id}")
async def user(user_id: uuid.UUID, viewer: CurrentUser, context: ContextDependency) -> UserAnswer:
    account = await context.users.profile(viewer, user_id)
    return UserAnswer(user=UserOut.model_validate(account, from_attributes=True))


@internal.put("/{user_id}/upload-lock", status_code=204)
async def lock_upload(user_id: uuid.UUID, body: UploadLock, context: ContextDependency, _: Service) -> None:
    await context.users.lock_upload(user_id, body.holder)


@internal.delete("/{user_id}/upload-lock/{holder}", status_code=204)
async def unlock_upload(user_id: uuid.UUID, holder: Filename, context: ContextDependency, _: Service) -> None:
    await context.users.unlock_upload(user_id, holder)
