"""A stand-in for PostgREST, behind ``/rest/v1`` as a Supabase project has it, over a real PostgreSQL.

It does what PostgREST 12 or 13 does, as far as the services and their tests need it, and answers everything else with
501 instead of a guess:

- ``POST /rpc/<function>`` with a JSON object of named arguments, for functions that return one value or nothing.
- ``GET`` and ``HEAD /<table>`` with ``select`` of columns, filters (eq, neq, gt, gte, lt, lte, in, is, and not before
  them), ``order``, ``limit``, ``offset``, at most 1000 rows; ``Prefer: count=exact`` with Content-Range, 206 and 416.
- ``DELETE /<table>`` with the same filters.
- Each request is one transaction, as the role that its key names; reading requests are read-only ones. A transaction
  that fails to serialize is tried again, as PostgREST's driver does (without end; here for some seconds).
- Errors have PostgREST's statuses, codes and bodies; hints of its own ("Perhaps you meant …") are null.
- With ``gateway`` keys it asks for one of them in ``apikey`` first, as Supabase's gateway does.

Not covered, and not noticed: ``response.headers`` and ``response.status`` set by a function, CORS, the cache of the
schema (here it is always fresh), and Supabase's newer ``sb_secret_…`` keys, which its gateway exchanges for JWTs.
"""

import asyncio
import json
import re
import time
from collections.abc import Collection
from typing import Any, Literal
from urllib.parse import parse_qsl

import psycopg
from jose import jwt
from psycopg import sql
from standins.errors import Refused, from_claims, from_database, from_gateway, from_token, no_function, no_table
from standins.pool import Pool
from standins.restsql import Delete, Function, Select, find_function
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Version = Literal[12, 13]
PREFIX = "/rest/v1/"
MAX_ROWS = 1000
SKEW_SECONDS = 30
RETRY_SECONDS = 5.0
JSON = "application/json; charset=utf-8"
SEARCH_PATH = '"public", "extensions"'

Claims = dict[str, Any]


class PostgREST:
    """An ASGI app; ``gateway`` is the keys that the gateway knows, None that there is none."""

    def __init__(
        self, dsn: str, secret: str, *, version: Version = 13, gateway: Collection[str] | None = None, size: int = 10
    ) -> None:
        self.version = version
        self.in_flight = 0
        self._secret = secret
        self._gateway = gateway
        self._pool = Pool(dsn, size)
        self._role_settings: dict[str, dict[str, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        self.in_flight += 1
        try:
            response = await self._answer(Request(scope, receive))
        finally:
            self.in_flight -= 1
        await response(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._pool.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, request: Request) -> Response:
        authenticated = False
        try:
            self._pass_gateway(request)
            claims = self._claims(request)
            authenticated = claims["role"] != "anon"
            return await self._serve(request, claims)
        except Refused as refused:
            return refused.response(head=request.method == "HEAD")
        except psycopg.Error as error:
            refused = from_database(error, authenticated=authenticated, version=self.version)
            return refused.response(head=request.method == "HEAD")

    def _pass_gateway(self, request: Request) -> None:
        if self._gateway is not None and (key := request.headers.get("apikey")) not in self._gateway:
            raise from_gateway(key)

    def _claims(self, request: Request) -> Claims:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return {"role": "anon"}
        try:
            claims: Claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                options={f"verify_{name}": name == "signature" for name in ("signature", "aud", "exp", "iat", "nbf")},
            )
        except jwt.JWTError as error:
            raise from_token(token, error, self.version) from None
        now = time.time()
        if claims.get("exp", now) < now - SKEW_SECONDS:
            raise from_claims("JWT expired", self.version)
        if claims.get("nbf", now) > now + SKEW_SECONDS:
            raise from_claims("JWT not yet valid", self.version)
        if claims.get("iat", now) > now + SKEW_SECONDS:
            raise from_claims("JWT issued at future", self.version)
        return {"role": "anon"} | claims

    async def _serve(self, request: Request, claims: Claims) -> Response:
        path = request.url.path.removeprefix(PREFIX)
        if path == request.url.path or not re.fullmatch(r"(rpc/)?[^/]+", path):
            raise Refused.uncovered(f"the path {request.url.path}")
        for header in ("range", "accept-profile", "content-profile"):
            if header in request.headers and request.headers[header] != "public":
                raise Refused.uncovered(f"the header {header}")
        accept = request.headers.get("accept", "*/*").partition(";")[0].strip()
        if accept not in ("*/*", "application/json"):
            raise Refused.uncovered(f"Accept: {accept}")
        parameters = parse_qsl(request.url.query, keep_blank_values=True)
        match request.method:
            case "POST" if path.startswith("rpc/"):
                return await self._call(request, path.removeprefix("rpc/"), claims)
            case "GET" | "HEAD" if "/" not in path:
                return await self._read(request, Select.parse(path, parameters, MAX_ROWS), claims)
            case "DELETE" if "/" not in path:
                return await self._delete(request, Delete.parse(path, parameters), claims)
        raise Refused.uncovered(f"{request.method} {request.url.path}")

    async def _call(self, request: Request, name: str, claims: Claims) -> Response:
        body = await request.body() or b"{}"
        content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip()
        if content_type != "application/json" or request.url.query:
            raise Refused.uncovered(f"a call with Content-Type {content_type} or with a query")
        try:
            arguments = json.loads(body.decode(), parse_constant=_no_constant)
        except ValueError:
            raise Refused(400, "PGRST102", "Empty or invalid json") from None
        if not isinstance(arguments, dict):
            raise Refused.uncovered("a body that is no JSON object")
        async with self._pool.connection() as connection:
            function = await find_function(connection, name, arguments.keys())
            if function is None:
                raise no_function(name, arguments)
            rows = await self._transaction(
                connection, request, claims, function.statement, [body.decode()], function=function
            )
        if function.returns_nothing:
            return Response(status_code=204, headers={"Content-Range": "0-0/*"})
        return Response(rows[0][0], media_type=JSON, headers={"Content-Range": "0-0/*"})

    async def _read(self, request: Request, select: Select, claims: Claims) -> Response:
        counting = "count=exact" in _preferences(request)
        if not counting and any(one.startswith("count=") for one in _preferences(request)):
            raise Refused.uncovered("a count that is not exact")
        async with self._pool.connection() as connection:
            await self._find_table(connection, select.table)
            statement = select.statement(counting=counting)
            ((total, length, body),) = await self._transaction(
                connection, request, claims, statement, select.values(counting=counting), reading=True
            )
        span = f"{select.offset}-{select.offset + length - 1}" if length and total != 0 else "*"
        headers = {"Content-Range": f"{span}/{'*' if total is None else total}"}
        if total is not None and select.offset > total:
            return self._past_the_end(select.offset, total, headers)
        status = 206 if total is not None and length < total else 200
        return Response(b"" if request.method == "HEAD" else body, status, headers, JSON)

    def _past_the_end(self, offset: int, total: int, headers: dict[str, str]) -> Response:
        details = f"An offset of {offset} was requested, but there are only {total} rows."
        refused = Refused(416, "PGRST103", "Requested range not satisfiable", details)
        body = refused.body()
        if self.version == 13:
            body = body[:2]  # it declares the length of the rows, which are "[]", and sends the error
            headers |= {"Connection": "close"}
        return Response(body, 416, headers, JSON)

    async def _delete(self, request: Request, delete: Delete, claims: Claims) -> Response:
        async with self._pool.connection() as connection:
            await self._find_table(connection, delete.table)
            ((body,),) = await self._transaction(connection, request, claims, delete.statement, delete.values)
        headers = {"Content-Range": "*/*"}
        if "return=representation" not in _preferences(request):
            return Response(status_code=204, headers=headers)
        return Response(body, 200, headers, JSON)

    async def _find_table(self, connection: psycopg.AsyncConnection, table: str) -> None:
        """13 looks into its schema cache; before it PostgreSQL says that there is none."""
        if self.version == 13:
            found = await connection.execute(
                "SELECT to_regclass(quote_ident('public') || '.' || quote_ident(%s))", [table]
            )
            if await found.fetchone() == (None,):
                raise no_table(table)

    async def _transaction(
        self,
        connection: psycopg.AsyncConnection,
        request: Request,
        claims: Claims,
        statement: sql.Composable,
        values: list[Any],
        *,
        reading: bool = False,
        function: Function | None = None,
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement, which is the whole transaction; what it did is committed when this returns."""
        isolation, settings = "read committed", await self._settings_of(connection, claims["role"])
        settings = {"search_path": SEARCH_PATH, **settings, "role": claims["role"]}
        settings |= {
            "request.jwt.claims": json.dumps(claims),
            "request.method": request.method,
            "request.path": request.url.path.removeprefix(PREFIX.rstrip("/")),
            "request.headers": json.dumps(dict(request.headers)),
        }
        if function is not None:
            isolation, reading = function.isolation or isolation, not function.is_volatile
            settings |= function.settings
        begin = sql.SQL("BEGIN ISOLATION LEVEL {} {}; SELECT {}").format(
            sql.SQL(isolation),
            sql.SQL("READ ONLY" if reading else "READ WRITE"),
            sql.SQL(", ").join(
                sql.SQL("set_config({}, {}, true)").format(name, value) for name, value in settings.items()
            ),
        )
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                await connection.execute(begin)
                rows = await (await connection.execute(statement, values)).fetchall()
                await connection.execute("COMMIT")
            except psycopg.errors.SerializationFailure:
                await connection.execute("ROLLBACK")
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0)
            except psycopg.Error:
                if not connection.closed:
                    await connection.execute("ROLLBACK")
                raise
            else:
                return rows

    async def _settings_of(self, connection: psycopg.AsyncConnection, role: str) -> dict[str, str]:
        """What ``ALTER ROLE`` gave to a role, which ``SET ROLE`` alone does not bring."""
        if role not in self._role_settings:
            found = await connection.execute(
                """SELECT unnest(setconfig) FROM pg_db_role_setting
                   WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = %s) AND setdatabase = 0""",
                [role],
            )
            self._role_settings[role] = dict([setting.split("=", 1) async for (setting,) in found])
        return self._role_settings[role]


def _preferences(request: Request) -> list[str]:
    return [one.strip() for header in request.headers.getlist("prefer") for one in header.split(",")]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
