"""What the contract suites start from: settings that reach nothing outside a test, tokens, apps in-process."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar, TypeVar

import httpx
import pytest
from fastapi import FastAPI
from standins.postgres import Postgres
from standins.project import Project, real_project, standing_in

from shared.auth import Role, Tokens, User
from shared.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)
MakeSettings = Callable[..., S]
Headers = dict[str, str]

# What leads to a database, a bucket or an emulator of the person who runs the tests, whichever service reads it.
OUTSIDE = ("SUPABASE_", "GCS_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
SECRET = "the contract suites sign with this, and nobody else"


class Caller(ServiceSettings):
    """Whoever calls the service under test."""

    service: ClassVar[str] = "video-service"
    port: int = 0


class Network(httpx.AsyncBaseTransport):
    """Between services: an origin such as ``http://127.0.0.1:3005`` leads to what was put there, or to nobody."""

    def __init__(self) -> None:
        self.reachable: dict[str, httpx.AsyncBaseTransport] = {}

    def put(self, origin: str, app: FastAPI) -> None:
        """An app that is already open (see ``open_app``)."""
        self.reachable[origin] = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        peer = self.reachable.get(f"{request.url.scheme}://{request.url.netloc.decode()}")
        if peer is None:
            raise httpx.ConnectError("nobody listens there", request=request)
        return await peer.handle_async_request(request)


@pytest.fixture
def make_settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> MakeSettings[S]:
    """Any service's settings, over a data folder of this test; neither the environment nor a ``.env`` has a say."""

    def make(kind: type[S], **given: Any) -> S:
        for name in [*os.environ]:
            if name.lower() in kind.model_fields or name.upper().startswith(OUTSIDE):
                monkeypatch.delenv(name)
        return kind(**{"_env_file": None, "jwt_secret": SECRET, "data_dir": tmp_path / kind.service, **given})

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as postgres:
        yield postgres


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest) -> Iterator[Project]:
    """Our migrations behind PostgREST, for all tests that ask for it: stood in for, unless a real one is named."""
    if real := real_project():
        yield real
        real.clear()
        return
    with standing_in(request.getfixturevalue("postgres")) as project:
        yield project


@pytest.fixture
def empty_project(project: Project) -> Project:
    """The same, with nothing in its tables."""
    project.clear()
    return project


@pytest.fixture(params=["sqlite", "supabase"])
def store_settings(request: pytest.FixtureRequest, make_settings: MakeSettings[S]) -> MakeSettings[S]:
    """``make_settings`` for each kind of database; two stores that one service opens with them share their data."""
    if request.param == "sqlite":
        return make_settings
    project: Project = request.getfixturevalue("empty_project")

    def make(kind: type[S], **given: Any) -> S:
        return make_settings(kind, **{"supabase_url": project.url, "supabase_key": project.key, **given})

    return make


@pytest.fixture
def tokens(make_settings: MakeSettings[S]) -> Tokens:
    return Tokens(make_settings(Caller))


@pytest.fixture
def user_token(tokens: Tokens) -> Callable[..., str]:
    """The token of a user, anybody unless told; negative ``seconds``: expired so long ago."""

    def issue(
        user_id: uuid.UUID | None = None,
        *,
        role: Role = "user",
        email: str = "someone@example.test",
        seconds: float = 3600,
    ) -> str:
        return tokens.for_user(User(id=user_id or uuid.uuid4(), email=email, role=role), seconds)

    return issue


@pytest.fixture
def service_token(tokens: Tokens) -> str:
    return tokens.for_service()


@pytest.fixture
def as_user(user_token: Callable[..., str]) -> Callable[..., Headers]:
    """``user_token`` as the headers of a request."""

    def headers(user_id: uuid.UUID | None = None, **more: Any) -> Headers:
        return {"Authorization": f"Bearer {user_token(user_id, **more)}"}

    return headers


@pytest.fixture
def as_service(service_token: str) -> Headers:
    return {"Authorization": f"Bearer {service_token}"}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """What ``create_app(settings, network)`` takes for the peers; nobody is reachable at first."""
    monkeypatch.setattr("shared.audit.FLUSH_SECONDS", 0.1)  # a logging-service that nobody put there is not waited for
    return Network()


@pytest.fixture
def logged(network: Network) -> list[dict[str, Any]]:
    """The log entries that reach logging-service, which takes everything."""
    entries: list[dict[str, Any]] = []

    def take(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            entries.extend(json_of(request)["logs"])
            return httpx.Response(201, json={"message": "taken"})
        return httpx.Response(200, json={"status": "ok", "service": "logging-service"})

    network.reachable["http://127.0.0.1:3005"] = httpx.MockTransport(take)
    return entries


def json_of(request: httpx.Request) -> Any:
    return httpx.Response(200, content=request.content).json()


@pytest.fixture
async def open_app() -> AsyncIterator[Callable[[FastAPI], Awaitable[httpx.AsyncClient]]]:
    """Starts an app as its server would, and gives a client of it; both are closed when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(app: FastAPI) -> httpx.AsyncClient:
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://service"))

        yield start


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait for what happens in the background, for 20 seconds at most."""

    async def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it has not happened within 20 seconds"
            await asyncio.sleep(0.005)

    return wait
