"""``python -m <service> check``: whether everything that a service stands on answers; a line each, and what to do."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from shared.auth import Tokens
from shared.database import DatabaseError
from shared.errors import ServiceError
from shared.http import Peer, open_client
from shared.identity import open_identity
from shared.settings import S, ServiceSettings, SettingsError, load

PEER_URL = "_service_url"
Trial = Callable[[], Awaitable[str]]
"""Tries something; a few words on what answered. Raises ``ServiceError`` or ``DatabaseError``."""


class Pingable(Protocol):
    async def ping(self) -> None: ...


def check(
    kind: type[S],
    open_store: Callable[[S], AbstractAsyncContextManager[Pingable]],
    more: Callable[[S], Mapping[str, Trial]] = lambda settings: {},
) -> int:
    """Print one line for each thing; the exit status is 0 if all is well."""
    logging.disable(logging.CRITICAL)  # what is wrong is told once, by its line
    try:
        settings = load(kind)
    except SettingsError as error:
        for line in str(error).splitlines():
            _tell(kind.service, "settings", line.removeprefix(f"{kind.service}: "), well=False)
        return 1
    _tell(kind.service, "settings", "complete", well=True)
    return asyncio.run(_check(settings, _database(settings, open_store), more(settings)))


async def _check(settings: ServiceSettings, database: Trial, more: Mapping[str, Trial]) -> int:
    failed = 0
    for what, trial in {"database": database, **more, **_identity(settings)}.items():
        try:
            told, well = await trial(), True
        except (ServiceError, DatabaseError, SettingsError) as error:
            told, well = getattr(error, "reason", "") or str(error).removeprefix(f"{settings.service}: "), False
        _tell(settings.service, what, told, well=well)
        failed += not well
    async for peer, url, state in _peers(settings):
        told = url if state == "ok" else f"{url} {state}: start it, or correct {_setting(peer)}"
        _tell(settings.service, peer, told, well=state == "ok")
        failed += state != "ok"
    return 1 if failed else 0


def _database(settings: S, open_store: Callable[[S], AbstractAsyncContextManager[Pingable]]) -> Trial:
    async def trial() -> str:
        async with open_store(settings) as store:
            await store.ping()
        return f"Supabase, {settings.supabase_url}" if settings.supabase_url else f"SQLite, in {settings.data_dir}"

    return trial


def _identity(settings: ServiceSettings) -> Mapping[str, Trial]:
    async def trial() -> str:
        async with open_identity(settings) as identity:
            assert identity is not None
            assert settings.service_url is not None
            return await identity.verified(await identity.token(settings.service_url))

    return {"identity": trial} if settings.service_url else {}


async def _peers(settings: ServiceSettings) -> AsyncIterator[tuple[str, str, str]]:
    async with open_identity(settings) as identity, open_client(identity=identity) as client:
        for field in type(settings).model_fields:
            if field.endswith(PEER_URL):
                name, url = field.removesuffix("_url").replace("_", "-"), str(getattr(settings, field))
                yield name, url, await Peer(client, name, url, Tokens(settings).for_service).state()


def _setting(peer: str) -> str:
    return peer.upper().replace("-", "_") + "_URL"


def _tell(service: str, what: str, told: str, *, well: bool) -> None:
    sys.stdout.write(f"{'ok  ' if well else 'FAIL'}  {service:16}{what:17}{told}\n")
    sys.stdout.flush()
