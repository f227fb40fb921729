"""How to get every kind of error out of the five services; ``test_errors`` says which."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
from contract.video_storage.house import ORIGIN, House, Person, film, form

Call = Callable[[House, Person], Awaitable[httpx.Response]]
SOMEBODY = uuid.UUID(int=7)
UPLOAD = "http://video-service/api/videos/upload"
LONG = 2 * 1_048_576 + 1
# One route of each service that reads what a user sees, and one that other services call.
READ = {
    "user-service": "/api/users/user/{me}",
    "video-service": "/api/videos/stream",
    "storage-service": "/api/storage/usage",
    "usage-service": "/api/usage/daily-usage",
    "logging-service": "/api/logs/user/{me}",
}
INTERNAL: dict[str, tuple[str, str, Any]] = {
    "user-service": ("PUT", f"/internal/users/{SOMEBODY}/upload-lock", {"holder": "x"}),
    "video-service": ("POST", "/internal/videos/x/settle", None),
    "storage-service": ("POST", "/internal/reservations/x", {"user_id": str(SOMEBODY), "least": 1, "most": 1}),
    "usage-service": ("POST", "/internal/reservations/x", {"user_id": str(SOMEBODY), "least": 1, "most": 1}),
    "logging-service": ("POST", "/api/logs/batch", {"logs": []}),
}
INVALID = {
    "user-service": "/api/users/user/not-an-id",
    "video-service": "/api/videos/stream?start=-1",
    "logging-service": "/api/logs/user/{me}?start=x",
}
RULES = {
    "user-service": "users",
    "video-service": "videos",
    "storage-service": "storage",
    "usage-service": "usage",
    "logging-service": "logs",
}


def read(service: str, **headers: str) -> Call:
    async def call(house: House, person: Person) -> httpx.Response:
        url = f"http://{service}{READ[service].format(me=person.id)}"
        return await person.ask("GET", url, headers=headers)

    return call


def plain(method: str, url: str, *, as_service: bool = False, **more: Any) -> Call:
    async def call(house: House, person: Person) -> httpx.Response:
        token = house.tokens.for_service() if as_service else person.token
        headers = {"Authorization": f"Bearer {token}", "Origin": ORIGIN} | more.get("headers", {})
        address = url.format(me=person.id)
        content = more["content"]() if callable(more.get("content")) else more.get("content")
        return await house.client.request(method, address, headers=headers, content=content, json=more.get("json"))

    return call


def internal(service: str, *, as_service: bool = False, **more: Any) -> Call:
    method, path, body = INTERNAL[service]
    return plain(method, f"http://{service}{path}", as_service=as_service, **{"json": body} | more)


def preflight(service: str, **asked: str) -> Call:
    async def call(house: House, person: Person) -> httpx.Response:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"} | {
            f"Access-Control-Request-{name}": value for name, value in asked.items()
        }
        return await house.client.options(f"http://{service}/health", headers=headers)

    return call


def broken(service: str, error: Exception) -> Call:
    """Its database fails with ``error``."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise error

    async def call(house: House, person: Person) -> httpx.Response:
        rules = getattr(house.app(service).state.context, RULES[service])
        store, rules._store = rules._store, Broken()
        try:
            return await read(service)(house, person)
        finally:
            rules._store = store

    return call


def upload(video: bytes = b"", title: str = "A film", **more: Any) -> Call:
    async def call(house: House, person: Person) -> httpx.Response:
        return await person.upload(video or film(), title, **more)

    return call


async def while_uploading(house: House, person: Person) -> httpx.Response:
    answers: list[httpx.Response] = []
    body, content_type = form(film(), "First")

    async def chunks() -> AsyncIterator[bytes]:
        yield body[:500]
        answers.append(await person.upload(film()))
        yield body[500:]

    await person.ask("POST", UPLOAD, content=chunks(), headers={"Content-Type": content_type})
    return answers[0]


async def standing_still(house: House, person: Person) -> httpx.Response:
    state = house.app("video-service").state
    context, state.context = state.context, dataclasses.replace(state.context, upload_idle_seconds=0.01)
    body, content_type = form(film(), "Slow")

    async def chunks() -> AsyncIterator[bytes]:
        yield body[:500]
        await asyncio.Event().wait()

    try:
        return await person.ask("POST", UPLOAD, content=chunks(), headers={"Content-Type": content_type})
    finally:
        state.context = context


async def beside_the_film(house: House, person: Person) -> httpx.Response:
    url = (await person.uploaded(film()))["filepath"]
    return await person.ask("GET", url, headers={"Range": "bytes=99999-"})


async def deleted_film(house: House, person: Person) -> httpx.Response:
    url = (await person.uploaded(film()))["filepath"]
    await person.ask("DELETE", "http://video-service/api/videos/delete-all")
    return await person.ask("GET", url)


async def anothers_film(house: House, person: Person) -> httpx.Response:
    other = await house.person()
    entry = await other.uploaded(film())
    return await person.ask("DELETE", f"http://video-service/api/videos/delete/{entry['filename']}")


async def taken_email(house: House, person: Person) -> httpx.Response:
    email = house.tokens.user(person.token).email
    return await plain(
        "POST", "http://user-service/api/users/register", json={"email": email, "password": "correct horse"}
    )(house, person)


async def storage_down(house: House, person: Person) -> httpx.Response:
    house.switchboard.down.add("storage-service")
    return await person.upload(film())


async def storage_full(house: House, person: Person) -> httpx.Response:
    await person.uploaded(film(900_000))
    return await person.upload(film(200_000))


async def day_full(house: House, person: Person) -> httpx.Response:
    for _ in range(2):
        await person.uploaded(film(900_000))
        await person.ask("DELETE", "http://video-service/api/videos/delete-all")
    return await person.upload(film(400_000))


def read_as_service(service: str) -> Call:
    async def call(house: House, person: Person) -> httpx.Response:
        return await read(service, Authorization=f"Bearer {house.tokens.for_service()}")(house, person)

    return call
