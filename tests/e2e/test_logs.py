"""What the services print: a line of JSON per request that Cloud Logging understands, and nothing that is a secret."""

import json
import re
import secrets
from typing import Any, NamedTuple

import pytest
import videos
from e2e.people import PASSWORD, Person
from e2e.processes import Service, wait_for
from e2e.services import NAMES, Services
from e2e.wire import Wire

TRACE = "logging.googleapis.com/trace"
SEVERITIES = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


class Journey(NamedTuple):
    person: Person
    capability: str


@pytest.fixture(scope="module")
def journey(services: Services) -> Journey:
    """Somebody's whole way, with all mistakes, which is in the output now."""
    person = Person(services, "Ada")
    client = services.client
    person.login("wrong " + PASSWORD)
    uploaded = person.upload(videos.mp4()).json()["file"]
    client.get(uploaded["filepath"])
    client.get(uploaded["filepath"], headers={"Range": "bytes=5-9"})
    client.get(uploaded["filepath"].replace(".mp4", ".jpg"))
    client.get(uploaded["filepath"].replace(".mp4", ".gif"))
    client.get(uploaded["filepath"][:-20] + ".mp4")
    person.upload(videos.random_bytes(100_000))
    person.upload(videos.mp4(), "")
    for service, path in (
        ("video", "/api/videos/stream?q=" + PASSWORD.replace(" ", "+")),
        ("video", f"/api/videos/user/{person.id}?start=-1"),
        ("video", f"/api/videos/stream/{uploaded['filename']}"),
        ("video", "/api/videos/stream/../../../etc/passwd"),
        ("storage", "/api/storage/usage"),
        ("usage", "/api/usage/daily-usage?token=" + person.token),
        ("logging", f"/api/logs/user/{person.id}"),
        ("logging", "/api/logs/all"),
        *((name, "/nowhere/" + person.token) for name in NAMES),
        *((name, "/ready") for name in NAMES),
    ):
        person.get(service, path)
    register = f"{services['user'].url}/api/users/register"
    client.post(register, json={"email": person.email, "password": person.password, "username": "Again"})
    client.post(register, json={"email": "no mail of " + person.email, "password": PASSWORD[:5], "username": "Ada"})
    client.post(register, content=json.dumps({"email": person.email, "password": person.password})[:-5])
    for service in services:
        with Wire(service) as wire:
            wire.send(f"NONSENSE {person.token}\r\nAuthorization: {person.token}\r\n\r\n".encode())
            wire.is_closed()
    person.delete(uploaded["filename"])
    person.delete_all()
    return Journey(person, uploaded["filepath"].split("/")[-2])


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_json_and_every_request_has_its_line(services: Services, journey: Journey, name: str) -> None:
    lines = lines_of(services[name])
    assert all(line["severity"] in SEVERITIES and line["message"] and line["time"] for line in lines)
    assert {line["service"] for line in lines} == {f"{name}-service"}
    requests = [line for line in lines if "status" in line]
    assert requests
    for line in requests:
        assert re.fullmatch("[0-9a-f]{32}", line[TRACE]), line
        assert isinstance(line["status"], int)
        assert isinstance(line["ms"], float)
        assert line["method"]
        assert line["route"].startswith("/") or line["route"] == "(no route)"
    errors = [line for line in lines if line["severity"] in ("ERROR", "CRITICAL")]
    assert errors == [], "nothing of this was the service's fault"


def test_a_line_names_the_route_and_not_the_address(services: Services, journey: Journey) -> None:
    routes = {line["route"] for line in lines_of(services["storage"]) if "route" in line}
    assert {"/media/{capability}/{filename}.mp4", "/media/{capability}/{filename}.jpg", "/api/storage/usage"} <= routes
    routes = {line["route"] for line in lines_of(services["video"]) if "route" in line}
    assert {"/api/videos/upload", "/api/videos/user/{user_id}", "/api/videos/delete/{filename}"} <= routes
    assert "/health" not in routes, "it would be most of the lines"


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_in_any_line(services: Services, journey: Journey, name: str) -> None:
    said = services[name].said()
    for secret in (
        services.secret,
        PASSWORD,
        PASSWORD.replace(" ", "+"),
        journey.person.token,
        journey.person.token.rpartition(".")[2],
        journey.capability,
        "eyJ",  # with which every JSON Web Token begins
        "@example.test",
    ):
        assert secret not in said
    assert not re.search(r"/media/[\w-]{20}", said)


def test_the_trace_of_the_caller_is_in_the_lines_of_all_who_worked_for_it(services: Services, journey: Journey) -> None:
    trace = secrets.token_hex(16)
    services.client.headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-01"
    try:
        assert journey.person.upload(videos.mp4()).status_code == 200
    finally:
        del services.client.headers["traceparent"]

    def routes(name: str) -> set[str]:
        return {line["route"] for line in lines_of(services[name]) if line.get(TRACE) == trace and "route" in line}

    expected = {
        "video": {"/api/videos/upload"},
        "user": {"/internal/users/{user_id}/upload-lock", "/internal/users/{user_id}/upload-lock/{holder}"},
        "storage": {
            "/internal/reservations/{filename}",
            "/uploads/{capability}/{filename}",
            "/internal/objects/{filename}/finish",
            "/internal/keep",
        },
        "usage": {"/internal/reservations/{upload_id}", "/internal/uploads/{upload_id}"},
    }
    wait_for(lambda: all(routes(name) >= expected[name] for name in expected))  # a line may come after its answer
    assert {name: routes(name) for name in expected} == expected


@pytest.mark.parametrize("given", ["", "nonsense", "00-xyz-1-01", "00-" + "A" * 32 + "-" + "0" * 16 + "-01"])
def test_a_trace_that_is_none_is_not_taken_over(services: Services, journey: Journey, given: str) -> None:
    headers = journey.person.headers | {"traceparent": given}
    assert services.client.get(f"{services['usage'].url}/api/usage/daily-usage", headers=headers).status_code == 200
    traces = {line[TRACE] for line in lines_of(services["usage"]) if TRACE in line}
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)


def lines_of(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.said().splitlines()]
