"""One shape for every error: of every status, from every layer, in every service.

JSON with a readable ``message``, and the CORS headers without which a browser would report something else.
"""

from dataclasses import dataclass

import pytest
from contract.video_storage.house import ORIGIN, SERVICES, House, Person, form, in_chunks
from contract.video_storage.provoking import (
    INVALID,
    LONG,
    SOMEBODY,
    UPLOAD,
    Call,
    anothers_film,
    beside_the_film,
    broken,
    day_full,
    deleted_film,
    internal,
    plain,
    preflight,
    read,
    read_as_service,
    standing_still,
    storage_down,
    storage_full,
    taken_email,
    upload,
    while_uploading,
)

from shared.errors import Unavailable

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Case:
    name: str
    status: int
    call: Call
    says: str = ""


def every_service() -> list[Case]:
    cases = []
    for service in SERVICES:
        url = f"http://{service}"

        def case(name: str, status: int, call: Call, says: str = "", service: str = service) -> None:
            cases.append(Case(f"{service}: {name}", status, call, says))

        case("a preflight for a method that nobody has", 400, preflight(service, Method="TRACE"))
        case("a preflight for a header that may not come", 400, preflight(service, Headers="x-evil"))
        case("no token", 401, read(service, Authorization=""))
        case("Bearer null", 401, read(service, Authorization="Bearer null"))
        case("another scheme", 401, read(service, Authorization="Basic YTpi"))
        case("a service's token where a user is meant", 401, read_as_service(service))
        case("an internal call without a token", 401, internal(service, headers={"Authorization": ""}))
        case("an internal call with a user's token", 403, internal(service))
        case("an unknown path", 404, plain("GET", f"{url}/nothing/here"))
        case("a slash too many", 404, plain("GET", f"{url}/health/"))
        case("a wrong method", 405, plain("DELETE", f"{url}/health"))
        case("a body that is too long", 413, internal(service, json=None, content=b" " * LONG))
        case("a bug", 500, broken(service, RuntimeError("secret")), "Something went wrong")
        case("a database that is away", 503, broken(service, Unavailable("The database does not answer.")))
        if service in INVALID:
            case("a parameter that is wrong", 422, plain("GET", url + INVALID[service]))
        if service != "video-service":  # which reads no JSON at all
            case("a body that is no JSON", 422, internal(service, as_service=True, json=None, content=b"{"))
            case("a body that lacks a field", 422, internal(service, as_service=True, json={}))
            case("a body of another kind", 422, internal(service, as_service=True, json=[1, "x"]))
            growing = in_chunks(b" " * LONG, 100_000)
            case("a body that grows too long", 413, internal(service, as_service=True, json=None, content=growing))
    return cases


VIDEOS = "http://video-service/api/videos"
MEDIA = "http://storage-service/media"
SINGLE = [
    Case("register: a taken e-mail", 409, taken_email, "User already exists with this email"),
    Case("user: somebody else", 403, plain("GET", f"http://user-service/api/users/user/{SOMEBODY}")),
    Case("logs: somebody else's", 403, plain("GET", f"http://logging-service/api/logs/user/{SOMEBODY}")),
    Case("logs: everybody's", 403, plain("GET", "http://logging-service/api/logs/all")),
    Case("videos: somebody else's list", 403, plain("GET", f"{VIDEOS}/user/{SOMEBODY}")),
    Case("videos: somebody else's film", 403, anothers_film),
    Case("videos: an unknown film", 404, plain("GET", f"{VIDEOS}/stream/unknown")),
    Case("videos: deleting an unknown film", 404, plain("DELETE", f"{VIDEOS}/delete/unknown")),
    Case("upload: without a token", 401, plain("POST", UPLOAD, headers={"Authorization": "Bearer null"}, content=b"x")),
    Case("upload: no number for a length", 400, upload(headers={"Content-Length": "many"})),
    Case("upload: cut off", 400, plain("POST", UPLOAD, headers={"Content-Type": form(b"", "")[1]}, content=b"--")),
    Case("upload: standing still", 408, standing_still),
    Case("upload: during another", 409, while_uploading, "Already uploading"),
    Case("upload: storage is full", 413, storage_full, "Exceeding total storage limit"),
    Case("upload: larger than one may be", 413, upload(bytes(2_000_000)), "that one upload may have"),
    Case("upload: not a video", 415, upload(b"<html>")),
    Case("upload: a blank title", 422, upload(title=" ")),
    Case("upload: no form", 422, plain("POST", UPLOAD, json={"video": "x"})),
    Case("upload: the day is full", 429, day_full, "Exceeding daily bandwidth limit"),
    Case("upload: storage is down", 503, storage_down, "storage-service"),
    Case("media: no capability", 403, plain("GET", f"{MEDIA}/x/x.mp4")),
    Case("media: a deleted film", 404, deleted_film),
    Case("media: a range beside the film", 416, beside_the_film),
]
CASES = every_service() + SINGLE


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_an_error_is_a_readable_message_with_cors_headers(house: House, anybody: Person, case: Case) -> None:
    answer = await case.call(house, await house.person() if case in SINGLE else anybody)
    assert answer.status_code == case.status
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    body = answer.json()
    message = body["message"]
    assert isinstance(message, str)
    assert message == message.strip()
    assert len(message) > 10
    assert case.says in message
    assert isinstance(body["code"], str)
    assert "detail" not in body
    assert "secret" not in answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "origin" in answer.headers["vary"].lower()
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    if answer.status_code == 405:
        assert answer.headers["allow"]
    if answer.status_code == 503:
        assert answer.headers["retry-after"].isdecimal()


async def test_the_statuses_that_the_contract_names_all_stand_among_the_cases() -> None:
    assert {case.status for case in CASES} >= {400, 401, 403, 404, 405, 409, 413, 415, 416, 422, 429, 500, 503}
