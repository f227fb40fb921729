"""One origin: the same journey through nginx, which sends the videos and publishes what it should and nothing else."""

import hashlib
import json
import socket
import time
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
import videos
from containers.engine import docker, inside, inspect, logs, wait_until_healthy
from containers.house import House
from containers.memory import in_mib, memory, watched
from e2e.books import audit
from e2e.people import Form, Person
from e2e.processes import wait_for
from e2e.test_journey import (
    figures as books,
)
from e2e.test_journey import (
    test_a_bare_video_element_can_watch_it_and_seek,
    test_everything_done_appears_in_the_own_logs_newest_first,
    test_everything_that_the_page_does,
    test_what_was_watched_is_counted_for_the_one_who_watched,
)
from e2e.test_memory import upload_at_once

from shared.settings import MIB

__all__ = [
    "test_a_bare_video_element_can_watch_it_and_seek",
    "test_everything_done_appears_in_the_own_logs_newest_first",
    "test_everything_that_the_page_does",
    "test_what_was_watched_is_counted_for_the_one_who_watched",
]

OVERLAYS = ("edge",)
UPLOADS = 16
ORIGIN = "http://localhost:3000"
# Straight from storage-service's own door, as it answers when nginx is not to send anything: with a header that nginx
# would read otherwise (If-Match), which we pass over. Prints status, headers and the length of each body.
STRAIGHT = """
import http.client, json, sys
for path, method, headers in json.loads(sys.argv[1]):
    service = http.client.HTTPConnection("127.0.0.1", 3000, timeout=10)
    service.request(method, path, headers=headers | {"If-Match": "*"})
    answer = service.getresponse()
    headers = [[name.lower(), value] for name, value in answer.getheaders()]
    print(json.dumps([answer.status, headers, len(answer.read())]))
"""
# Bytes that have left this container.
SENT = "print(sum(int(line.split()[9]) for line in open('/proc/net/dev') if 'eth' in line))"


@pytest.fixture(scope="module")
def ada(services: House) -> Person:
    return Person(services, "Ada")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def film() -> bytes:
    return videos.exactly(5 * MIB + 3)


@pytest.fixture(scope="module")
def url(ada: Person, film: bytes) -> str:
    filepath = ada.upload(film, "A film").json()["file"]["filepath"]
    assert isinstance(filepath, str)
    return filepath


def fetch(url: str, method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()} | {"Origin": ORIGIN}
    return httpx.request(method, url, headers=named, trust_env=False, timeout=30)


def raw(services: House, target: str) -> int:
    """The status of a request with exactly this target, which a client would tidy up."""
    with closing(socket.create_connection(("127.0.0.1", services.ports["edge"]), timeout=10)) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split(b" ", 2)[1])


def test_the_urls_of_videos_are_at_the_one_origin_and_no_service_is_published(services: House, url: str) -> None:
    assert url.startswith(f"http://localhost:{services.ports['edge']}/media/")
    published = {name: inspect(id)["HostConfig"]["PortBindings"] or {} for name, id in services.everything.items()}
    assert {name for name, ports in published.items() if ports} == {"edge"}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /api/users/me HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 65_536, 431),
        (b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\n", 431),
        (b"GET /api/users/me HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"x" * 10_000 + b"\r\n") * 8, 431),
        (b"\x16\x03\x01 hello\r\n\r\n", 400),
    ],
    ids=["a head without end", "a path without end", "a head of 80 KB", "another protocol"],
)
def test_what_is_too_large_or_no_request_is_refused_in_front_and_in_json(
    services: House, sent: bytes, status: int
) -> None:
    with closing(socket.create_connection(("127.0.0.1", services.ports["edge"]), timeout=10)) as connection:
        connection.sendall(sent)
        answer = b""
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split(b" ", 2)[1]) == status
    assert json.loads(body)["message"]


def test_a_head_that_comes_too_slowly_is_given_up(services: House) -> None:
    with closing(socket.create_connection(("127.0.0.1", services.ports["edge"]), timeout=40)) as connection:
        connection.sendall(b"GET /api/users/me HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_a_video_arrives_byte_by_byte_from_nginx_and_not_from_the_service(
    services: House, url: str, film: bytes
) -> None:
    before = {name: int(inside(services[name].id, SENT)) for name in ("storage", "video")}
    for _ in range(3):
        answer = fetch(url)
        assert hashlib.sha256(answer.content).digest() == hashlib.sha256(film).digest()
    parts = [fetch(url, range=f"bytes={start}-{start + MIB - 1}").content for start in range(0, len(film), MIB)]
    assert hashlib.sha256(b"".join(parts)).digest() == hashlib.sha256(film).digest()
    for name, sent in before.items():
        assert int(inside(services[name].id, SENT)) - sent < 100_000, name


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"range": "bytes=0-"}, 206),
        ({"range": "bytes=100-299"}, 206),
        ({"range": "bytes=-10"}, 206),
        ({"range": "bytes=-99999999"}, 206),
        ({"range": "bytes=500-99999999"}, 206),
        ({"range": "bytes=0-99999999999999999999"}, 206),
        ({"range": "bytes=5-2"}, 200),
        ({"range": "bytes=x"}, 200),
        ({"range": "lines=1-2"}, 200),
        ({"range": "bytes=0-0,5-5"}, 200),
        ({"range": "bytes=99999999-"}, 416),
        ({"range": "bytes=-0"}, 416),
        ({"range": "bytes=5-9", "if_range": "ETAG"}, 206),
        ({"range": "bytes=5-9", "if_range": "MODIFIED"}, 206),
        ({"range": "bytes=5-9", "if_range": '"another"'}, 200),
        ({"range": "bytes=5-9", "if_range": "Tue, 24 Nov 2020 12:00:01 GMT"}, 200),
        ({"if_none_match": "ETAG"}, 304),
        ({"if_none_match": '"another", W/ETAG'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"another"'}, 200),
        ({"if_none_match": '"another"', "if_modified_since": "MODIFIED"}, 200),
        ({"if_modified_since": "MODIFIED"}, 304),
        ({"if_modified_since": "Tue, 24 Nov 2020 12:00:01 GMT"}, 200),
        ({"if_match": '"another"'}, 200),
        ({"if_unmodified_since": "Tue, 24 Nov 2020 12:00:01 GMT"}, 200),
    ],
    ids=str,
)
def test_ranges_and_conditions_are_answered_as_by_the_service_itself(
    services: House, url: str, film: bytes, headers: dict[str, str], status: int
) -> None:
    known = fetch(url, "HEAD").headers
    given = {
        name: value.replace("ETAG", known["etag"]).replace("MODIFIED", known["last-modified"])
        for name, value in headers.items()
    }
    addresses = [url]
    if not {"range", "if_none_match"} & headers.keys():  # the thumbnail has another size, and another ETag
        addresses.append(url.replace(".mp4", ".jpg"))
    calls = [(address, method) for address in addresses for method in ("GET", "HEAD")]
    asked = {name.replace("_", "-"): value for name, value in given.items()} | {"Origin": ORIGIN}
    straight = [(httpx.URL(address).path, method, asked) for address, method in calls]
    told = inside(services["storage"].id, STRAIGHT, json.dumps(straight)).splitlines()
    for (address, method), line in zip(calls, told, strict=True):
        here = fetch(address, method, **given)
        code, said, length = json.loads(line)
        # What is between two machines, and the moment.
        passing = {"date", "server", "connection", "keep-alive", "transfer-encoding"}
        mine = sorted((name, value) for name, value in said if name not in passing)
        theirs = sorted((name, value) for name, value in here.headers.multi_items() if name not in passing)
        assert (here.status_code, len(here.content), theirs) == (code, length, mine), (method, address)
    whole = fetch(url, **given)
    assert whole.status_code == status
    if status == 200:
        assert whole.content == film
    if status == 206:
        start, stop = whole.headers["content-range"].removeprefix("bytes ").split("/")[0].split("-")
        assert whole.content == film[int(start) : int(stop) + 1]


def test_who_may_not_watch_does_not(services: House, url: str, ada: Person) -> None:
    assert fetch(url.replace("/media/", "/media/A")).status_code == 403
    entry = ada.upload(videos.mp4()).json()["file"]
    assert fetch(entry["filepath"]).status_code == 200
    ada.delete(entry["filename"])
    for address in (entry["filepath"], entry["filepath"].replace(".mp4", ".jpg")):
        gone = fetch(address)
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
        assert gone.headers["access-control-allow-origin"] == ORIGIN


def test_nothing_is_published_but_what_a_page_needs(services: House, url: str) -> None:
    origin = f"http://localhost:{services.ports['edge']}"
    assert httpx.get(f"{origin}/health", trust_env=False).json() == {"status": "ok", "service": "edge"}
    filename = url.rsplit("/", 1)[1].removesuffix(".mp4")
    for target in (
        "/",
        "/docs",
        "/openapi.json",
        "/ready",
        "/health/",
        "/internal/health",
        "/internal/sweep",
        "/api",
        "/api/",
        "/api/users",
        "/api/nobody/x",
        "/api/users/../../internal/health",
        "/internal/../api/users/login",
        "/api/users/%2e%2e/%2e%2e/internal/health",
        "/api/users/..%2f..%2finternal/health",
        "/api//users/login",
        "//internal/health",
        "/media/../internal/health",
        f"/sent-by-nginx/{filename[:2]}/{filename}.video",
        "/sent-by-nginx/../storage.db",
        "/media/../sent-by-nginx/../storage.db",
        "/objects/",
        "/data/storage.db",
    ):
        assert raw(services, target) == 404, target
    answer = fetch(f"{origin}/nothing")
    assert answer.json() == {"message": "There is nothing at this address.", "code": "not_found"}
    assert answer.headers["access-control-allow-origin"] == "*"


def test_it_may_read_the_videos_and_do_nothing_else(services: House) -> None:
    container = services.everything["edge"]
    asked = inspect(container)["HostConfig"]
    assert asked["ReadonlyRootfs"]
    assert asked["CapDrop"] == ["ALL"]
    assert asked["SecurityOpt"] == ["no-new-privileges:true"]
    assert asked["Memory"] > 0
    assert docker("exec", container, "id", "-u").strip() == "10001"
    tried = "for place in / /etc /data /data/objects; do touch $place/probe 2>/dev/null && echo $place; done; true"
    assert docker("exec", container, "sh", "-c", tried) == ""


def test_a_refusal_arrives_whole_though_the_upload_has_only_begun(services: House) -> None:
    """Through a proxy a refusal that comes before the body is often a broken connection."""
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(40 * MIB)
    for _ in range(20):
        form = Form(film)
        headers = {"Authorization": "Bearer x", "Content-Type": form.content_type, "Content-Length": str(form.length)}
        answer = services.client.post(
            f"{services['video'].url}/api/videos/upload", headers=headers, content=form.pieces(lambda: None)
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert ada.upload(film).status_code == 200
    refused = ada.upload(film)
    assert "Exceeding total storage limit" in refused.json()["message"]
    too_large = ada.upload(videos.exactly(51 * MIB))
    assert too_large.status_code == 413
    assert "message" in too_large.json()
    ada.delete_all()
    assert audit(services, ada.id) == []  # type: ignore[arg-type]


def test_a_service_that_is_away_is_a_503_and_found_again(services: House, url: str, film: bytes) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    docker("stop", services.everything["usage"])
    away = ada.get("usage", "/api/usage/daily-usage")
    assert (away.status_code, away.json()["code"], away.headers["retry-after"]) == (503, "unavailable", "5")
    assert away.headers["access-control-allow-origin"] == "*"
    assert fetch(url).content == film
    docker("start", services.everything["usage"])
    wait_until_healthy(services.everything["usage"])
    wait_for(lambda: ada.get("usage", "/api/usage/daily-usage").status_code == 200)


@pytest.mark.parametrize("name", ["edge", "storage"])
def test_one_that_is_killed_comes_back_with_its_data(services: House, name: str) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(200_000)
    kept = ada.upload(film, "Kept").json()["file"]
    before = (books(ada), ada.videos())
    docker("restart", "--time", "0", services.everything[name])  # SIGKILL, at once
    wait_until_healthy(services.everything[name])

    def as_before() -> bool:
        with suppress(AssertionError, httpx.TransportError):
            return (books(ada), ada.videos()) == before
        return False

    wait_for(as_before, 30)
    wait_for(lambda: services.client.get(kept["filepath"]).status_code == 200)
    assert services.client.get(kept["filepath"]).content == film
    assert ada.delete_all().json()["deleted"] == 1
    assert audit(services, ada.id) == []  # type: ignore[arg-type]


def test_sixteen_uploads_at_once_keep_the_memory_limits(services: House, figures: list[str], tmp_path: Path) -> None:
    figures.append(f"edge, at rest: {in_mib(memory(services))}")
    people = [Person(services) for _ in range(UPLOADS)]  # type: ignore[arg-type]
    film = tmp_path / "film.mp4"
    film.write_bytes(videos.exactly(50 * MIB))
    began = time.monotonic()
    with watched(services) as highest:
        statuses = upload_at_once(services, people, film)  # type: ignore[arg-type]
    took = time.monotonic() - began
    film.unlink()
    assert statuses == [200] * UPLOADS
    figures.append(f"edge, under {UPLOADS} uploads of 50 MB ({took:.0f} s): {in_mib(highest)} at most")
    for name, container in services.everything.items():
        now = inspect(container)
        assert not now["State"]["OOMKilled"], name
    for person in people:
        assert person.delete_all().status_code == 200


def test_no_address_that_opens_a_video_is_in_its_log(services: House, url: str) -> None:
    capability = url.rsplit("/", 2)[1]
    assert capability not in logs(services.everything["edge"])
