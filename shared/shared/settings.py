"""What every service reads from its environment and its ``.env``, and how a wrong value stops the start."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import urlsplit

from jose import jwt
from jose.exceptions import JOSEError
from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1_048_576
"""MB means this many bytes everywhere."""


class SettingsError(Exception):
    """A service cannot start with what it was given; the text names each setting, one a line."""


def _secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < 32:
        raise ValueError("must be at least 32 bytes of random text, the same in all five services")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    # `port` raises ValueError for one that cannot be.
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or parts.query or parts.fragment:
        raise ValueError("must be a URL such as http://127.0.0.1:3001")
    try:
        host = parts.hostname.encode("idna")
    except UnicodeError:  # an empty or too long part between the dots
        host = b""
    if parts.username is not None or not host:
        raise ValueError("must be a URL such as http://127.0.0.1:3001, with a host's name and no user's")
    return value.rstrip("/")


def _key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("is no key: copy the project's service_role or secret key, as it is and whole")
    if _is_for_browsers(key):
        raise ValueError("is a key for browsers: take the project's service_role or secret key instead")
    return value


def _is_for_browsers(key: str) -> bool:
    """Whether a Supabase key is a public one: it could read and write nothing of ours."""
    try:
        return jwt.get_unverified_claims(key).get("role") in ("anon", "authenticated")
    except JOSEError:
        return key.startswith("sb_publishable_")


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _origins(value: str) -> str:
    origins = [origin.rstrip("/") for origin in _listed(value)]
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path):
            raise ValueError("must be origins such as http://localhost:3000, separated by commas")
    if not origins:
        raise ValueError("must name at least one origin such as http://localhost:3000")
    return ",".join(origins)


def _origin(value: str) -> str:
    value = _url(value)
    parts = urlsplit(value)
    if parts.path:
        raise ValueError("must be a URL such as https://user-service-123.europe-west3.run.app, without a path")
    return f"{parts.scheme}://{parts.netloc.lower()}"  # as a caller's client writes it, for audiences are compared


def _accounts(value: str) -> str:
    accounts = _listed(value)
    if not accounts or not all(re.fullmatch(r"[^@\s]+@[^@\s]+", account) for account in accounts):
        raise ValueError("must be the emails of service accounts, separated by commas")
    return ",".join(accounts)


Secret = Annotated[SecretStr, AfterValidator(_secret)]
Url = Annotated[str, AfterValidator(_url)]
Origin = Annotated[str, AfterValidator(_origin)]
Origins = Annotated[str, AfterValidator(_origins)]
Accounts = Annotated[str, AfterValidator(_accounts)]
Megabytes = Annotated[float, Field(ge=0.001, le=1_000_000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]


class ServiceSettings(BaseSettings):
    """The settings that all five share. The environment wins over ``.env``; an empty value counts as not set."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    service: ClassVar[str]

    jwt_secret: Secret
    jwt_secret_previous: Secret | None = None
    supabase_url: Url | None = None
    supabase_key: Annotated[SecretStr, AfterValidator(_key)] | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)]
    frontend_url: Origins = "http://localhost:3000,http://127.0.0.1:3000"
    data_dir: Path = Path("data")
    log_format: Literal["auto", "json", "text"] = "auto"
    google_cloud_project: str | None = None
    service_url: Origin | None = None
    internal_callers: Accounts | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        for one, other, neither in (
            ("SUPABASE_URL", "SUPABASE_KEY", "neither for SQLite"),
            ("SERVICE_URL", "INTERNAL_CALLERS", "neither"),
        ):
            missing = [name for name in (one, other) if not getattr(self, name.lower())]
            if len(missing) == 1:
                raise ValueError(f"{missing[0]} is missing: set both {one} and {other}, or {neither}")
        return self

    @property
    def secrets(self) -> list[str]:
        """The secret that signs, then the one before it, which is still accepted."""
        return [one.get_secret_value() for one in (self.jwt_secret, self.jwt_secret_previous) if one is not None]

    @property
    def callers(self) -> frozenset[str]:
        return frozenset((self.internal_callers or "").split(",")) - {""}

    @property
    def needs_disk(self) -> bool:
        """Whether anything is kept in ``data_dir``."""
        return self.supabase_url is None

    @property
    def origins(self) -> list[str]:
        return self.frontend_url.split(",")


S = TypeVar("S", bound=ServiceSettings)


def load(kind: type[S], **given: Any) -> S:
    """Read the settings of one service; raise ``SettingsError`` that names what is wrong, never a secret's value."""
    try:
        return kind(**given)
    except ValidationError as error:
        lines = []
        for wrong in error.errors(include_url=False, include_context=False, include_input=False):
            name = "_".join(str(part) for part in wrong["loc"]).upper()
            reason = "is missing" if wrong["type"] == "missing" else wrong["msg"].removeprefix("Value error, ")
            lines.append(f"{kind.service}: {name} {reason}" if name else f"{kind.service}: {reason}")
        raise SettingsError("\n".join(f"{line} (see {kind.service}/.env.example)" for line in lines)) from None
