"""What the routes of user-service are given, and how. ``main.open_context`` makes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from shared.auth import Tokens
from shared.web import Check
from user_service.service import UserService

if TYPE_CHECKING:
    from shared.identity import Identity


@dataclass(frozen=True, slots=True)
class Context:
    """The one name in ``app.state``: everything that is open while the service runs and that a route may need."""

    tokens: Tokens
    identity: "Identity | None"
    users: UserService
    checks: Mapping[str, Check]


async def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextDependency = Annotated[Context, Depends(get_context)]
