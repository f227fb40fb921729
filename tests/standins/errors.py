"""How PostgREST says no: which status and which code each refusal has, and its body."""

import json
from collections.abc import Iterable
from typing import Self

import psycopg
from jose.exceptions import JWTError
from starlette.responses import Response

# By SQLSTATE or its class, the longer first; everything else is a 400.
STATUSES = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "21000": 500,
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "42501": 403,
    "53400": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57P01": 503,
    "57": 500,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0001": 400,
    "P0": 500,
    "XX": 500,
}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        details: str | None = None,
        hint: str | None = None,
        challenge: str | None = None,
    ) -> None:
        self.status = status
        self.headers = {} if challenge is None else {"WWW-Authenticate": challenge}
        self.content = {"code": code, "details": details, "hint": hint, "message": message}

    @classmethod
    def uncovered(cls, what: str) -> Self:
        return cls(501, None, f"The stand-in for PostgREST does not cover {what}.")

    def body(self) -> bytes:
        return json.dumps(self.content, ensure_ascii=False, separators=(",", ":")).encode()

    def response(self, *, head: bool = False) -> Response:
        return Response(b"" if head else self.body(), self.status, self.headers, "application/json; charset=utf-8")


def from_database(error: psycopg.Error, *, authenticated: bool, version: int) -> Refused:
    if error.sqlstate is None:
        return Refused(503, "PGRST001", "Database client error. Retrying the connection.", str(error))
    code, text = error.sqlstate, error.diag
    message = text.message_primary or ""
    status = next((STATUSES[code[:length]] for length in (5, 2) if code[:length] in STATUSES), 400)
    challenge = None
    role_is_unknown = code == "22023" and message.startswith("role ") and message.endswith(" does not exist")
    if (code == "42501" and not authenticated) or (role_is_unknown and version == 13):
        status, challenge = 401, "Bearer"
    elif code == "21000" and message.endswith("requires a WHERE clause"):
        status = 400
    elif code.startswith("PT") and code[2:].isdigit():
        status = int(code[2:])
    elif code == "PGRST":
        return Refused.uncovered("an exception with SQLSTATE PGRST")
    return Refused(status, code, message, text.message_detail, text.message_hint, challenge)


def from_token(token: str, error: JWTError, version: int) -> Refused:
    parts = len(token.split("."))
    if not token and version == 13:
        message = "Empty JWT is sent in Authorization header"
    elif parts != 3:
        message = f"Expected 3 parts in JWT; got {parts}"
        if version == 12:
            message = f"JWSError (CompactDecodeError Invalid number of parts: {message})"
    else:
        message = "JWSError JWSInvalidSignature" if version == 12 else "No suitable key or wrong key type"
    return _bad_token("PGRST301", message, None if version == 12 else str(error))


def from_claims(message: str, version: int) -> Refused:
    return _bad_token("PGRST301" if version == 12 else "PGRST303", message)


def _bad_token(code: str, message: str, details: str | None = None) -> Refused:
    challenge = f'Bearer error="invalid_token", error_description={json.dumps(message)}'
    return Refused(401, code, message, details, challenge=challenge)


def from_gateway(key: str | None) -> Refused:
    """The gateway has another way to say no: without a code."""
    message = "No API key found in request" if key is None else "Invalid API key"
    hint = "No `apikey` request header or url param was found."
    if key is not None:
        hint = "Double check your Supabase `anon` or `service_role` API key."
    refused = Refused(401, None, message)
    refused.content = {"message": message, "hint": hint}
    return refused


def no_table(name: str) -> Refused:
    return Refused(404, "PGRST205", f"Could not find the table 'public.{name}' in the schema cache")


def no_function(name: str, arguments: Iterable[str]) -> Refused:
    names = sorted(arguments)
    called = f"({', '.join(names)})" if names else " without parameters"
    searched = f" with parameter{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else called
    return Refused(
        404,
        "PGRST202",
        f"Could not find the function public.{name}{called} in the schema cache",
        f"Searched for the function public.{name}{searched} or with a single unnamed json/jsonb parameter, "
        "but no matches were found in the schema cache.",
    )


def ambiguous(name: str) -> Refused:
    return Refused(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: public.{name}(…)",
        hint="Try renaming the parameters or the function itself in the database so function overloading can be "
        "resolved",
    )
