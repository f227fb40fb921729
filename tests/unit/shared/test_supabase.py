"""The Supabase client: whatever becomes of a call is an answer or our own 503, never a 500 and never a wrong figure."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import BaseModel

from shared import supabase
from shared.errors import Unavailable
from shared.settings import ServiceSettings
from shared.supabase import Supabase

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Listen = Callable[[Any], Awaitable[str]]
KEY = "sb_secret_of_this_test"
MIGRATION = "20261125000000_foundation"


class Figure(BaseModel):
    figure: int


class Gateway:
    """Answers each call with the next of ``answers``, the last one for good; None hangs up without a word."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, dict[str, str], bytes]] = []

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode().strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.calls.append((first, headers, body))
            answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()
            if b"Connection: close" in answer:
                return


def answer(
    status: int, body: object, *, length: int | None = None, kind: str = "application/json", count: int | None = None
) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length or len(content)}\r\n"
    head += f"Content-Range: */{count}\r\n" if count is not None else ""
    return head.encode() + (b"Connection: close\r\n" if length else b"") + b"\r\n" + content


def problem(status: int, code: str | None, message: str) -> bytes:
    return answer(status, {"code": code, "details": None, "hint": None, "message": message})


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Supabase]:
    settings = Settings(_env_file=None, jwt_secret="s" * 40, supabase_url=url, supabase_key=KEY)  # type: ignore[call-arg]
    async with Supabase.open(settings, [MIGRATION]) as database:
        yield database


class Settings(ServiceSettings):
    service = "some-service"
    port: int = 0


GOOD = answer(200, {"figure": 7})


async def test_a_function_is_called_with_the_key_and_named_arguments(listen: Listen) -> None:
    gateway = Gateway(GOOD)
    async with opened(await listen(gateway)) as database:
        assert (await database.call("figure_of", Figure, p_of="a", p_many=[1])).figure == 7
    ((first, headers, body),) = gateway.calls
    assert first == "POST /rest/v1/rpc/figure_of HTTP/1.1"
    assert (headers["apikey"], headers["authorization"]) == (KEY, f"Bearer {KEY}")
    assert json.loads(body) == {"p_of": "a", "p_many": [1]}


@pytest.mark.parametrize("value", ["a+b@example.test", "a,b", 'a"b', "a&b=c", "ä 😀", "a.b%2e", "(a)", "*", "null"])
async def test_a_row_is_looked_for_by_any_value_at_all(listen: Listen, value: str) -> None:
    gateway = Gateway(answer(200, [{"figure": 7}], count=1), answer(200, [], count=0))
    async with opened(await listen(gateway)) as database:
        found = await database.find("figures", Figure, "name", value)
        assert found
        assert found.figure == 7
        assert await database.find("figures", Figure, "name", value) is None
    path = gateway.calls[0][0].split(" ")[1]
    assert parse_qs(urlsplit(path).query) == {"select": ["*"], "name": [f"eq.{value}"], "limit": ["1"]}


async def test_what_postgresql_cannot_hold_is_nowhere(listen: Listen) -> None:
    gateway = Gateway(GOOD)
    async with opened(await listen(gateway)) as database:
        assert await database.find("figures", Figure, "name", "a\0b") is None
    assert gateway.calls == []


NONSENSE: dict[str, bytes | None] = {
    "nothing": answer(200, b""),
    "cut off": answer(200, b'{"figure": 1', length=40),
    "cut off, and nobody says so": answer(200, b'{"figure": 1'),
    "another shape": answer(200, {"shape": 7}),
    "another type": answer(200, {"figure": "seven"}),
    "null": answer(200, None),
    "fewer rows than there are": answer(200, [], count=1),
    "rows that nobody counted": answer(200, []),
    "no body where there are rows": answer(200, b"", count=1),
    "a bare figure": answer(200, 7),
    "a page": answer(200, b"<html>Welcome</html>", kind="text/html"),
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "a hang-up": None,
    "HTML 502": answer(502, b"<html>Bad gateway</html>", kind="text/html"),
    "no such function": problem(404, "PGRST202", "Could not find the function"),
    "no such table, 12": problem(404, "42P01", 'relation "public.figures" does not exist'),
    "no such table, 13": problem(404, "PGRST205", "Could not find the table"),
    "an expired key, 12": problem(401, "PGRST301", "JWT expired"),
    "an expired key, 13": problem(401, "PGRST303", "JWT expired"),
    "a clock that is ahead": problem(401, "PGRST303", "JWT issued at future"),
    "no key for the gateway": answer(401, {"message": "Invalid API key"}),
    "a range past the end, 13": problem(416, "416", "garbled"),
    "a constraint": problem(400, "23514", "violates check constraint"),
    "a paused project": answer(540, b"<html>Paused</html>", kind="text/html"),
    "not even an error": answer(500, b"[]"),
}


CALLS: dict[str, Callable[[Supabase], Awaitable[object]]] = {
    "call": lambda database: database.call("figure_of", Figure),
    "find": lambda database: database.find("figures", Figure, "name", "a"),
    "ping": lambda database: database.ping(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", NONSENSE)
async def test_everything_else_is_our_own_503_that_tells_nobody_why(
    listen: Listen, kind: str, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supabase, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(supabase, "SKEW_PAUSES", (0,))
    async with opened(await listen(Gateway(NONSENSE[kind]))) as database:
        with pytest.raises(Unavailable) as raised:
            await CALLS[call](database)
    assert raised.value.message == "The database does not answer; please try again."
    assert raised.value.reason
    assert raised.value.reason in caplog.text
    assert KEY not in caplog.text


async def test_nobody_there_is_a_503_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with opened("http://127.0.0.1:1") as database:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await database.call("figure_of", Figure)
    assert time.monotonic() - began < 4, "less than an answer may take"
    assert "SUPABASE_URL" in caplog.text


async def test_a_database_that_stands_still_is_a_503_when_its_time_is_over(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supabase, "READ_SECONDS", 0.1)

    async def nothing(reader: Reader, writer: Writer) -> None:
        await reader.read()

    async with opened(await listen(nothing)) as database:
        with pytest.raises(Unavailable):
            await database.call("figure_of", Figure)


@pytest.mark.parametrize(
    "first",
    [None, answer(502, b"<html>", kind="text/html"), answer(503, {}), problem(503, "PGRST001", "no connection"),
     problem(500, "40P01", "deadlock detected"), answer(200, b'{"figure": 7', length=40)],
    ids=["hang-up", "502", "503", "no database", "deadlock", "cut off"],
)  # fmt: skip
async def test_what_may_be_better_the_next_moment_is_asked_once_more(listen: Listen, first: bytes | None) -> None:
    gateway = Gateway(first, GOOD)
    async with opened(await listen(gateway)) as database:
        assert (await database.call("figure_of", Figure)).figure == 7
    assert len(gateway.calls) == 2


async def test_what_will_not_be_better_is_not_asked_again(listen: Listen) -> None:
    gateway = Gateway(problem(401, "PGRST301", "JWT expired"))
    async with opened(await listen(gateway)) as database:
        with pytest.raises(Unavailable):
            await database.call("figure_of", Figure)
    assert len(gateway.calls) == 1


async def test_a_gateway_whose_clock_is_ahead_is_asked_for_two_seconds_and_the_key_is_not_blamed(
    listen: Listen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert 1 <= sum(supabase.SKEW_PAUSES) <= 2
    monkeypatch.setattr(supabase, "SKEW_PAUSES", (0.01, 0.01))
    ahead = NONSENSE["a clock that is ahead"]
    async with opened(await listen(Gateway(ahead, ahead, GOOD))) as database:
        assert (await database.call("figure_of", Figure)).figure == 7
        assert caplog.text == ""
    gateway = Gateway(ahead)
    async with opened(await listen(gateway)) as database:
        with pytest.raises(Unavailable) as raised:
            await database.call("figure_of", Figure)
    assert len(gateway.calls) == 3
    assert "SUPABASE_KEY is right" in raised.value.reason


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("no such function", "supabase db push"),
        ("no such table, 12", "supabase db push"),
        ("no such table, 13", "supabase db push"),
        ("an expired key, 12", "service_role"),
        ("no key for the gateway", "SUPABASE_KEY"),
        ("a paused project", "paused"),
        ("nothing", "rows"),
        ("a page", "rows"),
    ],
)
async def test_the_reason_says_what_to_do(listen: Listen, kind: str, advice: str) -> None:
    async with opened(await listen(Gateway(NONSENSE[kind]))) as database:
        with pytest.raises(Unavailable) as raised:
            await database.ping()
    assert advice in raised.value.reason


async def test_a_missing_migration_is_named(listen: Listen) -> None:
    async with opened(
        await listen(Gateway(answer(200, [{"name": MIGRATION}], count=1), answer(200, [], count=0)))
    ) as database:
        await database.ping()
        with pytest.raises(Unavailable) as raised:
            await database.ping()
    assert MIGRATION in raised.value.reason
