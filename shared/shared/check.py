"""``python -m <service> check``: whether everything that a service stands on answers; a line each, and what to do."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from shared.auth import Tokens, open_identity
from shared.database import DatabaseError
from shared.errors import ServiceError, Unavailable
from shared.http import Peer, open_client
from shared.settings import S, ServiceSettings, SettingsError, load

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
    trials: dict[str, Trial] = {"database": partial(_database, settings, open_store), **more(settings)}
    if settings.service_url:
        trials["identity"] = partial(_identity, settings, settings.service_url)
    for setting in kind.model_fields:
        if setting.endswith("_service_url"):
            peer = setting.removesuffix("_url").replace("_", "-")
            trials[peer] = partial(_peer, settings, peer, setting)
    return asyncio.run(_check(settings, trials))


async def _check(settings: ServiceSettings, trials: Mapping[str, Trial]) -> int:
    failed = 0
    for what, trial in trials.items():
        try:
            told, well = await trial(), True
        except (ServiceError, DatabaseError, SettingsError) as error:
            told, well = getattr(error, "reason", "") or str(error).removeprefix(f"{settings.service}: "), False
        _tell(settings.service, what, told, well=well)
        failed += not well
    return 1 if failed else 0


async def _database(settings: S, open_store: Callable[[S], AbstractAsyncContextManager[Pingable]]) -> str:
    async with open_store(settings) as store:
        await store.ping()
    return f"Supabase, {settings.supabase_url}" if settings.supabase_url else f"SQLite, in {settings.data_dir}"


async def _identity(settings: ServiceSettings, our_url: str) -> str:
    async with open_identity(settings) as identity:
        assert identity is not None
        return await identity.verified(await identity.token(our_url))


async def _peer(settings: ServiceSettings, name: str, setting: str) -> str:
    url = str(getattr(settings, setting))
    async with open_identity(settings) as identity, open_client(identity=identity) as client:
        state = await Peer(client, name, url, Tokens(settings).for_service).state()
    if state != "ok":
        raise Unavailable("", reason=f"{url} {state}: start it, or correct {setting.upper()}")
    return url


def _tell(service: str, what: str, told: str, *, well: bool) -> None:
    sys.stdout.write(f"{'ok  ' if well else 'FAIL'}  {service:16}{what:17}{told}\n")
    sys.stdout.flush()
