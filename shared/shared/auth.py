"""Tokens: who is calling. One secret, two audiences: people and services never open each other's doors.

A user's token is read by the page itself with ``atob``, which refuses ``-`` and ``_``. base64url writes these two for
the six-bit groups 62 and 63, and in ASCII text those arise only from a third byte of ``>``, ``?``, ``~`` or DEL. So the
payload is ASCII JSON with these four escaped (RFC 8259, 7), and any JWT library still verifies it.
"""

import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Protocol

import httpx
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import jws, jwt
from jose.exceptions import JOSEError
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import Forbidden, Unauthorized
from shared.settings import ServiceSettings

if TYPE_CHECKING:
    from shared.identity import Identity

ISSUER = "short-video"
USERS = "short-video-users"
SERVICES = "short-video-services"
SERVICE_TOKEN_SECONDS = 300
# Google's ID token of a calling service (shared.identity).
HEADER = "X-Service-Identity"
# JWT libraries skip other characters: one token in many spellings would fill a cache of verified ones. This is longer
# than any of ours: an address has 320 characters, each of which JSON and base64 make 16 of at most.
TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,6144}")

Role = Literal["user", "admin"]


class User(BaseModel):
    """The person behind a verified token."""

    model_config = ConfigDict(frozen=True)

    id: uuid.UUID
    email: str
    role: Role

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    def may_see(self, owner: uuid.UUID) -> bool:
        return self.is_admin or self.id == owner


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    sub: str
    aud: str
    exp: int
    email: str = ""
    role: Role = "user"


class Tokens:
    """Issues and verifies the tokens of one service. ``now`` is in seconds since the epoch."""

    def __init__(self, settings: ServiceSettings, now: Callable[[], float] = time.time) -> None:
        self._secrets = settings.secrets
        self._service = settings.service
        self._now = now
        self._service_token = ""
        self._service_token_renewal = 0.0
        # Verifying costs more than the rest of a small request; of a known token only the expiry is checked again.
        self._verified = lru_cache(maxsize=1024)(self._verify)

    def for_user(self, user: User, lifetime: float) -> str:
        """A token for ``user``, good for ``lifetime`` seconds."""
        claims = {"sub": str(user.id), "id": str(user.id), "email": user.email, "role": user.role}
        return self._issue(claims, USERS, lifetime)

    def for_service(self) -> str:
        """This service's own token, minutes long and reused until half of its life is over."""
        if self._now() >= self._service_token_renewal:
            self._service_token = self._issue({"sub": self._service}, SERVICES, SERVICE_TOKEN_SECONDS)
            self._service_token_renewal = self._now() + SERVICE_TOKEN_SECONDS / 2
        return self._service_token

    def user(self, token: str) -> User:
        """The person; raises ``Unauthorized``."""
        return self._open(token)[1] or _refuse()

    def service(self, token: str) -> str:
        """The calling service's name; raises ``Unauthorized``, or ``Forbidden`` for a person's token."""
        claims, user = self._open(token)
        if user is not None:
            raise Forbidden("This call is for services only.")
        return claims.sub

    def _issue(self, claims: dict[str, str], audience: str, lifetime: float) -> str:
        now = int(self._now())
        ours = {"iss": ISSUER, "aud": audience, "iat": now, "exp": now + int(lifetime), "jti": uuid.uuid4().hex}
        payload = json.dumps(claims | ours, separators=(",", ":"))
        for sign in ">?~\x7f":
            payload = payload.replace(sign, f"\\u{ord(sign):04x}")
        return str(jws.sign(payload.encode("ascii"), self._secrets[0], algorithm="HS256"))

    def _open(self, token: str) -> "tuple[_Claims, User | None]":
        if not TOKEN.fullmatch(token):  # the library reads past other signs, too
            raise Unauthorized
        claims, user = self._verified(token)
        if claims.exp <= self._now():
            raise Unauthorized("Your session has expired; sign in again.", code="token_expired")
        return claims, user

    def _verify(self, token: str) -> "tuple[_Claims, User | None]":
        for secret in self._secrets:
            try:
                opened = _Claims.model_validate(self._decode(token, secret))
                if opened.aud == USERS:
                    user = User(id=uuid.UUID(opened.sub), email=opened.email, role=opened.role)
                    return opened, user
                if opened.aud == SERVICES:
                    return opened, None
            except (JOSEError, ValidationError, ValueError, RecursionError):
                continue
        raise Unauthorized

    def _decode(self, token: str, secret: str) -> dict[str, Any]:
        # Expiry and audience are required by _Claims and judged by the callers: the first against our clock at every
        # use, the second by exact match.
        options = {"verify_exp": False, "verify_aud": False}
        required = {f"require_{claim}": True for claim in ("iat", "sub", "iss", "jti")}
        return dict(jwt.decode(token, secret, algorithms=["HS256"], issuer=ISSUER, options=options | required))


def _refuse() -> NoReturn:
    raise Unauthorized


class TrustingContext(Protocol):
    """What checking a caller takes of a service's ``Context``; ``identity`` is None outside Cloud Run."""

    @property
    def tokens(self) -> Tokens: ...
    @property
    def identity(self) -> "Identity | None": ...


@asynccontextmanager
async def open_identity(
    settings: ServiceSettings, transport: httpx.AsyncBaseTransport | None = None
) -> "AsyncIterator[Identity | None]":
    """None without SERVICE_URL: ``/internal`` then asks for our own token alone. ``transport`` replaces the network."""
    if settings.service_url is None:
        yield None
        return
    from shared.identity import open_google_identity  # noqa: PLC0415  google-auth takes 80 ms and 5 MB

    async with open_google_identity(settings.service_url, settings.callers, transport) as identity:
        yield identity


def _context(request: Request) -> TrustingContext:
    context: TrustingContext = request.app.state.context
    return context


_bearer = HTTPBearer(auto_error=False, description="The token that `POST /api/users/login` gives.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _user(request: Request, given: _Credentials) -> User:
    return _context(request).tokens.user(given.credentials if given else _refuse())


CurrentUser = Annotated[User, Depends(_user)]


async def _admin(user: CurrentUser) -> User:
    if not user.is_admin:
        raise Forbidden("Only an administrator may do this.")
    return user


async def _service(request: Request, given: _Credentials) -> str:
    if given is None:
        raise Unauthorized("This call needs a service's token.")
    context = _context(request)
    service = context.tokens.service(given.credentials)
    if context.identity is not None:
        await context.identity.caller(bearer(request.headers.get(HEADER)))
    return service


async def _sweeper(request: Request, given: _Credentials) -> str:
    identity = _context(request).identity
    if identity is not None and given and _is_googles(given.credentials):
        return await identity.caller(given.credentials)
    return await _service(request, given)


def bearer(value: str | None) -> str:
    """The token in HEADER."""
    scheme, _, token = (value or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("This call needs the identity of a service.", code="identity_required")
    return token.strip()


def _is_googles(token: str) -> bool:
    """Whether a token says it is signed with a key pair, as Google's are, and not with our secret. Not verified."""
    try:
        return bool(jwt.get_unverified_header(token).get("alg") == "RS256")
    except JOSEError:
        return False


Admin = Annotated[User, Depends(_admin)]
Service = Annotated[str, Depends(_service)]
Sweeper = Annotated[str, Depends(_sweeper)]
"""A service; or Cloud Scheduler, which has no token of ours, by what Google says of its account."""
