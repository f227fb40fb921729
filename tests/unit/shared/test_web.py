"""What stands around every service: CORS, the limit on bodies, health, readiness, the sweep."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from shared import web
from shared.auth import Tokens, User
from shared.errors import Unavailable
from shared.settings import ServiceSettings

ORIGIN = "http://localhost:3000"


class Service:
    def __init__(self, settings: ServiceSettings) -> None:
        self.state = "ok"
        self.swept = 0
        self.read = 0
        self.app = FastAPI()
        self.tokens = Tokens(settings)
        self.identity = None
        self.checks = {"database": self.ping}
        self.app.state.context = self
        self.app.include_router(web.status_routes("some-service"))
        self.app.include_router(web.sweep_route())
        self.app.post("/count")(self.count)
        self.app.post("/json")(self.json)
        self.app.post("/stream/count")(self.count)
        web.install(self.app, settings, streams=["/stream/"])

    async def ping(self) -> str:
        return self.state

    async def sweep(self) -> dict[str, int]:
        self.swept += 1
        return {"things": self.swept}

    async def count(self, request: Request) -> int:
        async for chunk in request.stream():
            self.read += len(chunk)
        return self.read

    async def json(self, body: dict[str, str]) -> int:
        return len(body)


@pytest.fixture
def service(settings: ServiceSettings) -> Service:
    return Service(settings)


@pytest.fixture
def client(service: Service) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers={"Origin": ORIGIN})


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])
async def test_a_preflight_is_granted_what_the_page_needs(client: httpx.AsyncClient, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    answer = await client.options("/anything", headers=asked)
    assert answer.is_success
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert method in answer.headers["access-control-allow-methods"]
    assert {"Authorization", "Content-Type"} <= set(answer.headers["access-control-allow-headers"].split(", "))


async def test_a_foreign_page_is_refused_in_json(client: httpx.AsyncClient) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    refused = await client.options("/count", headers=asked)
    assert refused.status_code == 400
    assert refused.json() == {"message": "Disallowed CORS origin.", "code": "cors"}
    assert "origin" in refused.headers["vary"].lower()
    assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in (await client.get("/health", headers=asked)).headers


async def test_a_body_too_large_is_refused_before_it_is_read(client: httpx.AsyncClient, service: Service) -> None:
    assert (await client.post("/count", content=b"x" * web.JSON_BODY_BYTES)).json() == web.JSON_BODY_BYTES
    service.read = 0
    refused = await client.post("/count", content=b"x" * (web.JSON_BODY_BYTES + 1))
    assert refused.status_code == 413
    assert refused.json() == {"message": web.TOO_LARGE, "code": "too_large"}
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    assert service.read == 0


@pytest.mark.parametrize("path", ["/count", "/json"])
async def test_a_body_that_does_not_tell_its_length_is_cut_at_the_limit(client: httpx.AsyncClient, path: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 65_536
            yield b"x" * 65_536

    refused = await client.post(path, content=endless())
    assert refused.status_code == 413
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    assert refused.json() == {"message": web.TOO_LARGE, "code": "too_large"}
    assert sent <= web.JSON_BODY_BYTES + 2 * 65_536


async def test_a_route_that_streams_has_a_limit_of_its_own(client: httpx.AsyncClient) -> None:
    answer = await client.post("/stream/count", content=b"x" * (web.JSON_BODY_BYTES + 1))
    assert answer.json() == web.JSON_BODY_BYTES + 1


async def test_where_every_page_may_call_none_may_bring_cookies(settings: ServiceSettings) -> None:
    service = Service(settings.model_copy(update={"frontend_url": "*"}))
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.get("/health", headers={"Origin": "https://anybody.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_only_a_service_learns_by_its_token_whether_the_secrets_are_the_same(
    client: httpx.AsyncClient, settings: ServiceSettings
) -> None:
    token = {"Authorization": f"Bearer {Tokens(settings).for_service()}"}
    assert (await client.get("/internal/health", headers=token)).json() == {"status": "ok", "service": "some-service"}
    assert (await client.get("/internal/health")).status_code == 401


async def test_health_is_the_process_and_ready_is_what_it_stands_on(
    client: httpx.AsyncClient, service: Service
) -> None:
    ready = {"status": "ready", "service": "some-service", "checks": {"database": "ok"}}
    assert (await client.get("/ready")).json() == ready
    service.state = "unreachable"
    refused = await client.get("/ready")
    assert refused.status_code == 503
    assert refused.json()["checks"] == {"database": "unreachable"}
    assert isinstance(refused.json()["message"], str)
    assert (await client.get("/health")).json() == {"status": "ok", "service": "some-service"}


async def test_a_check_that_fails_or_hangs_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> None:
        raise Unavailable("No.")

    async def works() -> None:
        pass

    assert await web.answers(fails()) == "unreachable"
    assert await web.answers(works()) == "ok"


async def test_only_services_sweep(client: httpx.AsyncClient, service: Service) -> None:
    tokens = service.tokens
    anne = User.model_validate({"id": "00000000-0000-0000-0000-000000000001", "email": "", "role": "admin"})
    assert (await client.post("/internal/sweep")).status_code == 401
    as_anne = {"Authorization": f"Bearer {tokens.for_user(anne, 60)}"}
    assert (await client.post("/internal/sweep", headers=as_anne)).status_code == 403
    as_service = {"Authorization": f"Bearer {tokens.for_service()}"}
    assert (await client.post("/internal/sweep", headers=as_service)).json() == {"things": 1}


async def test_rounds_come_one_after_the_other() -> None:
    rounds: list[str] = []

    async def sweep() -> dict[str, int]:
        rounds.append("begins")
        await asyncio.sleep(0)
        rounds.append("ends")
        return {}

    async with web.sweeping(sweep, 60.0) as one_round:
        await asyncio.gather(one_round(), one_round())
    assert rounds == ["begins", "ends"] * 3


async def test_the_sweeper_goes_on_after_a_round_that_failed_and_stops_at_the_end() -> None:
    rounds = 0

    async def sweep() -> dict[str, int]:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise [Unavailable("No."), RuntimeError("No.")][rounds - 1]
        return {"things": 1}

    async with web.sweeping(sweep, 0.001):
        for _ in range(1000):
            if rounds > 3:
                break
            await asyncio.sleep(0.001)
    assert rounds > 3
    stopped_at = rounds
    await asyncio.sleep(0.01)
    assert rounds == stopped_at


async def test_a_cache_is_told_that_pages_of_other_origins_get_another_answer(client: httpx.AsyncClient) -> None:
    """Also where nobody says his origin, as ``<img>`` does not: what it was given must not be given to a page."""
    with_origin = await client.get("/health")
    del client.headers["Origin"]
    without = await client.get("/health")
    assert "access-control-allow-origin" in with_origin.headers
    assert "access-control-allow-origin" not in without.headers
    assert with_origin.headers["vary"] == without.headers["vary"] == "Origin"
