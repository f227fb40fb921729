"""logging-service as its callers meet it: the services that write, the page that reads."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from logging_service.config import Settings
from logging_service.main import create_app

ANNE = uuid.uuid4()
BORIS = uuid.uuid4()


@pytest.fixture
async def service(make_settings: Any, open_app: Any) -> httpx.AsyncClient:
    client: httpx.AsyncClient = await open_app(create_app(make_settings(Settings)))
    return client


@pytest.fixture
def post(service: httpx.AsyncClient, as_service: dict[str, str]) -> Callable[..., Awaitable[httpx.Response]]:
    """A call of another service."""

    async def call(path: str, body: object) -> httpx.Response:
        return await service.post(f"/api/logs/{path}", json=body, headers=as_service)

    return call


@pytest.fixture
def logs_of(service: httpx.AsyncClient, as_user: Any) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def ask(user: uuid.UUID, start: object = 0) -> dict[str, Any]:
        answer = await service.get(f"/api/logs/user/{user}", params={"start": start}, headers=as_user(user))
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    return ask


def entry(description: str = "Logged in", user: uuid.UUID = ANNE, **more: Any) -> dict[str, Any]:
    return {
        "user_id": str(user),
        "action": "LOGIN",
        "description": description,
        "service": "UserAccountService",
        **more,
    }


async def test_a_log_is_added_and_read_with_the_tables_names(post: Any, logs_of: Any) -> None:
    before = datetime.now(UTC)
    added = await post("add", entry("Grüße 😀"))
    assert added.status_code == 201
    assert isinstance(added.json()["message"], str)
    page = await logs_of(ANNE)
    assert page["total"] == 1
    (log,) = page["logs"]
    assert before <= datetime.fromisoformat(log.pop("created_at")) <= datetime.now(UTC)
    assert uuid.UUID(log.pop("id"))
    assert log == {
        "user_id": str(ANNE),
        "action_type": "LOGIN",
        "service_name": "UserAccountService",
        "description": "Grüße 😀",
    }


async def test_an_id_and_a_time_that_are_given_are_kept(post: Any, logs_of: Any) -> None:
    known = str(uuid.uuid4())
    await post("add", entry(id=known, created_at="2026-11-24T14:00:00.5+02:00"))
    (log,) = (await logs_of(ANNE))["logs"]
    assert log["id"] == known
    assert datetime.fromisoformat(log["created_at"]) == datetime(2026, 11, 24, 12, 0, 0, 500_000, UTC)
    assert datetime.fromisoformat(log["created_at"]).tzinfo is not None


async def test_a_repeated_batch_is_written_once(post: Any, logs_of: Any) -> None:
    batch = {"logs": [entry(str(number), id=str(uuid.uuid4())) for number in range(20)]}
    for _ in range(3):
        assert (await post("batch", batch)).status_code == 201
    page = await logs_of(ANNE)
    assert page["total"] == len(page["logs"]) == 20


async def test_without_ids_the_same_thing_may_happen_twice(post: Any, logs_of: Any) -> None:
    await post("batch", {"logs": [entry(), entry()]})
    assert (await logs_of(ANNE))["total"] == 2


async def test_a_batch_of_which_one_is_wrong_writes_nothing(post: Any, logs_of: Any) -> None:
    refused = await post("batch", {"logs": [entry(), entry(action="")]})
    assert refused.status_code == 422
    assert (await logs_of(ANNE))["total"] == 0


async def test_pages_have_a_hundred_newest_first_and_the_total(post: Any, logs_of: Any) -> None:
    start = datetime(2026, 11, 24, tzinfo=UTC)
    times = [(start + timedelta(seconds=number // 2)).isoformat() for number in range(250)]
    await post("batch", {"logs": [entry(str(number), created_at=time) for number, time in enumerate(times)]})
    pages = [await logs_of(ANNE, start) for start in (0, 100, 200)]
    assert [len(page["logs"]) for page in pages] == [100, 100, 50]
    assert [int(log["description"]) for page in pages for log in page["logs"]] == list(range(249, -1, -1))
    assert {page["total"] for page in pages} == {250}


@pytest.mark.parametrize("start", [1, 2, 2**63 - 1, 2**63, 10**30])
async def test_past_the_end_is_an_empty_list_with_the_true_total(
    service: httpx.AsyncClient, post: Any, logs_of: Any, as_user: Any, start: int
) -> None:
    await post("add", entry())
    assert await logs_of(ANNE, start) == {"logs": [], "total": 1, "next": None}
    everybody = await service.get("/api/logs/all", params={"start": start}, headers=as_user(role="admin"))
    assert (everybody.status_code, everybody.json()) == (200, {"logs": [], "total": 1, "next": None})


async def test_a_list_goes_on_behind_the_page_that_its_next_came_with(
    service: httpx.AsyncClient, post: Any, as_user: Any
) -> None:
    await post("batch", {"logs": [entry(str(number)) for number in range(250)]})
    for path in (f"/api/logs/user/{ANNE}", "/api/logs/all"):
        walked: list[dict[str, Any]] = []
        query: dict[str, str] = {}
        while True:
            answer = await service.get(path, params=query, headers=as_user(ANNE, role="admin"))
            assert (answer.status_code, [*answer.json()]) == (200, ["logs", "total", "next"])
            page = answer.json()
            walked += page["logs"]
            if page["next"] is None:
                break
            query = {"after": page["next"], "start": "7"}  # after alone counts
            await post("add", entry("new"))
        assert len({log["id"] for log in walked}) == len(walked)
        there = [log["description"] for log in walked if log["description"] != "new"]
        assert there == [str(number) for number in range(249, -1, -1)]


@pytest.mark.parametrize("after", ["", "x", "null", "AAAA", "%00", "MjAyNi0xMS0yNlQxMjowMDowMFogMQ", "x" * 5000])
async def test_an_after_that_no_page_gave_is_a_422_with_one_sentence(
    service: httpx.AsyncClient, as_user: Any, after: str
) -> None:
    for path in (f"/api/logs/user/{ANNE}", "/api/logs/all"):
        refused = await service.get(path, params={"after": after}, headers=as_user(ANNE, role="admin"))
        assert (refused.status_code, refused.json()["message"]) == (422, "after: must be what a page gave as `next`.")


@pytest.mark.parametrize("start", ["-1", "x", "", "1.5", "NaN", "1e3", "0x10", f"-{10**30}"])
async def test_a_start_that_is_no_offset_is_a_422(service: httpx.AsyncClient, as_user: Any, start: str) -> None:
    for path in (f"/api/logs/user/{ANNE}", "/api/logs/all"):
        refused = await service.get(path, params={"start": start}, headers=as_user(ANNE, role="admin"))
        assert refused.status_code == 422
        assert refused.json()["message"].startswith("start: ")


async def test_people_read_their_own_logs_and_administrators_everybodys(
    service: httpx.AsyncClient, post: Any, as_user: Any
) -> None:
    await post("batch", {"logs": [entry("a"), entry("b", BORIS), entry("c")]})
    own, all_of_them = f"/api/logs/user/{ANNE}", "/api/logs/all"
    assert (await service.get(own, headers=as_user(ANNE))).json()["total"] == 2
    assert (await service.get(own, headers=as_user(role="admin"))).json()["total"] == 2
    assert (await service.get(own, headers=as_user(BORIS))).status_code == 403
    assert (await service.get(all_of_them, headers=as_user(ANNE))).status_code == 403
    page = (await service.get(all_of_them, headers=as_user(role="admin"))).json()
    assert [log["description"] for log in page["logs"]] == ["c", "b", "a"]
    assert page["total"] == 3


async def test_only_services_write(service: httpx.AsyncClient, as_user: Any) -> None:
    for path, body in (("add", entry()), ("batch", {"logs": [entry()]})):
        assert (await service.post(f"/api/logs/{path}", json=body)).status_code == 401
        assert (
            await service.post(f"/api/logs/{path}", json=body, headers={"Authorization": "Bearer null"})
        ).status_code == 401
        for role in ("user", "admin"):
            refused = await service.post(f"/api/logs/{path}", json=body, headers=as_user(ANNE, role=role))
            assert refused.status_code == 403
            assert isinstance(refused.json()["message"], str)


async def test_reading_needs_a_session(service: httpx.AsyncClient, as_user: Any, as_service: Any) -> None:
    for path in (f"/api/logs/user/{ANNE}", "/api/logs/all"):
        for headers in ({}, {"Authorization": "Bearer null"}, as_service, as_user(ANNE, seconds=-1)):
            assert (await service.get(path, headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_id": "anne"},
        {"action": ""},
        {"action": "A" * 65},
        {"service": ""},
        {"service": "S" * 65},
        {"description": "d" * 2001},
        {"description": "a\0b"},
        {"description": None},
        {"created_at": "2026-11-24T12:00:00"},
        {"id": "1"},
    ],
)
async def test_a_log_that_makes_no_sense_is_a_422(post: Any, wrong: dict[str, Any]) -> None:
    refused = await post("add", entry() | wrong)
    assert refused.status_code == 422
    assert isinstance(refused.json()["message"], str)


async def test_a_batch_has_one_to_a_thousand(post: Any) -> None:
    for size, status in ((0, 422), (1, 201), (1000, 201), (1001, 422)):
        assert (await post("batch", {"logs": [entry()] * size})).status_code == status


async def test_text_that_looks_like_sql_is_only_text(post: Any, logs_of: Any) -> None:
    hostile = "'); DROP TABLE logs; --"
    await post("add", entry(hostile))
    assert (await logs_of(ANNE))["logs"][0]["description"] == hostile


async def test_half_a_character_is_a_422(service: httpx.AsyncClient, as_service: Any) -> None:
    body = b'{"user_id": "%s", "action": "A", "service": "S", "description": "\\ud800"}' % str(ANNE).encode()
    refused = await service.post("/api/logs/add", content=body, headers=as_service | JSON)
    assert refused.status_code == 422


async def test_times_of_any_zone_are_one_time(post: Any, logs_of: Any) -> None:
    for number, time in enumerate(("2026-11-24T12:00:01Z", "2026-11-25T02:00:00+14:00", "2026-11-24T12:00:00.5Z")):
        await post("add", entry(str(number), created_at=time))
    logs = (await logs_of(ANNE))["logs"]
    assert [(log["description"], log["created_at"]) for log in logs] == [
        ("0", "2026-11-24T12:00:01Z"),
        ("2", "2026-11-24T12:00:00.500000Z"),
        ("1", "2026-11-24T12:00:00Z"),
    ]


async def test_the_first_year_is_a_time_too(post: Any, logs_of: Any) -> None:
    for beyond in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        assert (await post("add", entry(created_at=beyond))).status_code == 422
    await post("add", entry(created_at="0001-01-02T00:00:00Z"))
    assert (await logs_of(ANNE))["logs"][0]["created_at"].startswith("0001-01-02")


async def test_the_schema_shows_every_route(service: httpx.AsyncClient) -> None:
    schema = (await service.get("/openapi.json")).json()
    logs = {"/api/logs/add", "/api/logs/batch", "/api/logs/user/{user_id}", "/api/logs/all"}
    assert set(schema["paths"]) == logs | {"/health", "/ready"}
    assert (await service.get("/ready")).json()["checks"] == {"database": "ok"}


JSON = {"Content-Type": "application/json"}
