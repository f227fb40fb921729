"""What every service has beside its own routes: CORS, a limit on bodies, health, readiness, the sweep."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from logging import getLogger
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.telemetry import TelemetryConfig
from pydantic import AfterValidator, BaseModel, BeforeValidator
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import errors
from shared.auth import Service, Sweeper, TrustingContext
from shared.cursor import Cursor
from shared.errors import BadRequest, ServiceError, TooLarge, Unavailable
from shared.logs import RequestLog
from shared.routing import Route
from shared.settings import ServiceSettings

log = getLogger(__name__)

JSON_BODY_BYTES = 2 * 1_048_576
TOO_LARGE = f"The request's body is larger than {JSON_BODY_BYTES} bytes."
# FastAPI's own would ask for OpenTelemetry's providers at each request; there are none.
TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}


def _digits(value: object) -> object:
    """Digits alone: what else Python takes for a whole number (``1_0``, ``+1``, ``1.0``) nobody means."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError("must be a whole number, 0 or more")
    return value


plain = BeforeValidator(_digits)
Start = Annotated[int, plain, Query(ge=0, description="How many to skip.")]


def _is_cursor(text: str) -> str:
    Cursor.parse(text)
    return text


# It stays text, which `shared.routing` takes the short way; empty where it is not given.
After = Annotated[
    str,
    AfterValidator(_is_cursor),
    Query(description="What the page before gave as `next`: the list goes on behind that page, whatever `start` says."),
]
Check = Callable[[], Awaitable[str]]
Sweep = Callable[[], Awaitable[dict[str, int]]]


def install(app: FastAPI, settings: ServiceSettings, streams: Iterable[str] = ()) -> None:
    """Put the layers around ``app``, from the inside out: errors, body limit, CORS, request log.

    ``streams`` are the path prefixes whose routes read their body piece by piece, under a limit of their own.
    """
    errors.install(app)
    app.add_middleware(_BodyLimit, streams=tuple(streams))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.origins,
        allow_credentials="*" not in settings.origins,  # with both, every page would be every user's
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"],
        allow_headers=["Content-Type", "Authorization", "Range", "If-Range", "If-None-Match", "traceparent"],
        expose_headers=["Content-Range", "Accept-Ranges", "Content-Length", "ETag", "Retry-After"],
    )
    app.add_middleware(_PreflightRefusals)
    app.add_middleware(RequestLog)


def lifespan(
    open_context: Callable[[], AbstractAsyncContextManager[TrustingContext]],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """FastAPI's ``lifespan``: what ``open_context`` opens is ``app.state.context`` while the service runs."""

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with open_context() as app.state.context:
            yield

    return opened


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    service: str


class Ready(BaseModel):
    """``checks`` names everything that the service stands on, with its state."""

    status: Literal["ready"] = "ready"
    service: str
    checks: dict[str, str]


def status_routes(service: str) -> APIRouter:
    """``/health``: the process is up. ``/ready``: everything it stands on answers, each named with its state."""
    router = APIRouter(tags=["status"], responses=errors.RESPONSES, route_class=Route)

    @router.get("/health", summary="Whether the process is up")
    async def health() -> Health:
        return Health(service=service)

    @router.get("/internal/health", include_in_schema=False)
    async def health_to_services(_: Service) -> Health:
        """For peers: it also tells whether they have the same secret as we."""
        return Health(service=service)

    @router.get("/ready", summary="Whether its database, storage and peers answer")
    async def ready(request: Request) -> Ready:
        checks: Mapping[str, Check] = request.app.state.context.checks
        states = dict(zip(checks, await asyncio.gather(*(check() for check in checks.values())), strict=True))
        failed = [name for name, state in states.items() if state != "ok"]
        if failed:
            raise Unavailable(f"Not ready: {', '.join(failed)}.", code="not_ready", checks=states)
        return Ready(service=service, checks=states)

    return router


async def answers(ping: Awaitable[Any]) -> str:
    """A check over anything that raises when it does not answer."""
    try:
        async with asyncio.timeout(2.0):
            await ping
    except (ServiceError, OSError):
        return "unreachable"
    return "ok"


def sweep_route() -> APIRouter:
    """``POST /internal/sweep``: one round of the context's ``sweep`` now; answers what it did."""
    router = APIRouter(prefix="/internal", include_in_schema=False, route_class=Route)

    @router.post("/sweep")
    async def sweep_now(request: Request, _: Sweeper) -> dict[str, int]:
        sweep: Sweep = request.app.state.context.sweep
        return await sweep()

    return router


@asynccontextmanager
async def sweeping(sweep: Sweep, every: float) -> AsyncIterator[Sweep]:
    """Sweep at start and then every so many seconds, in the background; what fails is logged and tried again.

    Gives the function for one round now. Rounds never overlap: when it returns, what an earlier round began is done.
    """
    turn = asyncio.Lock()

    async def one_round() -> dict[str, int]:
        async with turn:
            return await sweep()

    async def forever() -> None:
        while True:
            try:
                if done := {what: number for what, number in (await one_round()).items() if number}:
                    log.info("swept: %s", done)
            except ServiceError as error:
                log.warning("the sweep will be tried again: %s", error.message)
            except Exception:
                log.exception("the sweep failed and will be tried again")
            await asyncio.sleep(every)

    task = asyncio.create_task(forever(), name="sweeper")
    try:
        yield one_round
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _BodyLimit:
    """Refuses a body over the limit: by its declared length before a byte is read, else when it has grown too long.

    Starlette's own limit answers the first in plain text.
    """

    def __init__(self, app: ASGIApp, streams: tuple[str, ...]) -> None:
        self.app = app
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(self.streams):
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared[:19]) > JSON_BODY_BYTES:
            await errors.render(TooLarge(TOO_LARGE))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > JSON_BODY_BYTES:
                raise TooLarge(TOO_LARGE)
            return message

        await self.app(scope, counted, send)


class _PreflightRefusals:
    """Stands around ``CORSMiddleware``: a preflight that it refuses in plain text is JSON like every other error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            await self.app(scope, receive, send)
            return
        refusal: Headers | None = None

        async def rewrite(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and message["status"] == 400:  # no route of ours has OPTIONS
                refusal = Headers(raw=message["headers"])
            elif refusal is None:
                await send(message)
            else:  # the middleware sends its sentence in one piece
                kept = {name: value for name, value in refusal.items() if not name.startswith("content-")}
                error = BadRequest(f"{message['body'].decode()}.", code="cors", headers=kept)
                await errors.render(error)(scope, receive, send)

        await self.app(scope, receive, rewrite)
