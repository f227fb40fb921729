"""The errors that services share, and the one place where errors become JSON.

An error is raised where it is known, as a class with its status, and rendered here: ``{"message": "<one readable
sentence>", "code": …}``.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)


class ServiceError(Exception):
    """An error that knows its own status. ``message`` is one sentence for a person, ``code`` a word for a program."""

    status: int = 500
    code: str = "internal_error"

    def __init__(
        self, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.headers = dict(headers or {})
        self.members = members


class BadRequest(ServiceError):
    status, code = 400, "bad_request"


class Unauthorized(ServiceError):
    """There is no token, or not a good one."""

    status, code = 401, "unauthorized"

    def __init__(self, message: str = "Sign in first: this call needs a valid token.", **more: Any) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"}, **more)


class Forbidden(ServiceError):
    """A good token, but not of a person or service that may do this."""

    status, code = 403, "forbidden"


class NotFound(ServiceError):
    status, code = 404, "not_found"


class Conflict(ServiceError):
    status, code = 409, "conflict"


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class UnsupportedMedia(ServiceError):
    status, code = 415, "unsupported_media"


class Invalid(ServiceError):
    status, code = 422, "invalid"


class LimitReached(ServiceError):
    status, code = 429, "limit_reached"


class Unavailable(ServiceError):
    """A database, a disk or a peer does not answer; the call may be made again after ``retry_after`` seconds.

    ``reason`` is for the person who runs the service, and is never sent.
    """

    status, code = 503, "unavailable"

    def __init__(self, message: str, *, retry_after: int = 5, reason: str = "", **more: Any) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)}, retryAfter=retry_after, **more)
        self.reason = reason


class PeerRefused(ServiceError):
    """A peer's 4xx, passed on as it came: its status, its sentence, its code."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message, code=code)
        self.status = status


class ErrorBody(BaseModel):
    """What every error answers, from every layer. Some say more: ``fields``, ``retryAfter``, ``checks``."""

    model_config = ConfigDict(extra="allow")

    message: str
    code: str


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What was asked cannot be done; `message` says why."},
    "5XX": {"model": ErrorBody, "description": "It is not the caller's fault; 503 may be tried again."},
}


def render(error: ServiceError) -> JSONResponse:
    return JSONResponse({"message": error.message, "code": error.code, **error.members}, error.status, error.headers)


def install(app: FastAPI) -> None:
    """Render every error that rises inside ``app``; call before any other middleware is added."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_middleware(_Unhandled)


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return render(error)


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself raises: an unknown path, a wrong method, a body it cannot read."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ServiceError):  # FastAPI makes a 400 of every error that rises while a body is read
        return render(error.__cause__)
    sentences = {
        400: "The request's body cannot be read.",
        404: "There is nothing at this address.",
        405: f"{request.method} is not possible at this address.",
    }
    phrase = HTTPStatus(error.status_code).phrase
    message = sentences.get(error.status_code, f"{phrase}.")
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return JSONResponse({"message": message, "code": code}, error.status_code, error.headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = _fields(error.errors())
    first, reason = next(iter(fields.items()))
    return render(Invalid(f"{first}: {reason}.", fields=fields))


def _fields(errors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Field → what is wrong with it. Never the value: it may be a password."""
    fields: dict[str, str] = {}
    for error in errors:
        if error["type"] == "json_invalid":
            fields.setdefault("body", "not valid JSON")
            continue
        where, *path = error["loc"]
        name = ".".join(str(step) for step in path) or str(where)
        reason = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
        fields.setdefault(name, reason[:1].lower() + reason[1:])
    return fields


class _Unhandled:
    """Answers an unexpected error inside CORS: Starlette's own 500 is sent outside of it, and browsers hide that."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except asyncio.CancelledError:  # the server ends, and has waited for this request long enough
            if not started:
                await render(Unavailable("The service is being restarted; please try again."))(scope, receive, send)
        except Exception:
            if started:
                raise
            log.exception("unhandled error")
            await render(ServiceError("Something went wrong on our side."))(scope, receive, send)
