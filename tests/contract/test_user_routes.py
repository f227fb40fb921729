"""user-service as its callers meet it: the page, and video-service for its upload lock."""

import asyncio
import base64
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shared.auth import Tokens
from user_service.config import Settings
from user_service.main import create_app
from user_service.store import open_store

REGISTER = "/api/users/register"
LOGIN = "/api/users/login"
EMAIL = "anne@example.test"
PASSWORD = "correct horse"


@pytest.fixture
def settings(make_settings: Any) -> Settings:
    found: Settings = make_settings(Settings)
    return found


@pytest.fixture
async def service(
    settings: Settings, open_app: Any, network: httpx.AsyncBaseTransport, logged: list[dict[str, Any]]
) -> httpx.AsyncClient:
    client: httpx.AsyncClient = await open_app(create_app(settings, network))
    return client


@pytest.fixture
def register(service: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    """Post a registration, as JSON in ASCII: so half a character can be sent as well."""

    async def call(email: object = EMAIL, password: object = PASSWORD, **more: object) -> httpx.Response:
        return await post_json(service, REGISTER, {"email": email, "password": password, **more})

    return call


@pytest.fixture
def login(service: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    async def call(email: object = EMAIL, password: object = PASSWORD) -> httpx.Response:
        return await post_json(service, LOGIN, {"email": email, "password": password})

    return call


@pytest.fixture
def profile(service: httpx.AsyncClient, login: Any) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The account as its owner reads it after signing in."""

    async def ask(email: str = EMAIL) -> dict[str, Any]:
        token = (await login(email)).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = await service.get(f"/api/users/user/{as_the_page_reads(token)['id']}", headers=headers)
        assert answer.status_code == 200
        user: dict[str, Any] = answer.json()["user"]
        return user

    return ask


async def post_json(service: httpx.AsyncClient, path: str, body: object) -> httpx.Response:
    return await service.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})


def as_the_page_reads(token: str) -> dict[str, Any]:
    """JSON.parse(atob(token.split('.')[1])): ``atob`` knows ``+`` and ``/``, and no ``-`` or ``_``."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True))
    return claims


# ── register ──


async def test_registering_answers_201_and_a_message(register: Any) -> None:
    answer = await register(username="Anne")
    assert answer.status_code == 201
    assert list(answer.json()) == ["message"]


async def test_a_taken_email_is_refused_in_the_words_the_page_knows(register: Any) -> None:
    await register()
    for spelling in (EMAIL, "ANNE@EXAMPLE.TEST", "  Anne@example.test\t"):
        taken = await register(spelling, "another password")
        assert taken.status_code == 409
        assert taken.json()["message"] == "User already exists with this email"


async def test_of_ten_who_register_one_email_at_once_one_gets_it(register: Any) -> None:
    answers = await asyncio.gather(*(register() for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


@pytest.mark.parametrize("password", ["8 chars.", "x" * 128, "😀" * 8, "😀" * 128, "a\0b\0c\0d\0", " " * 8])
async def test_a_password_is_8_to_128_characters_of_any_kind_and_never_cut(
    register: Any, login: Any, password: str
) -> None:
    assert (await register(password=password)).status_code == 201
    assert (await login(password=password)).status_code == 200
    for other in (password[:-1], password + "x", password[:-1] + "y", password.strip() + "z"):
        assert (await login(password=other)).status_code == 401


async def test_half_characters_make_a_password_too(register: Any, login: Any) -> None:
    assert (await register(password="\ud800" * 8)).status_code == 201
    assert (await login(password="\ud800" * 8)).status_code == 200
    assert (await login(password="\ud801" * 8)).status_code == 401


@pytest.mark.parametrize("password", ["", "seven..", "😀" * 7, "x" * 129, "😀" * 129, None, 12345678, ["x" * 8]])
async def test_a_password_of_another_length_or_kind_is_a_422_that_does_not_repeat_it(
    register: Any, password: object
) -> None:
    refused = await register(password=password)
    assert refused.status_code == 422
    assert refused.json()["message"].startswith("password: ")
    assert str(password) == "" or str(password) not in refused.text


@pytest.mark.parametrize(
    "email",
    [
        *("", "anne", "anne@", "@example.test", "anne@example", "a b@example.test", "a@b@example.test"),
        *("anne@example..test", "an\0ne@example.test", f"{'a' * 320}@example.test", None, 5),
    ],
)
async def test_what_is_no_email_is_a_422(register: Any, email: object) -> None:
    refused = await register(email)
    assert refused.status_code == 422
    assert refused.json()["message"].startswith("email: ")


@pytest.mark.parametrize(
    "email", ["o'brien+tag@example.test", "a~b?c@example.test", "me@app.local", "jürgen@bücher.test"]
)
async def test_an_unusual_email_is_good(register: Any, login: Any, email: str) -> None:
    assert (await register(email)).status_code == 201
    assert (await login(email)).status_code == 200


@pytest.mark.parametrize("username", [None, "", "   ", "\t\n"])
async def test_a_blank_user_name_falls_back_to_the_emails_local_part(
    register: Any, profile: Any, username: str | None
) -> None:
    await register("  Anne.Smith@example.test", username=username)
    assert (await profile("anne.smith@example.test"))["username"] == "Anne.Smith"


async def test_a_missing_user_name_falls_back_too(register: Any, profile: Any) -> None:
    await register()
    assert (await profile())["username"] == "anne"


async def test_a_user_name_is_trimmed_and_otherwise_kept(register: Any, profile: Any) -> None:
    await register(username=f"  Ännchen 😀 {'x' * 89} ")
    assert (await profile())["username"] == f"Ännchen 😀 {'x' * 89}"


@pytest.mark.parametrize("username", ["x" * 101, "a\0b", 7])
async def test_a_user_name_that_cannot_be_kept_is_a_422(register: Any, username: object) -> None:
    assert (await register(username=username)).status_code == 422


async def test_half_a_character_in_a_user_name_is_a_422(register: Any) -> None:
    assert (await register(username="\ud800")).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff", b"[" * 5000])
async def test_a_body_that_is_no_registration_is_a_message(service: httpx.AsyncClient, body: bytes) -> None:
    for path in (REGISTER, LOGIN):
        refused = await service.post(path, content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code in (400, 422)
        assert isinstance(refused.json()["message"], str)


# ── login ──


async def test_the_token_is_what_the_page_reads(register: Any, login: Any, settings: Settings) -> None:
    await register("  An~n?e@Example.test ")
    answer = await login("an~n?e@example.test")
    assert answer.status_code == 200
    token = answer.json()["token"]
    assert isinstance(answer.json()["message"], str)
    claims = as_the_page_reads(token)
    assert claims["email"] == "An~n?e@Example.test", "the stored spelling is what was typed"
    assert 3590 < claims["exp"] - datetime.now(UTC).timestamp() <= 3600
    assert Tokens(settings).user(token).id == uuid.UUID(claims["id"])
    assert set(claims) == {"id", "email", "exp", "sub", "role", "iss", "aud", "iat", "jti"}


async def test_email_is_trimmed_and_compared_without_case(register: Any, login: Any) -> None:
    await register("Anne@Example.test")
    for spelling in ("anne@example.test", "ANNE@EXAMPLE.TEST", "\n Anne@Example.test "):
        assert (await login(spelling)).status_code == 200


async def test_a_wrong_email_and_a_wrong_password_cannot_be_told_apart(register: Any, login: Any) -> None:
    await register()
    wrong = [
        await login(password="wrong password"),
        await login("nobody@example.test"),
        await login("no e-mail at all"),
        await login(password=""),
        await login(password="x" * 100_000),
        await login(email="an\0ne@example.test"),
        await login(email="a" + "\u0301" * 100_000 + "\u0316" * 100_000),  # would take minutes to normalise
    ]
    assert {answer.status_code for answer in wrong} == {401}
    assert {answer.text for answer in wrong} == {wrong[0].text}
    assert wrong[0].json()["message"] == "Invalid credentials"


async def test_half_a_character_in_a_login_is_no_fault_of_ours(register: Any, login: Any) -> None:
    await register()
    assert (await login("\ud800@example.test")).status_code in (401, 422)
    assert (await login(password="\ud800" * 8)).status_code == 401


async def test_what_happened_is_logged_a_failed_login_of_a_known_account_too(
    register: Any, login: Any, logged: list[dict[str, Any]], eventually: Any
) -> None:
    await register(username="Anne")
    await login()
    await login(password="wrong password")
    await login("nobody@example.test")
    await eventually(lambda: len(logged) >= 3)
    assert [entry["action"] for entry in logged] == ["REGISTER", "LOGIN", "LOGIN"]
    assert {entry["service"] for entry in logged} == {"UserAccountService"}
    assert len({entry["user_id"] for entry in logged}) == 1
    assert "failed" in logged[2]["description"].lower()


async def test_without_logging_service_people_sign_in_all_the_same(
    make_settings: Any, open_app: Any, network: httpx.AsyncBaseTransport
) -> None:
    service = await open_app(create_app(make_settings(Settings), network))
    body = {"email": EMAIL, "password": PASSWORD}
    assert (await service.post(REGISTER, json=body)).status_code == 201
    assert (await service.post(LOGIN, json=body)).status_code == 200


# ── the account ──


async def test_the_account_shows_what_the_page_reads_and_no_password(register: Any, profile: Any) -> None:
    before = datetime.now(UTC)
    await register("Anne@example.test", username="Anne")
    user = await profile("anne@example.test")
    assert before <= datetime.fromisoformat(user.pop("created_at")) <= datetime.now(UTC)
    assert uuid.UUID(user.pop("id"))
    assert user == {"email": "Anne@example.test", "username": "Anne", "role": "user"}


async def test_an_account_is_for_its_owner_and_administrators(
    service: httpx.AsyncClient, register: Any, profile: Any, as_user: Any
) -> None:
    await register()
    address = f"/api/users/user/{(await profile())['id']}"
    assert (await service.get(address, headers=as_user(role="admin"))).status_code == 200
    assert (await service.get(address, headers=as_user())).status_code == 403


async def test_who_is_not_there_is_403_for_users_and_404_for_administrators(
    service: httpx.AsyncClient, as_user: Any
) -> None:
    nobody = uuid.uuid4()
    address = f"/api/users/user/{nobody}"
    assert (await service.get(address, headers=as_user())).status_code == 403
    assert (await service.get(address, headers=as_user(role="admin"))).status_code == 404
    assert (await service.get(address, headers=as_user(nobody))).status_code == 404
    assert (await service.get("/api/users/user/anne", headers=as_user())).status_code == 422


@pytest.mark.parametrize(
    "authorization", [None, "Bearer null", "Bearer ", "Bearer", "Basic abc", "Bearer a.b.c", "null"]
)
async def test_without_a_session_there_is_no_account(service: httpx.AsyncClient, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    refused = await service.get(f"/api/users/user/{uuid.uuid4()}", headers=headers)
    assert refused.status_code == 401
    assert isinstance(refused.json()["message"], str)


async def test_a_services_token_and_an_expired_one_are_no_session(
    service: httpx.AsyncClient, as_service: Any, as_user: Any
) -> None:
    for headers in (as_service, as_user(seconds=-1)):
        assert (await service.get(f"/api/users/user/{uuid.uuid4()}", headers=headers)).status_code == 401


async def test_a_token_that_is_deeply_nested_json_is_malformed(service: httpx.AsyncClient) -> None:
    hostile = base64.urlsafe_b64encode(b"[" * 5000).decode()
    headers = {"Authorization": f"Bearer {hostile}.e30.e30"}
    assert (await service.get(f"/api/users/user/{uuid.uuid4()}", headers=headers)).status_code == 401


async def test_who_is_made_administrator_is_one_from_the_next_login_on(
    settings: Settings, register: Any, login: Any
) -> None:
    await register()
    async with open_store(settings) as store:
        assert await store.set_role(EMAIL, "admin")
    assert as_the_page_reads((await login()).json()["token"])["role"] == "admin"


# ── the upload lock ──


@pytest.fixture
async def lock_of_anne(register: Any, profile: Any) -> str:
    await register()
    return f"/internal/users/{(await profile())['id']}/upload-lock"


async def test_one_upload_at_a_time(service: httpx.AsyncClient, as_service: Any, lock_of_anne: str) -> None:
    async def lock(holder: str) -> httpx.Response:
        return await service.put(lock_of_anne, json={"holder": holder}, headers=as_service)

    assert (await lock("first")).status_code == 204
    assert (await lock("first")).status_code == 204
    refused = await lock("second")
    assert refused.status_code == 409
    assert "Already uploading" in refused.json()["message"]
    for holder in ("second", "unknown", "first", "first"):
        assert (await service.delete(f"{lock_of_anne}/{holder}", headers=as_service)).status_code == 204
    assert (await lock("second")).status_code == 204


async def test_of_ten_uploads_at_once_one_gets_the_lock(
    service: httpx.AsyncClient, as_service: Any, lock_of_anne: str
) -> None:
    answers = await asyncio.gather(
        *(service.put(lock_of_anne, json={"holder": f"u{number}"}, headers=as_service) for number in range(10))
    )
    assert sorted(answer.status_code for answer in answers) == [204] + [409] * 9


async def test_nobody_cannot_upload(service: httpx.AsyncClient, as_service: Any) -> None:
    address = f"/internal/users/{uuid.uuid4()}/upload-lock"
    assert (await service.put(address, json={"holder": "a"}, headers=as_service)).status_code == 404


async def test_the_lock_is_for_services_only(service: httpx.AsyncClient, as_user: Any, lock_of_anne: str) -> None:
    for headers, status in (({}, 401), (as_user(role="admin"), 403)):
        assert (await service.put(lock_of_anne, json={"holder": "a"}, headers=headers)).status_code == status
        assert (await service.delete(f"{lock_of_anne}/a", headers=headers)).status_code == status


async def test_the_public_schema_shows_the_page_its_routes_and_no_other(service: httpx.AsyncClient) -> None:
    schema = (await service.get("/openapi.json")).json()
    assert set(schema["paths"]) == {REGISTER, LOGIN, "/api/users/user/{user_id}", "/health", "/ready"}
    assert (await service.get("/ready")).json()["checks"] == {"database": "ok", "logging-service": "ok"}
