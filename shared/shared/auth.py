"""Tokens: who is calling. One secret, two audiences: people and services never open each other's doors.

A user's token is read by the page itself with ``atob``, which refuses ``-`` and ``_``. base64url writes these two for
the six-bit groups 62 and 63, and in ASCII text those arise only from a third byte of ``>``, ``?``, ``~`` or DEL. So the
payload is ASCII JSON with these four escaped (RFC 8259, 7), and any JWT library still verifies it.
"""

import json
import re
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal, NoReturn

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from jose import jws, jwt
from jose.exceptions import JOSEError
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import Forbidden, Unauthorized
from shared.identity import HEADER, Identity, bearer, is_googles
from shared.settings import ServiceSettings

ISSUER = "short-video"
USERS = "short-video-users"
SERVICES = "short-video-services"
SERVICE_TOKEN_SECONDS = 300
# Longer than any of ours: an address has 320 characters, each of which JSON and base64 make 16 of at most.
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,6144}")

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
        secrets = [settings.jwt_secret, settings.jwt_secret_previous]
        self._secrets = [secret.get_secret_value() for secret in secrets if secret is not None]
        self._service = settings.service
        self._now = now
        self._service_token = ""
        self._service_token_renewal = 0.0
        # Verifying costs more than the rest of a small request; a known token costs a look-up, its expiry still
        # checked.
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
        payload = json.dumps(
            {
                **claims,
                "iss": ISSUER,
                "aud": audience,
                "iat": now,
                "exp": now + int(lifetime),
                "jti": uuid.uuid4().hex,
            },
            separators=(",", ":"),
        )
        for sign in ">?~\x7f":
            payload = payload.replace(sign, f"\\u{ord(sign):04x}")
        return str(jws.sign(payload.encode("ascii"), self._secrets[0], algorithm="HS256"))

    def _open(self, token: str) -> "tuple[_Claims, User | None]":
        if not _TOKEN.fullmatch(token):  # the library reads past other signs: one token would fill the cache
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


class _Bearer(SecurityBase):
    """Who sent the token in the header. It is the dependency itself: one more of them costs more than the verifying."""

    model = HTTPBearer(description="The token that `POST /api/users/login` gives.")
    scheme_name = "HTTPBearer"

    @staticmethod
    def token(request: Request) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None


class _User(_Bearer):
    async def __call__(self, request: Request) -> User:
        tokens: Tokens = request.app.state.tokens
        return tokens.user(self.token(request) or _refuse())


class _Admin(_User):
    async def __call__(self, request: Request) -> User:
        user = await super().__call__(request)
        if not user.is_admin:
            raise Forbidden("Only an administrator may do this.")
        return user


class _Service(_Bearer):
    async def __call__(self, request: Request) -> str:
        tokens: Tokens = request.app.state.tokens
        token = self.token(request)
        if not token:
            raise Unauthorized("This call needs a service's token.")
        service = tokens.service(token)
        identity: Identity | None = request.app.state.identity
        if identity is not None:
            await identity.caller(bearer(request.headers.get(HEADER)))
        return service


class _Sweeper(_Service):
    async def __call__(self, request: Request) -> str:
        identity: Identity | None = request.app.state.identity
        token = self.token(request)
        if identity is not None and token and is_googles(token):
            return await identity.caller(token)
        return await super().__call__(request)


CurrentUser = Annotated[User, Depends(_User())]
Admin = Annotated[User, Depends(_Admin())]
Service = Annotated[str, Depends(_Service())]
Sweeper = Annotated[str, Depends(_Sweeper())]
"""A service; or Cloud Scheduler, which has no token of ours, by what Google says of its account."""
