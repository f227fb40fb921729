"""Service-to-service identity on Cloud Run: Google's ID tokens, fetched and verified by google-auth.

Browsers call all five services, so Cloud Run lets every request in, and ``/internal`` is guarded here. A call to a peer
carries an ID token of our service account, made for that peer alone, in two headers: ``X-Serverless-Authorization`` is
for Cloud Run, which checks it where a service is not public, and removes its signature; ``X-Service-Identity`` arrives
as it was sent, and is verified here. https://cloud.google.com/run/docs/authenticating/service-to-service
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import cache, lru_cache, partial
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import httpx
from google.auth import jwt
from google.auth.compute_engine import IDTokenCredentials
from google.auth.credentials import TokenState
from google.auth.exceptions import GoogleAuthError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from shared.auth import HEADER, TOKEN
from shared.errors import Forbidden, Unauthorized, Unavailable
from shared.http import FAULTS, open_client

log = logging.getLogger(__name__)

SERVERLESS_HEADER = "X-Serverless-Authorization"
# Deliberately not configurable: whatever controls this URL could forge any caller. A JSON object of X.509 certificates.
CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"
TIMEOUT_SECONDS = 2.0
# Google's Cache-Control allows about six hours, and a new key is published about a day before its first use. So a token
# of an unknown key needs no fetch, and while fetches fail the known certificates stay good for a day.
CERTS_FRESH_SECONDS = 3600
CERTS_KEEP_SECONDS = 86_400
RETRY_SECONDS = 2
# google-auth compares ``iat`` with our clock, and Google's may be ahead of it.
CLOCK_SKEW_SECONDS = 10
_CERTS = TypeAdapter(Annotated[dict[str, str], Field(min_length=1)])
# What google-auth raises for a malformed token: TypeError for a claim of another type, RecursionError for deep JSON.
_MALFORMED = (GoogleAuthError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class _Claims(BaseModel):
    """What google-auth leaves to us, after signature, audience, ``iat`` and (with the clock skew) ``exp``."""

    model_config = ConfigDict(strict=True)

    iss: Literal["https://accounts.google.com", "accounts.google.com"]
    exp: int
    email: str
    email_verified: bool


class Identity:
    """Our own identity towards peers, and the check of callers. ``now`` is in seconds since the epoch."""

    def __init__(
        self, client: httpx.AsyncClient, service_url: str, callers: frozenset[str], now: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._service_url = service_url
        self._callers = callers
        self._now = now
        self._loop = asyncio.get_running_loop()
        # Without a request google-auth does not look up the account; unbound, no client certificate is needed.
        unbound = partial(IDTokenCredentials, None, use_metadata_identity_endpoint=True, bind_id_token=False)
        self._credentials = cache(unbound)
        self._fetches: dict[str, asyncio.Task[str]] = {}
        self._certs_due = self._certs_end = 0.0
        self._opened: Callable[[str], _Claims]  # there once certificates are

    async def sign(self, request: httpx.Request) -> None:
        """Set both headers; raises ``Unavailable`` within TIMEOUT_SECONDS."""
        token = await self.token(f"{request.url.scheme}://{request.url.netloc.decode()}")
        request.headers[SERVERLESS_HEADER] = request.headers[HEADER] = f"Bearer {token}"

    async def token(self, audience: str) -> str:
        """Our ID token for ``audience``, renewed in the background when google-auth calls it stale, 225 s before its
        end; raises ``Unavailable``.
        """
        credentials = self._credentials(audience)
        if (state := credentials.token_state) is not TokenState.FRESH:
            refresh = partial(asyncio.to_thread, credentials.refresh, self._request)
            fetch = self._shared("the metadata server", audience, refresh)
            if state is TokenState.INVALID and (failure := await asyncio.shield(fetch)):
                raise _unavailable(failure)
        return str(credentials.token)

    async def verified(self, token: str) -> str:
        """The account in a token made for us. Raises ``Unauthorized``; ``Unavailable`` without certificates."""
        if not TOKEN.fullmatch(token):
            raise _refused()
        if self._now() >= self._certs_due:
            failure = await asyncio.shield(self._shared("Google", CERTS_URL, self._fetch_certs))
            if failure:
                self._certs_due = self._now() + RETRY_SECONDS
        if self._now() >= self._certs_end:
            raise _unavailable("Google's certificates cannot be fetched")
        claims = self._opened(token)
        if claims.exp <= self._now() or not claims.email_verified:
            raise _refused()
        return claims.email

    async def caller(self, token: str) -> str:
        """``verified``, and an account that may call; raises ``Forbidden`` too."""
        email = await self.verified(token)
        if email not in self._callers:
            raise Forbidden("This identity may not make this call.", code="identity_forbidden")
        return email

    async def aclose(self) -> None:
        for fetch in (fetches := [*self._fetches.values()]):
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def _fetch_certs(self) -> None:
        certs = _CERTS.validate_json((await self._get(CERTS_URL)).content)
        # As in shared.auth, a known token costs a look-up. No token is known longer than its certificate.
        self._opened = lru_cache(maxsize=1024)(partial(_open, certs, self._service_url))
        self._certs_due = self._now() + CERTS_FRESH_SECONDS
        self._certs_end = self._now() + CERTS_KEEP_SECONDS

    def _shared(self, server: str, key: str, fetch: Callable[[], Awaitable[None]]) -> asyncio.Task[str]:
        """The fetch of ``key`` that runs, or a new one, for all that wait; await it by ``asyncio.shield``."""
        if key not in self._fetches:
            self._fetches[key] = asyncio.create_task(_outcome(server, fetch), name="identity")
            self._fetches[key].add_done_callback(lambda _: self._fetches.pop(key))
        return self._fetches[key]

    async def _get(self, url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return (await self._client.get(url, headers=headers)).raise_for_status()

    def _request(self, url: str, headers: Mapping[str, str], **_: Any) -> SimpleNamespace:
        """google-auth's way out; it is synchronous, and so in a thread. The request itself runs in the event loop: our
        client and timeout hold, and no error is one for which google-auth would try again for 15 s.
        """
        answer = asyncio.run_coroutine_threadsafe(self._get(url, headers), self._loop).result()
        return SimpleNamespace(status=answer.status_code, headers=answer.headers, data=answer.content)


@asynccontextmanager
async def open_google_identity(
    service_url: str, callers: frozenset[str], transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator[Identity]:
    async with open_client(transport) as client, aclosing(Identity(client, service_url, callers)) as identity:
        yield identity


def _open(certs: Mapping[str, str], audience: str, token: str) -> _Claims:
    try:
        claims = jwt.decode(token, certs, audience=audience, clock_skew_in_seconds=CLOCK_SKEW_SECONDS)
        return _Claims.model_validate(claims)
    except _MALFORMED:
        raise _refused() from None


async def _outcome(server: str, fetch: Callable[[], Awaitable[None]]) -> str:
    """Why it failed, or nothing. google-auth's own messages may contain the token."""
    try:
        await fetch()
    except (*FAULTS, *_MALFORMED) as error:
        why = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
        log.warning("%s does not answer as expected (%s)", server, why)
        return f"{server} does not answer as expected ({why})"
    return ""


def _refused() -> Unauthorized:
    return Unauthorized("This is not the identity of a service, or not for this one.", code="identity_invalid")


def _unavailable(reason: str) -> Unavailable:
    sentence = "Services cannot be told apart just now; please try again in a moment."
    return Unavailable(sentence, code="identity_unavailable", reason=reason)
