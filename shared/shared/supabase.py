"""Supabase opened the way every service needs it: one client, calls that may be repeated, failures that are ours.

PostgREST gives each call one transaction, so whatever must be atomic is one SQL function. Every function answers one
JSON object and every read a list, so an answer that was cut off is never taken for a figure: it is not valid. An
answer may be lost after the change was made; so each call may be made again without a second effect, and a call that
failed on the way is made again once.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from postgrest import APIError, CountMethod
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from shared.errors import Unavailable
from shared.http import FAULTS, READ_SECONDS, connection_broke, open_client
from shared.retry import retry
from shared.settings import ServiceSettings

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
Query = Callable[[], Awaitable[Any]]
"""``execute`` of a query, which may be called again."""

PAUSE_SECONDS = 0.1
# Supabase's gateway turns an ``sb_secret_`` key into a token, by a clock that is sometimes ahead of PostgREST's. The
# same call succeeds a second or two later (github.com/supabase/supabase/issues/49655).
SKEW = "JWT issued at future"
SKEW_PAUSES = (0.5, 1.5)
# Worth another try: the way there (a gateway's own status), PostgREST without its database, and PostgreSQL's advice.
PASSING = {"502", "503", "504", "520", "521", "522", "523", "524", "PGRST000", "PGRST001", "PGRST002", "40001", "40P01"}
NO_MIGRATION = {"42P01", "42883", "PGRST202", "PGRST205"}
MIGRATE = "apply it with psql or supabase db push, as README has it"
NO_RIGHT = {"42501", "22023"}  # the second: no such role
BAD_KEY = {"401", "PGRST301", "PGRST302", "PGRST303"}


class Done(BaseModel):
    """The answer of a function that has nothing to tell."""


class _Applied(BaseModel):
    name: str


class Supabase:
    """One service's access to one project. Every failure of the database or the way there is ``Unavailable`` (503)."""

    def __init__(self, client: AsyncClient, migrations: Sequence[str]) -> None:
        self._client = client
        self._migrations = migrations

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: ServiceSettings, migrations: Sequence[str]) -> AsyncIterator[Self]:
        """``migrations`` are those that the service needs, by the names of their files."""
        assert settings.supabase_url is not None
        assert settings.supabase_key is not None
        async with open_client() as http:
            # Its hidden retries would hold a request for 7 s when the database is away.
            options = AsyncClientOptions(
                httpx_client=http, auto_refresh_token=False, persist_session=False, postgrest_client_retry=False
            )
            client = await acreate_client(settings.supabase_url, settings.supabase_key.get_secret_value(), options)
            yield cls(client, migrations)

    async def call(self, function: str, answer: type[M], **arguments: object) -> M:
        """One SQL function with these named arguments; its answer."""
        query = self._client.rpc(function, to_jsonable_python(arguments))
        return _parsed(answer, (await self._ask(query.execute)).data)

    async def find(self, table: str, row: type[M], column: str, value: str) -> M | None:
        """The row of ``table`` with this ``value``, of which there is one or none."""
        if "\0" in value:  # which PostgreSQL cannot hold, nor look for
            return None
        query = self._client.table(table).select("*", count=CountMethod.exact).eq(column, value).limit(1)
        rows = await self._rows(query.execute)
        return _parsed(row, rows[0]) if rows else None

    async def ping(self) -> None:
        """Raise ``Unavailable`` unless the database answers and has every migration."""
        query = self._client.table("short_video_migrations").select("name", count=CountMethod.exact)
        rows = await self._rows(query.execute)
        if missing := set(self._migrations) - {_parsed(_Applied, row).name for row in rows}:
            raise _unavailable(f"the migration {min(missing)} has not been applied: {MIGRATE}")

    async def _rows(self, query: Query) -> list[Any]:
        """As many as the headers say there are: the client takes a body that never came for an empty list."""
        answer = await self._ask(query)
        if not isinstance(answer.data, list) or answer.count != len(answer.data):
            raise _unavailable("it answered something else than rows")
        return answer.data

    async def _ask(self, query: Query) -> Any:
        async def once() -> Any:
            async with asyncio.timeout(READ_SECONDS):
                return await query()

        async def passing() -> Any:
            return await retry(once, on=_is_passing, tries=2, pauses=(PAUSE_SECONDS,))

        try:
            return await retry(passing, on=_is_skew, tries=3, pauses=SKEW_PAUSES)
        except APIError as error:
            raise _unavailable(_explain(error)) from error
        except FAULTS as error:
            raise _unavailable("it cannot be reached: is SUPABASE_URL right?") from error


def _explain(error: APIError) -> str:
    """What is wrong and what to do, in words for the person who runs the service."""
    code, message = str(error.code), error.message
    causes = [
        (code in NO_MIGRATION, f"a table or function is missing ({message}): {MIGRATE}"),
        (_is_skew(error), f"its clocks differ ({message}), and SUPABASE_KEY is right: this passes by itself"),
        (code in BAD_KEY, f"SUPABASE_KEY is not accepted ({message}): copy the project's service_role or secret key"),
        (error.code is None, f"the gateway refuses ({message}): are SUPABASE_URL and SUPABASE_KEY of one project?"),
        (code in NO_RIGHT, f"SUPABASE_KEY may not do this ({message}): it must be the service_role or secret key"),
        (code == "540", "the project is paused: restore it in Supabase's dashboard"),
    ]
    found = (sentence for is_it, sentence in causes if is_it)
    return next(found, f"it answered {code}, {message}: is SUPABASE_URL right?")


def _is_passing(error: Exception) -> bool:
    if isinstance(error, APIError):
        return error.code is None or error.code in PASSING
    return connection_broke(error)


def _is_skew(error: Exception) -> bool:
    return isinstance(error, APIError) and error.message == SKEW


def _parsed(answer: type[M], data: object) -> M:
    try:
        return answer.model_validate(data)
    except ValidationError:
        raise _unavailable(f"it answered something else than {answer.__name__}") from None


def _unavailable(why: str) -> Unavailable:
    log.error("Supabase: %s", why)
    return Unavailable("The database does not answer; please try again.", reason=why)
