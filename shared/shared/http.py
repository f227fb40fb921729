"""The peer client: how one service asks another. One HTTP client per process; every call carries our token and the
trace. Large bodies do not go this way: an upload is sent to its target (video_service.target).

A peer that cannot be reached, is late, or answers nonsense becomes ``Unavailable`` (our own 503). A peer that
understood and said no becomes ``PeerRefused``, with its status and sentence.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, TypeVar

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, Field, ValidationError

from shared.errors import ErrorBody, PeerRefused, Unavailable
from shared.logs import traceparent
from shared.retry import retry

if TYPE_CHECKING:
    from shared.identity import Identity

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

CONNECT_SECONDS = 1.0
READ_SECONDS = 5.0
FAULTS = (httpx.HTTPError, aiohttp.ClientError, OSError)  # TimeoutError is an OSError
# Never the caller's fault: our token is not taken (different secrets?), or another program has the peer's address.
OUR_STATUS = {401, 403, 405}
OUR_CODE = "not_found"
# Shorter than our servers' own keep-alive (see shared.serving), so that a pooled connection is never a closed one.
KEEPALIVE_SECONDS = 30.0


@asynccontextmanager
async def open_client(
    transport: httpx.AsyncBaseTransport | None = None, identity: "Identity | None" = None
) -> AsyncIterator[httpx.AsyncClient]:
    """The client for small calls. httpx over aiohttp's transport: the same interface, five times the calls.

    ``identity`` adds to each call which service makes it (see shared.identity).
    """
    limits = httpx.Limits(max_connections=200, keepalive_expiry=KEEPALIVE_SECONDS)
    async with httpx.AsyncClient(
        transport=transport or AiohttpTransport(limits=limits),
        timeout=_timeout(READ_SECONDS),
        event_hooks={"request": [identity.sign] if identity else []},
        follow_redirects=False,  # a call carries our token, which no other address may have
        trust_env=False,
    ) as client:
        yield client


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=CONNECT_SECONDS)


def connection_broke(error: Exception) -> bool:
    """Whether a call failed on the way, and may be made again. After a timeout it may not: it may be half done."""
    return isinstance(error, FAULTS) and not isinstance(error, TimeoutError | httpx.ReadTimeout)


class _Health(BaseModel):
    service: Annotated[str, Field(max_length=40)]


class Peer:
    """One other service. ``token`` gives our service token, made anew when it is due."""

    def __init__(self, client: httpx.AsyncClient, name: str, url: str, token: Callable[[], str]) -> None:
        self.name = name
        self._client = client
        self._url = url
        self._token = token

    async def call(
        self, method: str, path: str, body: BaseModel | None = None, *, tries: int = 2, seconds: float = READ_SECONDS
    ) -> httpx.Response:
        """One small call. Every internal call is keyed by what it is about, so repeating it is safe: one retry.

        ``seconds`` is how long the peer may take to answer.
        """
        headers = self._headers() | ({"Content-Type": "application/json"} if body else {})
        content = body.model_dump_json().encode() if body else None

        async def once() -> httpx.Response:
            async with asyncio.timeout(seconds):
                url, timeout = self._url + path, _timeout(seconds)
                return await self._client.request(method, url, headers=headers, content=content, timeout=timeout)

        try:
            response = await retry(once, on=connection_broke, tries=tries)
        except FAULTS as error:
            log.warning("%s does not answer: %s", self.name, type(error.__cause__ or error).__name__)
            raise self._unavailable() from error
        if response.is_success:
            return response
        with suppress(ValidationError):
            refusal = ErrorBody.model_validate_json(response.content)
            if response.is_client_error and response.status_code not in OUR_STATUS and refusal.code != OUR_CODE:
                raise PeerRefused(response.status_code, refusal.message, refusal.code)
        log.error("%s answered %s", self.name, response.status_code)
        raise self._unavailable()

    async def ask(
        self, method: str, path: str, answer: type[M], body: BaseModel | None = None, *, seconds: float = READ_SECONDS
    ) -> M:
        """``call``, and the answer as a model."""
        response = await self.call(method, path, body, seconds=seconds)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError:
            log.error("%s answered something else than %s", self.name, answer.__name__)
            raise self._unavailable() from None

    async def state(self) -> str:
        """``ok``, or why not: a few words for ``/ready``."""
        try:
            async with asyncio.timeout(1.0):
                response = await self._client.get(f"{self._url}/internal/health", headers=self._headers())
        except FAULTS:
            return "unreachable"
        except Unavailable as error:  # our identity cannot be had
            return f"cannot be asked: {error.reason}"
        if response.status_code in (401, 403):
            if b'"identity_' in response.content:
                return "does not take our identity (are its SERVICE_URL and INTERNAL_CALLERS right?)"
            return "does not take our token (is its JWT_SECRET another one?)"
        if response.status_code != 200:
            return f"answers {response.status_code}"
        try:
            name = _Health.model_validate_json(response.content).service
        except ValidationError:
            name = "something else"
        return "ok" if name == self.name else f"answers as {name}"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}", "traceparent": traceparent()}

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The {self.name} does not answer; please try again in a moment.", code="peer_unavailable")
