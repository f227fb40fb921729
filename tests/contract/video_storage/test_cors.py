"""What a browser asks before it calls, and what it must hear before a page may read; and refusals that read nothing."""

from collections.abc import AsyncIterator

import pytest
from contract.video_storage.house import ORIGIN, SERVICES, House, Person, film, form
from contract.video_storage.provoking import UPLOAD, read

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_preflight_of_the_page_is_answered_with_what_it_may_do(house: House, service: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        for headers in ("authorization", "content-type", "authorization,content-type"):
            asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
            answer = await house.client.options(f"http://{service}/api/any/path", headers={"Origin": ORIGIN} | asked)
            assert answer.is_success
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert method in answer.headers["access-control-allow-methods"]
            allowed = answer.headers["access-control-allow-headers"].lower()
            assert all(header in allowed for header in headers.split(","))


@pytest.mark.parametrize("service", SERVICES)
async def test_good_answers_carry_the_cors_headers_too_and_foreign_origins_get_none(
    house: House, ann: Person, service: str
) -> None:
    good = await read(service)(house, ann)
    assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, ORIGIN)
    foreign = await read(service, Origin="http://evil.example")(house, ann)
    assert "access-control-allow-origin" not in foreign.headers
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}
    refused = await house.client.options(f"http://{service}/health", headers=asked)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


async def test_a_media_answer_may_be_read_by_the_page(house: House, ann: Person) -> None:
    url = (await ann.uploaded(film()))["filepath"]
    for wanted in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": "*"}):
        answer = await house.client.get(url, headers={"Origin": ORIGIN} | wanted)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"content-range", "accept-ranges", "content-length", "etag"} <= exposed


@pytest.mark.parametrize("digits", ["9" * 30, "9" * 5000])
async def test_an_absurd_declared_length_is_a_413(house: House, ann: Person, digits: str) -> None:
    for url in (UPLOAD, "http://user-service/api/users/login"):
        headers = {"Content-Length": digits, "Content-Type": form(b"", "")[1]}
        answer = await ann.ask("POST", url, content=b"x", headers=headers)
        assert answer.status_code == 413


async def test_a_bad_token_is_refused_before_a_byte_of_the_body_is_read(house: House) -> None:
    read_bytes = []

    async def body() -> AsyncIterator[bytes]:
        read_bytes.append(1)
        yield b"x"

    headers = {"Authorization": "Bearer null", "Content-Type": form(b"", "")[1], "Content-Length": "52428800"}
    answer = await house.client.post(UPLOAD, content=body(), headers=headers)
    assert (answer.status_code, read_bytes) == (401, [])


async def test_a_declared_length_over_the_limit_is_refused_before_a_byte_of_the_body_is_read(
    house: House, ann: Person
) -> None:
    read_bytes = []

    async def body() -> AsyncIterator[bytes]:
        read_bytes.append(1)
        yield b"x"

    headers = {"Content-Type": form(b"", "")[1], "Content-Length": "52428800"}
    answer = await ann.ask("POST", UPLOAD, content=body(), headers=headers)
    assert (answer.status_code, read_bytes) == (413, [])
