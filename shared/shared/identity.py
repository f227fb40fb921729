"""Which service calls, as Google vouches for it: on Cloud Run, beside our own token.

All five services are open to everybody there, as browsers call them, and Cloud Run's guard knows no paths. So we guard
``/internal`` ourselves. Every call to a peer carries a token that Google has signed for our account and for that peer
alone, and carries it twice: in ``X-Serverless-Authorization``, by which Cloud Run lets us into a service that it does
guard, and takes the signature away; and in ``X-Service-Identity``, which arrives as it was sent, and is verified here.
"""

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import quote

import aiohttp
import httpx
from jose import jwt
from jose.exceptions import JOSEError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import Forbidden, Unauthorized, Unavailable
from shared.http import open_client
from shared.settings import ServiceSettings

log = logging.getLogger(__name__)

HEADER = "X-Service-Identity"
SERVERLESS_HEADER = "X-Serverless-Authorization"
# No setting leads elsewhere: who may say whose keys are Google's may call everything.
GOOGLES_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
ISSUERS = ("https://accounts.google.com", "accounts.google.com")

SECONDS = 2.0
# Before its end a token is renewed in the background, and at last no call goes out with it: clocks differ.
RENEW_SECONDS = 300
LEEWAY_SECONDS = 30
# Keys are asked for again when they are too old, for a token that names an unknown one, and after a failure; but at
# most so often, whatever strangers send.
REFETCH_SECONDS = 60
RETRY_SECONDS = 2
# While Google does not give its keys, those that are known are good for so long: Google announces keys a day ahead.
LAST_SECONDS = 86_400
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LONGEST = 6144
_MAX_AGE = re.compile(r"max-age=(\d{1,9})")


class _Key(BaseModel):
    kid: Annotated[str, Field(min_length=1)]
    kty: Literal["RSA"]
    alg: Literal["RS256"] = "RS256"
    use: Literal["sig"] = "sig"
    n: str
    e: str


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    aud: str
    exp: int
    email: str
    email_verified: bool


@dataclass(frozen=True, slots=True)
class _Known:
    token: str
    renewal: float
    end: float


class Identity:
    """Our own identity towards peers, for the client that calls them; and the judge of callers."""

    def __init__(
        self, client: httpx.AsyncClient, service_url: str, callers: frozenset[str], now: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._service_url = service_url
        self._callers = callers
        self._now = now
        # As Google's own libraries have it.
        self._metadata = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        self._known: dict[str, _Known] = {}
        self._fetching: dict[str, asyncio.Task[_Known]] = {}
        self._keys = _Keys(client, now)
        # As in shared.auth: a known token costs a look-up, its expiry still checked. A key that is gone is not asked.
        self._opened = lru_cache(maxsize=1024)(_open)

    async def sign(self, request: httpx.Request) -> None:
        """Raises ``Unavailable``, and soon."""
        token = await self.token(f"{request.url.scheme}://{request.url.netloc.decode()}")
        request.headers[SERVERLESS_HEADER] = request.headers[HEADER] = f"Bearer {token}"

    async def token(self, audience: str) -> str:
        """Google's word for who we are, meant for ``audience`` alone. Raises ``Unavailable``, and soon."""
        known, now = self._known.get(audience), self._now()
        if known is None or now >= known.renewal:
            if audience not in self._fetching:
                self._fetching[audience] = asyncio.create_task(self._fetch(audience), name="identity")
                self._fetching[audience].add_done_callback(lambda task: self._fetched(audience, task))
            if known is None or now >= known.end:
                # All who wait share one fetch, and none who goes away takes it from the others.
                known = await asyncio.shield(self._fetching[audience])
        return known.token

    async def verified(self, token: str) -> str:
        """The account that ``token`` speaks for, at us. Raises ``Unauthorized``; ``Unavailable`` without the keys."""
        if len(token) > _LONGEST or not _TOKEN.fullmatch(token):
            raise _refused()
        try:
            header = jwt.get_unverified_header(token)
        except JOSEError:
            raise _refused() from None
        kid = header.get("kid")
        key = await self._keys.get(kid) if header.get("alg") == "RS256" and isinstance(kid, str) else None
        if key is None:
            raise _refused()
        claims = self._opened(token, key)
        if claims.aud != self._service_url or claims.exp <= self._now() or not claims.email_verified:
            raise _refused()
        return claims.email

    async def caller(self, token: str) -> str:
        """``verified``, and one of those who may call; raises ``Forbidden`` too."""
        email = await self.verified(token)
        if email not in self._callers:
            raise Forbidden("This identity may not make this call.", code="identity_forbidden")
        return email

    async def close(self) -> None:
        for task in (fetching := [*self._fetching.values()]):
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)

    async def _fetch(self, audience: str) -> _Known:
        path = f"/computeMetadata/v1/instance/service-accounts/default/identity?audience={quote(audience, safe='')}"
        url = f"http://{self._metadata}{path}&format=full"
        answer = await _get(self._client, "the metadata server", url, {"Metadata-Flavor": "Google"})
        token = answer.text.strip()
        try:
            end = int(jwt.get_unverified_claims(token)["exp"])
        except (JOSEError, KeyError, TypeError, ValueError):
            raise _away("the metadata server answers something else than a token") from None
        # One that comes near its end is used for a moment at least.
        renewal = max(end - RENEW_SECONDS, self._now() + RETRY_SECONDS)
        self._known[audience] = _Known(token, renewal, end - LEEWAY_SECONDS)
        return self._known[audience]

    def _fetched(self, audience: str, task: "asyncio.Task[_Known]") -> None:
        del self._fetching[audience]
        if not task.cancelled() and (error := task.exception()) is not None:  # even if nobody waits any more
            log.warning("our identity for a peer cannot be had: %s", getattr(error, "reason", type(error).__name__))


class _Keys:
    """Google's public keys by their names."""

    def __init__(self, client: httpx.AsyncClient, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self._turn = asyncio.Lock()
        self._by_name: dict[str, str] = {}
        self._old = self._end = self._next_try = 0.0

    async def get(self, kid: str) -> str | None:
        """The key as JSON; raises ``Unavailable`` while nobody can tell."""
        if self._is_due(kid):
            async with self._turn:
                if self._is_due(kid):
                    await self._fetch()
        if self._now() >= self._end:
            raise _away("Google's keys cannot be had")
        return self._by_name.get(kid)

    def _is_due(self, kid: str) -> bool:
        return self._now() >= self._next_try and (self._now() >= self._old or kid not in self._by_name)

    async def _fetch(self) -> None:
        try:
            answer = await _get(self._client, "Google", GOOGLES_KEYS, {})
            self._by_name = _read_keys(answer)
        except Unavailable as error:
            log.warning("Google's keys cannot be had: %s", error.reason)
            self._next_try = self._now() + RETRY_SECONDS
            return
        lasting = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        now = self._now()
        self._next_try = now + REFETCH_SECONDS
        self._end = now + LAST_SECONDS
        self._old = now + min(max(int(lasting[1]) if lasting else 0, REFETCH_SECONDS), LAST_SECONDS)


@asynccontextmanager
async def open_identity(
    settings: ServiceSettings, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Identity | None]:
    """None where SERVICE_URL and INTERNAL_CALLERS are not set: then our own token is all that ``/internal`` asks for.

    ``transport`` stands in for the network.
    """
    if settings.service_url is None:
        yield None
        return
    async with open_client(transport) as client:
        identity = Identity(client, settings.service_url, settings.callers)
        try:
            yield identity
        finally:
            await identity.close()


def is_googles(token: str) -> bool:
    """Whether a token claims to be signed with a key, as Google's are, and not with our secret; nothing is verified."""
    try:
        return bool(jwt.get_unverified_header(token).get("alg") == "RS256")
    except JOSEError:
        return False


def bearer(value: str | None) -> str:
    """The token in our header."""
    scheme, _, token = (value or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("This call needs the identity of a service.", code="identity_required")
    return token.strip()


async def _get(client: httpx.AsyncClient, who: str, url: str, headers: Mapping[str, str]) -> httpx.Response:
    """One small answer, soon; asked for once more if the connection breaks."""
    for attempt in range(2):
        try:
            async with asyncio.timeout(SECONDS):
                answer = await client.get(url, headers=headers)
        except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if attempt == 0 and not isinstance(error, TimeoutError | httpx.TimeoutException):
                continue
            raise _away(f"{who} does not answer ({type(error).__name__})") from error
        if answer.status_code != 200:
            raise _away(f"{who} answers {answer.status_code}")
        return answer
    raise AssertionError("unreachable")


def _read_keys(answer: httpx.Response) -> dict[str, str]:
    try:
        given = answer.json()["keys"]
    except (ValueError, KeyError, TypeError):
        raise _away("Google answers something else than keys") from None
    found = {}
    for one in given:
        try:
            key = _Key.model_validate(one)
        except ValidationError:  # of a kind that we do not take
            continue
        found[key.kid] = json.dumps(key.model_dump())
    return found


def _open(token: str, key: str) -> _Claims:
    options = {"verify_exp": False, "verify_aud": False, "verify_at_hash": False, "require_iat": True}
    try:
        claims: dict[str, Any] = jwt.decode(token, json.loads(key), ["RS256"], options, issuer=ISSUERS)
        return _Claims.model_validate(claims)
    except (JOSEError, ValidationError, ValueError, RecursionError):
        raise _refused() from None


def _refused() -> Unauthorized:
    return Unauthorized("This is not the identity of a service, or not for this one.", code="identity_invalid")


def _away(reason: str) -> Unavailable:
    return Unavailable(
        "Services cannot be told apart just now; please try again in a moment.",
        code="identity_unavailable",
        reason=reason,
    )
