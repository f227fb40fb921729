"""The routes of user-service: HTTP in, HTTP out."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from shared.auth import CurrentUser, Service
from shared.contracts import Filename, UploadLock
from shared.errors import RESPONSES
from shared.routing import Route
from user_service.models import LoggedIn, Login, Message, Registration, UserAnswer, UserOut
from user_service.service import UserService


async def _users(request: Request) -> UserService:
    users: UserService = request.app.state.users
    return users


Users = Annotated[UserService, Depends(_users)]

public = APIRouter(prefix="/api/users", tags=["users"], responses=RESPONSES, route_class=Route)
internal = APIRouter(prefix="/internal/users", include_in_schema=False, route_class=Route)


@public.post("/register", status_code=201)
async def register(body: Registration, users: Users) -> Message:
    await users.register(body.email, body.password, body.username)
    return Message(message="User registered successfully")


@public.post("/login")
async def login(body: Login, users: Users) -> LoggedIn:
    return LoggedIn(message="Login successful", token=await users.login(body.email, body.password))


@public.get("/user/{user_id}")
async def user(user_id: uuid.UUID, viewer: CurrentUser, users: Users) -> UserAnswer:
    account = await users.profile(viewer, user_id)
    return UserAnswer(user=UserOut.model_validate(account, from_attributes=True))


@internal.put("/{user_id}/upload-lock", status_code=204)
async def lock_upload(user_id: uuid.UUID, body: UploadLock, users: Users, _: Service) -> None:
    await users.lock_upload(user_id, body.holder)


@internal.delete("/{user_id}/upload-lock/{holder}", status_code=204)
async def unlock_upload(user_id: uuid.UUID, holder: Filename, users: Users, _: Service) -> None:
    await users.unlock_upload(user_id, holder)
