"""usage-service as its callers meet it: the page, video-service and storage-service."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from shared.settings import MIB
from usage_service.config import Settings
from usage_service.main import create_app

ANNE = uuid.uuid4()
BORIS = uuid.uuid4()
LIMIT = 100 * MIB
DAILY_USAGE = "/api/usage/daily-usage"


@pytest.fixture
async def service(
    make_settings: Any, open_app: Any, network: httpx.AsyncBaseTransport, logged: list[dict[str, Any]]
) -> httpx.AsyncClient:
    client: httpx.AsyncClient = await open_app(create_app(make_settings(Settings), network))
    return client


@pytest.fixture
def peer(service: httpx.AsyncClient, as_service: dict[str, str]) -> Callable[..., Awaitable[httpx.Response]]:
    """A call of another service."""

    async def call(method: str, path: str, body: object = None) -> httpx.Response:
        return await service.request(method, path, json=body, headers=as_service)

    return call


@pytest.fixture
def usage_of(service: httpx.AsyncClient, as_user: Any) -> Callable[[uuid.UUID], Awaitable[dict[str, Any]]]:
    async def ask(user: uuid.UUID) -> dict[str, Any]:
        answer = await service.get(DAILY_USAGE, headers=as_user(user))
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    return ask


def claim(least: int, most: int | None = None, user: uuid.UUID = ANNE) -> dict[str, Any]:
    return {"user_id": str(user), "least": least, "most": most or least}


def done(size: int, user: uuid.UUID = ANNE, at: datetime | None = None) -> dict[str, Any]:
    return {"user_id": str(user), "size": size, "at": (at or datetime.now(UTC)).isoformat()}


# ── the page ──


async def test_a_fresh_day_is_empty(usage_of: Any) -> None:
    before = datetime.now(UTC)
    usage = await usage_of(ANNE)
    resets_at = datetime.fromisoformat(usage.pop("resetsAt"))
    message = usage.pop("message")
    assert usage == {
        "totalUsageMb": 0,
        "dailyLimitMb": 100,
        "isThresholdExceeded": False,
        "streamedMb": 0,
        "uploads": 0,
        "deletions": 0,
    }
    assert isinstance(message, str)
    assert message.endswith(".")
    assert resets_at.utcoffset() == timedelta(0)
    assert (resets_at.hour, resets_at.minute, resets_at.second, resets_at.microsecond) == (0, 0, 0, 0)
    assert before < resets_at <= before + timedelta(days=1, seconds=10)


async def test_usage_is_exact_to_the_byte(peer: Any, usage_of: Any) -> None:
    await peer("PUT", "/internal/uploads/a", done(12_345_677))
    await peer("PUT", "/internal/uploads/b", done(1))
    usage = await usage_of(ANNE)
    assert usage["totalUsageMb"] == 12_345_678 / MIB
    assert usage["uploads"] == 2
    assert (await usage_of(BORIS))["totalUsageMb"] == 0


async def test_the_threshold_is_exceeded_from_the_last_byte_of_the_limit_on(peer: Any, usage_of: Any) -> None:
    await peer("PUT", "/internal/uploads/a", done(LIMIT - 1))
    assert not (await usage_of(ANNE))["isThresholdExceeded"]
    await peer("PUT", "/internal/uploads/b", done(1))
    usage = await usage_of(ANNE)
    assert usage["isThresholdExceeded"]
    assert usage["totalUsageMb"] == 100
    assert "100 MB" in usage["message"]


async def test_deleted_uploads_still_count_and_what_is_reserved_or_watched_does_not(peer: Any, usage_of: Any) -> None:
    await peer("PUT", "/internal/uploads/a", done(10 * MIB))
    now = datetime.now(UTC).isoformat()
    deletion = {"id": "a", "user_id": str(ANNE), "at": now}
    assert (await peer("POST", "/internal/deletions", {"deletions": [deletion]})).status_code == 204
    stream = {"id": "s", "user_id": str(ANNE), "size": 3 * MIB // 2, "at": now}
    assert (await peer("POST", "/internal/streamed", {"streamed": [stream, stream]})).status_code == 204
    assert (await peer("POST", "/internal/reservations/b", claim(50 * MIB))).status_code == 200
    usage = await usage_of(ANNE)
    assert usage["totalUsageMb"] == 10
    assert usage["streamedMb"] == 1.5
    assert (usage["uploads"], usage["deletions"]) == (1, 1)


async def test_yesterday_does_not_count_today(peer: Any, usage_of: Any) -> None:
    await peer("PUT", "/internal/uploads/a", done(LIMIT, at=datetime.now(UTC) - timedelta(days=1)))
    assert (await usage_of(ANNE))["totalUsageMb"] == 0


async def test_asking_is_logged(usage_of: Any, logged: list[dict[str, Any]], eventually: Any) -> None:
    await usage_of(ANNE)
    await eventually(lambda: logged)
    assert logged[0]["user_id"] == str(ANNE)
    assert (logged[0]["action"], logged[0]["service"]) == ("CHECK_BANDWIDTH", "UsageMonitoringService")


async def test_without_logging_service_usage_is_answered_all_the_same(
    make_settings: Any, open_app: Any, network: httpx.AsyncBaseTransport, as_user: Any
) -> None:
    service = await open_app(create_app(make_settings(Settings), network))
    assert (await service.get(DAILY_USAGE, headers=as_user())).status_code == 200
    ready = await service.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"database": "ok", "logging-service": "unreachable"}


# ── reservations ──


async def test_a_reservation_is_granted_the_most_that_fits(peer: Any) -> None:
    first = await peer("POST", "/internal/reservations/a", claim(1, 60 * MIB))
    assert (first.status_code, first.json()) == (200, {"granted": 60 * MIB})
    assert (await peer("POST", "/internal/reservations/b", claim(1, 60 * MIB))).json() == {"granted": 40 * MIB}


async def test_beyond_the_limit_the_page_reads_its_sentence(peer: Any) -> None:
    await peer("PUT", "/internal/uploads/a", done(LIMIT - 5))
    refused = await peer("POST", "/internal/reservations/b", claim(6))
    assert refused.status_code == 429
    assert "Exceeding daily bandwidth limit" in refused.json()["message"]
    assert refused.json()["code"] == "daily_limit"
    assert (await peer("POST", "/internal/reservations/b", claim(5, 6))).json() == {"granted": 5}


async def test_the_limit_is_a_setting(make_settings: Any, open_app: Any, network: Any, as_service: Any) -> None:
    service = await open_app(create_app(make_settings(Settings, daily_bandwidth_mb=0.5), network))
    granted = await service.post("/internal/reservations/a", json=claim(1, MIB), headers=as_service)
    assert granted.json() == {"granted": MIB // 2}


async def test_a_repeated_reservation_and_a_commit_before_it_answer_the_same_upload(peer: Any) -> None:
    for _ in range(2):
        assert (await peer("POST", "/internal/reservations/a", claim(1, 60 * MIB))).json() == {"granted": 60 * MIB}
    await peer("PUT", "/internal/uploads/a", done(7))
    assert (await peer("POST", "/internal/reservations/a", claim(1, 60 * MIB))).json() == {"granted": 7}


async def test_another_users_upload_is_a_conflict(peer: Any) -> None:
    await peer("POST", "/internal/reservations/a", claim(5))
    refused = await peer("POST", "/internal/reservations/a", claim(5, user=BORIS))
    assert refused.status_code == 409


async def test_fifty_uploads_at_once_never_exceed_the_day(peer: Any) -> None:
    answers = await asyncio.gather(*(peer("POST", f"/internal/reservations/u{n}", claim(3 * MIB)) for n in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 33 + [429] * 17


async def test_release_is_idempotent_and_never_takes_back_a_commit(peer: Any, usage_of: Any) -> None:
    await peer("POST", "/internal/reservations/a", claim(LIMIT))
    for _ in range(2):
        assert (await peer("DELETE", "/internal/reservations/a")).status_code == 204
    assert (await peer("POST", "/internal/reservations/b", claim(LIMIT))).status_code == 200
    await peer("PUT", "/internal/uploads/b", done(MIB))
    await peer("DELETE", "/internal/reservations/b")
    assert (await usage_of(ANNE))["totalUsageMb"] == 1


async def test_a_commit_counts_once_with_or_without_a_reservation(peer: Any, usage_of: Any) -> None:
    await peer("POST", "/internal/reservations/a", claim(MIB))
    for upload in ("a", "b"):
        for _ in range(3):
            assert (await peer("PUT", f"/internal/uploads/{upload}", done(MIB))).status_code == 204
    usage = await usage_of(ANNE)
    assert (usage["totalUsageMb"], usage["uploads"]) == (2, 2)


async def test_a_commit_over_the_limit_is_counted_too(peer: Any, usage_of: Any) -> None:
    for upload in ("a", "b"):
        assert (await peer("PUT", f"/internal/uploads/{upload}", done(LIMIT))).status_code == 204
    assert (await usage_of(ANNE))["totalUsageMb"] == 200


async def test_the_sweep_drops_expired_reservations(
    make_settings: Any, open_app: Any, network: Any, as_service: Any
) -> None:
    service = await open_app(create_app(make_settings(Settings, reservation_seconds=0.05), network))
    await service.post("/internal/reservations/a", json=claim(LIMIT), headers=as_service)
    await asyncio.sleep(0.06)
    for dropped in (1, 0):
        swept = await service.post("/internal/sweep", headers=as_service)
        assert (swept.status_code, swept.json()) == (200, {"expired_reservations": dropped})


# ── who may, and how it is said ──

INTERNAL = [
    ("POST", "/internal/reservations/a", claim(1)),
    ("DELETE", "/internal/reservations/a", None),
    ("PUT", "/internal/uploads/a", done(1)),
    ("POST", "/internal/deletions", {"deletions": [{"id": "a", "user_id": str(ANNE), "at": "2026-11-24T12:00:00Z"}]}),
    ("POST", "/internal/streamed", {"streamed": []}),
    ("POST", "/internal/sweep", None),
]


@pytest.mark.parametrize(("method", "path", "body"), INTERNAL)
async def test_internal_routes_are_for_services_only(
    service: httpx.AsyncClient, as_user: Any, method: str, path: str, body: object
) -> None:
    assert (await service.request(method, path, json=body)).status_code == 401
    refused = await service.request(method, path, json=body, headers=as_user(role="admin"))
    assert refused.status_code == 403
    assert set(refused.json()) == {"message", "code"}


@pytest.mark.parametrize("authorization", [None, "Bearer null", "Bearer ", "Basic abc", "Bearer a.b.c", "null"])
async def test_without_a_session_there_is_no_usage(service: httpx.AsyncClient, authorization: str | None) -> None:
    refused = await service.get(DAILY_USAGE, headers={"Authorization": authorization} if authorization else {})
    assert refused.status_code == 401
    assert isinstance(refused.json()["message"], str)


async def test_a_services_token_and_an_expired_one_are_no_session(
    service: httpx.AsyncClient, as_service: Any, as_user: Any
) -> None:
    for headers in (as_service, as_user(seconds=-1)):
        assert (await service.get(DAILY_USAGE, headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/internal/reservations/a", {"user_id": str(ANNE), "least": 2, "most": 1}),
        ("POST", "/internal/reservations/a", claim(0, 1)),
        ("POST", "/internal/reservations/a", claim(1, 2**64)),
        ("POST", "/internal/reservations/a", claim(1) | {"user_id": "anne"}),
        ("POST", "/internal/reservations/a.b", claim(1)),
        ("POST", f"/internal/reservations/{'a' * 65}", claim(1)),
        ("PUT", "/internal/uploads/a", done(-1)),
        ("PUT", "/internal/uploads/a", done(1) | {"at": "2026-11-24T12:00:00"}),
        ("POST", "/internal/deletions", {"deletions": []}),
        ("POST", "/internal/streamed", None),
    ],
)
async def test_what_makes_no_sense_is_a_422_in_one_sentence(peer: Any, method: str, path: str, body: object) -> None:
    refused = await peer(method, path, body)
    assert refused.status_code == 422
    assert isinstance(refused.json()["message"], str)


async def test_a_stream_is_reported_with_its_zone(peer: Any) -> None:
    stream = {"id": "s", "user_id": str(ANNE), "size": 1, "at": "2026-11-24T12:00:00"}
    assert (await peer("POST", "/internal/streamed", {"streamed": [stream]})).status_code == 422


async def test_the_public_schema_shows_the_page_its_routes_and_no_other(service: httpx.AsyncClient) -> None:
    schema = (await service.get("/openapi.json")).json()
    assert set(schema["paths"]) == {DAILY_USAGE, "/health", "/ready"}
    assert (await service.get("/health")).json() == {"status": "ok", "service": "usage-service"}
    assert (await service.get("/ready")).status_code == 200
