"""Errors: every one, from every layer, is one readable sentence in one shape."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from shared import errors, web
from shared.settings import ServiceSettings
from storage_service.ranges import RangeNotSatisfiable
from video_service.multipart import TooSlow

ORIGIN = "http://localhost:3000"


class Body(BaseModel):
    password: Annotated[str, Field(min_length=8)]
    nested: dict[str, list[int]] = {}


RAISED: dict[str, tuple[Exception, int, str]] = {
    "bad request": (errors.BadRequest("No."), 400, "bad_request"),
    "unauthorized": (errors.Unauthorized(), 401, "unauthorized"),
    "forbidden": (errors.Forbidden("No."), 403, "forbidden"),
    "not found": (errors.NotFound("No."), 404, "not_found"),
    "too slow": (TooSlow("No."), 408, "too_slow"),
    "conflict": (errors.Conflict("No.", code="taken"), 409, "taken"),
    "too large": (errors.TooLarge("No."), 413, "too_large"),
    "unsupported": (errors.UnsupportedMedia("No."), 415, "unsupported_media"),
    "range": (RangeNotSatisfiable(7), 416, "range_not_satisfiable"),
    "invalid": (errors.Invalid("No."), 422, "invalid"),
    "limit": (errors.LimitReached("No."), 429, "limit_reached"),
    "unavailable": (errors.Unavailable("No.", retry_after=9), 503, "unavailable"),
    "peer": (errors.PeerRefused(418, "No.", "teapot"), 418, "teapot"),
    "framework": (HTTPException(406, detail=["a", "list"]), 406, "not_acceptable"),
    "unexpected": (RuntimeError("the secret cause"), 500, "internal_error"),
    "our own": (errors.ServiceError("No."), 500, "internal_error"),
}


@pytest.fixture
def app(settings: ServiceSettings) -> FastAPI:
    app = FastAPI(redirect_slashes=False)

    @app.get("/raise")
    async def fail(what: str) -> None:
        raise RAISED[what][0]

    @app.post("/validate")
    async def validate(body: Body, start: int = 0) -> str:
        return "valid"

    web.install(app, settings)
    return app


@pytest.fixture
def page(app: FastAPI) -> httpx.AsyncClient:
    """A browser's page: it sends its origin, and reads nothing that lacks the CORS headers."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers={"Origin": ORIGIN})


def check(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    body: dict[str, Any] = answer.json()
    assert isinstance(body["message"], str)
    assert body["message"].endswith(".")
    assert isinstance(body["code"], str)
    return body


@pytest.mark.parametrize("what", RAISED)
async def test_every_error_has_its_status_one_sentence_and_cors(page: httpx.AsyncClient, what: str) -> None:
    _, status, code = RAISED[what]
    assert check(await page.get("/raise", params={"what": what}), status)["code"] == code


async def test_errors_carry_the_headers_that_belong_to_them(page: httpx.AsyncClient) -> None:
    async def headers(what: str) -> httpx.Headers:
        return (await page.get("/raise", params={"what": what})).headers

    assert (await headers("unauthorized"))["www-authenticate"] == "Bearer"
    assert (await headers("range"))["content-range"] == "bytes */7"
    assert (await headers("unavailable"))["retry-after"] == "9"
    assert (await page.get("/raise", params={"what": "unavailable"})).json()["retryAfter"] == 9


async def test_what_nobody_expected_tells_nothing_of_its_cause(
    page: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await page.get("/raise", params={"what": "unexpected"})
    check(answer, 500)
    assert "secret" not in answer.text
    assert "the secret cause" in caplog.text, "it is in our own log"


async def test_unknown_paths_and_wrong_methods_are_said_in_the_same_shape(page: httpx.AsyncClient) -> None:
    check(await page.get("/nowhere"), 404)
    check(await page.get("/raise/"), 404)
    assert "DELETE" in check(await page.delete("/validate"), 405)["message"]


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ({}, {}, "password"),
        ({}, {"password": "hunter2"}, "password"),
        ({}, {"password": ["hunter2hunter2"]}, "password"),
        ({}, {"password": "long enough", "nested": {"a": [1, "hunter2"]}}, "nested.a.1"),
        ({"start": "hunter2"}, {"password": "long enough"}, "start"),
        ({}, "hunter2", "body"),
        ({}, None, "body"),
    ],
)
async def test_an_invalid_field_is_named_and_its_value_never_repeated(
    page: httpx.AsyncClient, query: dict[str, str], body: Any, field: str
) -> None:
    answer = await page.post("/validate", params=query, json=body)
    said = check(answer, 422)
    assert said["message"].startswith(f"{field}: ")
    assert list(said["fields"]) == [field]
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(("content", "status"), [(b"{", 422), (b"\xff", 400), (b"[" * 9999, 400), (b"", 422)])
async def test_a_body_that_is_no_json_is_said_in_one_sentence(
    page: httpx.AsyncClient, content: bytes, status: int
) -> None:
    check(await page.post("/validate", content=content, headers={"Content-Type": "application/json"}), status)
