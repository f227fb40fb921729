"""The five services in one process, joined by a switchboard instead of a network, and the people who use them."""

import asyncio
import random
import sqlite3
import struct
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import videos
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import logging_service.config
import logging_service.main
import storage_service.config
import storage_service.main
import usage_service.config
import usage_service.main
import user_service.config
import user_service.main
import video_service.config
import video_service.main
from shared.auth import Tokens
from shared.settings import ServiceSettings

ORIGIN = "http://localhost:3000"
SECRET = "what these suites sign with, and nobody else does"
SERVICES = ("user-service", "video-service", "storage-service", "usage-service", "logging-service")
LIMITS = {"max_storage_mb": 1, "daily_bandwidth_mb": 2, "max_upload_mb": 0.9, "streamed_report_seconds": 0.02}


class Switchboard(httpx.AsyncBaseTransport):
    """Each service under its name as the host. One that is ``down`` refuses the connection, or that for one path.

    ``outside`` has who answers under a host that is none of ours.
    """

    def __init__(self) -> None:
        self.apps: dict[str, FastAPI] = {}
        self.outside: dict[str, httpx.AsyncBaseTransport] = {}
        self.down: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host in self.outside:
            return await self.outside[request.url.host].handle_async_request(request)
        app = self.apps.get(request.url.host)
        if app is None or {request.url.host, request.url.host + request.url.path} & self.down:
            raise httpx.ConnectError("connection refused", request=request)
        return await httpx.ASGITransport(_Line(app)).handle_async_request(request)


class _Line:
    """When the caller fails in the middle of its body, the service sees a disconnect, and the caller its own error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        broken: Exception | None = None

        async def received() -> Message:
            nonlocal broken
            if broken is None:
                try:
                    message = await receive()
                    return {**message, "body": bytes(message.get("body", b""))}  # a view of ours ends at the wire
                except Exception as error:
                    broken = error
            return {"type": "http.disconnect"}

        await self.app(scope, received, send)
        if broken is not None:
            raise broken


@dataclass
class Person:
    """Somebody who is signed in."""

    id: uuid.UUID
    token: str
    client: httpx.AsyncClient

    async def ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        return await self.client.request(method, url, headers=self.headers | more.pop("headers", {}), **more)

    async def get(self, url: str) -> Any:
        answer = await self.ask("GET", url)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def upload(self, video: bytes, title: str = "A film", **more: Any) -> httpx.Response:
        body, content_type = form(video, title)
        headers = {"Content-Type": content_type} | more.pop("headers", {})
        return await self.ask("POST", "http://video-service/api/videos/upload", content=body, headers=headers, **more)

    async def uploaded(self, video: bytes, title: str = "A film") -> dict[str, Any]:
        answer = await self.upload(video, title)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["file"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Origin": ORIGIN}


class House:
    def __init__(self, switchboard: Switchboard, client: httpx.AsyncClient, settings: dict[str, Any]) -> None:
        self.switchboard = switchboard
        self.client = client
        self.settings = settings
        self.tokens = Tokens(settings["video-service"])

    def app(self, service: str) -> FastAPI:
        return self.switchboard.apps[service]

    async def person(self) -> Person:
        """Somebody new."""
        account = {"email": f"{uuid.uuid4().hex}@example.com", "password": "correct horse", "username": "Ann"}
        registered = await self.client.post("http://user-service/api/users/register", json=account)
        assert registered.status_code == 201, registered.text
        token = (await self.client.post("http://user-service/api/users/login", json=account)).json()["token"]
        return Person(self.tokens.user(token).id, token, self.client)

    def holds_nothing_for(self, person: Person) -> bool:
        """No lock, no reserved byte, at none of the three who lend to an upload."""
        lent = {
            "user-service/users.db": "SELECT count(*) FROM users WHERE id = ? AND uploading IS NOT NULL",
            "storage-service/storage.db": "SELECT coalesce(sum(reserved), 0) FROM storage_ledger WHERE user_id = ?",
            "usage-service/usage.db": "SELECT coalesce(sum(granted), 0) FROM usage_reservations WHERE user_id = ?",
        }
        held = 0
        for name, query in lent.items():
            with closing(sqlite3.connect(self.settings["video-service"].data_dir.parent / name)) as connection:
                held += connection.execute(query, (str(person.id),)).fetchone()[0]
        return held == 0

    async def sweep(self, service: str) -> dict[str, int]:
        headers = {"Authorization": f"Bearer {self.tokens.for_service()}"}
        answer = await self.client.post(f"http://{service}/internal/sweep", headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


async def wait_until(happened: Callable[[], Awaitable[object]]) -> None:
    """Ask again and again until it has happened in the background, for 20 seconds at most."""
    deadline = time.monotonic() + 20
    while not await happened():
        assert time.monotonic() < deadline, "it has not happened within 20 seconds"
        await asyncio.sleep(0.01)


def make_settings(path: Path, *, guarded_for: str | None = None, **given: Any) -> dict[str, Any]:
    """The settings of all five: no environment and no ``.env`` has a say. ``guarded_for``: the callers."""
    urls = {f"{name.replace('-', '_')}_url": f"http://{name}" for name in SERVICES}
    common: dict[str, Any] = {
        "_env_file": None,
        "jwt_secret": SECRET,
        "jwt_secret_previous": None,
        "supabase_url": None,
        "supabase_key": None,
        "gcs_bucket": None,
        "frontend_url": ORIGIN,
        "storage_public_url": "http://storage-service",
        "sweep_seconds": 3600,
    }
    kinds: list[type[ServiceSettings]] = [
        module.config.Settings
        for module in (user_service, video_service, storage_service, usage_service, logging_service)
    ]
    made = {}
    for kind in kinds:
        own: dict[str, Any] = {"data_dir": path / kind.service, "service_url": None, "internal_callers": guarded_for}
        if guarded_for is not None:
            own["service_url"] = f"http://{kind.service}"
        made[kind.service] = kind(**common | urls | own | given)
    return made


def make_apps(settings: dict[str, Any], transport: httpx.AsyncBaseTransport | None = None) -> dict[str, FastAPI]:
    return {
        "user-service": user_service.main.create_app(settings["user-service"], transport),
        "video-service": video_service.main.create_app(settings["video-service"], transport),
        "storage-service": storage_service.main.create_app(settings["storage-service"], transport),
        "usage-service": usage_service.main.create_app(settings["usage-service"], transport),
        "logging-service": logging_service.main.create_app(settings["logging-service"], transport),
    }


@asynccontextmanager
async def open_house(
    path: Path, outside: dict[str, httpx.AsyncBaseTransport] | None = None, **given: Any
) -> AsyncIterator[House]:
    switchboard, settings = Switchboard(), make_settings(path, **LIMITS | given)
    switchboard.outside = outside or {}
    switchboard.apps = make_apps(settings, switchboard)
    async with AsyncExitStack() as stack:
        for name in reversed(SERVICES):  # who is called opens first, and closes last
            app = switchboard.apps[name]
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield House(switchboard, await stack.enter_async_context(httpx.AsyncClient(transport=switchboard)), settings)


def film(size: int | None = None) -> bytes:
    """A film that plays; with ``size``, padded to so many bytes with noise that a player passes over."""
    played: bytes = videos.mp4(seconds=0.5, width=64, height=48)
    if size is None:
        return played
    padding = size - len(played)
    return played + struct.pack(">I4s", padding, b"free") + random.Random(size).randbytes(padding - 8)


def form(video: bytes, title: str, *, title_first: bool = False) -> tuple[bytes, str]:
    """The upload form as a browser sends it, and its content type."""
    boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
    parts = [
        b'Content-Disposition: form-data; name="video"; filename="clip.mp4"\r\nContent-Type: video/mp4\r\n\r\n' + video,
        b'Content-Disposition: form-data; name="title"\r\n\r\n' + title.encode(),
    ]
    if title_first:
        parts.reverse()
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def in_chunks(body: bytes, size: int = 50_000) -> Callable[[], AsyncIterator[bytes]]:
    """A body with no declared length."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return chunks
