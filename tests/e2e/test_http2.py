"""As on Cloud Run, video-service with ``--use-http2``: five processes, each behind a front, and 50 MiB pass."""

import hashlib
from collections.abc import Iterator

import httpx
import pytest
import videos
from e2e.books import audit, nothing_left_of
from e2e.people import Form, Person
from e2e.processes import wait_for
from e2e.services import Services, running
from e2e.test_journey import figures
from e2e.test_memory import Watch
from e2e.wire import Wire, upload_head
from h2.errors import ErrorCodes
from http2 import Http2Wire, Request

from shared.settings import MIB

WHOLE = 50 * MIB
ORIGIN = {"Origin": "http://localhost:3000"}
RISE = 24 * MIB


@pytest.fixture(scope="module")
def cloud() -> Iterator[Services]:
    """With the limits of the specification."""
    leases = {"RESERVATION_SECONDS": 2, "UPLOAD_LOCK_SECONDS": 2, "RENEW_SECONDS": 0.4}
    with running(cloud_run=True, UPLOAD_IDLE_SECONDS=10, **leases) as services:
        yield services


@pytest.fixture
def ada(cloud: Services) -> Person:
    return Person(cloud, "Ada")


@pytest.fixture(scope="module")
def large() -> bytes:
    return videos.exactly(WHOLE - 64 * 1024)


def front(services: Services, name: str = "video") -> int:
    assert services.cloud_run is not None
    return services.cloud_run.ports[name]


def upload_of(wire: Http2Wire, person: Person, form: Form) -> Request:
    given = {"Content-Type": form.content_type, "Content-Length": str(form.length)} | ORIGIN | person.headers
    return wire.request("POST", "/api/videos/upload", given)


def test_50_mib_in_one_form_pass_both_fronts_and_come_back_to_the_byte(ada: Person, large: bytes) -> None:
    assert ada.services.cloud_run is not None
    assert ada.upload(videos.exactly(MIB)).status_code == 200  # warm
    ada.delete_all()
    with Watch(ada.services) as watch:
        idle = watch.settled()
        answer = ada.upload(large, "Large")
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2"), answer.text
    assert watch.highest - idle <= RISE, f"{idle / MIB:.1f} MB idle, {watch.highest / MIB:.1f} MB at most"
    url = answer.json()["file"]["filepath"]
    assert url.startswith(ada.services.cloud_run.urls["storage"])
    # In ranges: of a whole of 32 MiB or more a bucket would be the sender there.
    ranges = [f"bytes={start}-{start + 16 * MIB - 1}" for start in range(0, len(large), 16 * MIB)]
    parts = [ada.services.client.get(url, headers={"Range": wanted}) for wanted in ranges]
    assert {part.status_code for part in parts} == {206}
    assert all(part.headers["content-length"] == str(len(part.content)) for part in parts)
    content = b"".join(part.content for part in parts)
    assert hashlib.sha256(content).digest() == hashlib.sha256(large).digest()
    assert ada.services.client.head(url).headers["content-length"] == str(len(large))
    assert ada.services.cloud_run.cut == 0
    ada.delete_all()


def test_over_http_1_the_front_cuts_it_off_and_nothing_is_left(ada: Person, large: bytes) -> None:
    assert ada.services.cloud_run is not None
    form = Form(large)
    headers = ada.headers | {"Content-Type": form.content_type, "Content-Length": str(form.length)}
    with httpx.Client(timeout=60, trust_env=False) as client:
        before = ada.services.cloud_run.cut
        try:
            answer = client.post(
                f"{ada.services['video'].url}/api/videos/upload", headers=headers, content=form.pieces()
            )
        except httpx.WriteError:  # it does not wait for all of it
            pass
        else:
            assert answer.status_code == 413
    assert ada.services.cloud_run.cut == before + 1
    assert nothing_left_of(ada.services, ada.id) == []


def test_a_person_goes_the_whole_way(cloud: Services) -> None:
    ada, film = Person(cloud, "Ada"), videos.mp4()
    answer = ada.upload(film, "First")
    assert answer.http_version == "HTTP/2"
    uploaded = answer.json()["file"]
    assert figures(ada) == (len(film), len(film), 1)
    watched = cloud.client.get(uploaded["filepath"], headers=ORIGIN)
    assert (watched.content, watched.http_version) == (film, "HTTP/1.1")
    assert watched.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert cloud.client.get(uploaded["filepath"], headers={"Range": "bytes=-10"}).content == film[-10:]
    assert cloud.client.get(uploaded["filepath"], headers={"Range": f"bytes={len(film)}-"}).status_code == 416
    thumbnail = cloud.client.get(uploaded["filepath"].replace(".mp4", ".jpg", 1))
    assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/jpeg")
    etag = {"If-None-Match": watched.headers["etag"]}
    assert cloud.client.get(uploaded["filepath"], headers=etag).status_code == 304
    asked = ORIGIN | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = cloud.client.options(f"{cloud['video'].url}/api/videos/upload", headers=asked)
    assert (preflight.status_code, preflight.http_version) == (200, "HTTP/2")
    assert preflight.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    wait_for(lambda: {"REGISTER", "LOGIN", "UPLOAD_VIDEO"} <= ada.actions())
    assert ada.delete(uploaded["filename"]).status_code == 200
    assert cloud.client.get(uploaded["filepath"]).status_code == 404
    assert ada.upload(videos.random_bytes(100_000)).status_code == 415
    assert ada.delete_all().status_code == 200
    assert audit(cloud, ada.id) == []


def test_video_service_speaks_http_2_and_says_of_itself_nothing_more(cloud: Services) -> None:
    with Http2Wire(cloud["video"].port) as wire:
        answer = wire.get("/health")
        assert answer.status == 200
        assert set(answer.headers) == {"date", "content-length", "content-type", "vary"}


def test_without_the_setting_it_is_no_request(services: Services) -> None:
    with Http2Wire(services["video"].port) as wire:
        assert wire.socket.recv(12) == b"HTTP/1.1 400"


def test_the_other_four_have_no_such_setting(cloud: Services) -> None:
    for service in cloud:
        if service.name != "video":
            with Http2Wire(service.port) as wire:
                assert wire.socket.recv(12) == b"HTTP/1.1 400", service.name


def test_the_quota_is_exact(cloud: Services) -> None:
    ada = Person(cloud, "Ada")
    first, rest = videos.exactly(30 * MIB), videos.exactly(20 * MIB + 1)
    assert ada.upload(first).status_code == 200
    refused = ada.upload(rest, chunked=True)  # of which the last byte does not fit
    assert (refused.status_code, refused.json()["code"]) == (413, "storage_limit")
    assert ada.upload(videos.exactly(20 * MIB)).status_code == 200
    assert ada.storage()["usagePercentage"] == "100.00"
    ada.delete_all()
    assert audit(cloud, ada.id) == []


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "of unknown length"])
def test_what_is_refused_is_refused_before_the_body(ada: Person, chunked: bool) -> None:
    form = Form(b"")
    with Http2Wire(front(ada.services)) as wire:
        for headers, status in (
            ({"Authorization": "Bearer null"}, 401),
            ({"Content-Type": "application/json"}, 422),
            *([] if chunked else [({"Content-Length": str(60 * MIB)}, 413)]),
        ):
            given = {"Content-Type": form.content_type, "Content-Length": str(WHOLE)} | ORIGIN | ada.headers | headers
            if chunked:
                del given["Content-Length"]
            upload = wire.request("POST", "/api/videos/upload", given)
            answer = upload.answer()  # nothing was sent
            assert (answer.status, bool(answer.message)) == (status, True)
            assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
            assert upload.reset_by_peer in (None, ErrorCodes.NO_ERROR)
    assert nothing_left_of(ada.services, ada.id) == []


def test_what_still_comes_of_a_body_that_is_refused_costs_the_others_on_its_connection_nothing(ada: Person) -> None:
    with Http2Wire(front(ada.services)) as wire:
        headers = {"Content-Type": Form(b"").content_type, "Content-Length": str(WHOLE), "Authorization": "Bearer null"}
        upload = wire.request("POST", "/api/videos/upload", headers)
        for _ in range(8):
            assert upload.send(bytes(MIB)) == MIB
            assert wire.get("/health").status == 200
        upload.reset()
        assert upload.status == 401
        assert wire.get("/health").status == 200


def test_over_http_1_too_a_body_that_is_refused_is_answered_and_its_connection_not_kept_for_ever(ada: Person) -> None:
    with Wire(ada.services["video"]) as wire:
        upload_head(wire, ada, Form(videos.exactly(8 * MIB)), Authorization="Bearer null")
        for _ in range(8):
            wire.send(bytes(MIB))
        assert wire.answer().status == 401


@pytest.mark.parametrize("connections", ["one connection", "two connections"])
def test_one_that_stands_still_holds_up_no_other(cloud: Services, connections: str) -> None:
    ada, bob, form = Person(cloud, "Ada"), Person(cloud, "Bob"), Form(videos.exactly(20 * MIB))
    with Http2Wire(front(cloud)) as first, Http2Wire(front(cloud)) as second:
        still = upload_of(first, ada, form)
        still.send(form.head + form.video[: 5 * MIB])
        moving = upload_of(first if connections == "one connection" else second, bob, form)
        for piece in form.pieces():
            moving.send(piece)
        moving.end()
        assert moving.answer().status == 200
        assert not still.is_complete
        for start in range(5 * MIB, 20 * MIB, MIB):
            still.send(form.video[start : start + MIB])
        still.send(form.tail)
        still.end()
        assert still.answer().status == 200
    assert (figures(ada), figures(bob)) == ((20 * MIB, 20 * MIB, 1), (20 * MIB, 20 * MIB, 1))
    ada.delete_all()
    bob.delete_all()
    assert audit(cloud, ada.id, bob.id) == []


def test_eight_at_once_over_one_connection(cloud: Services) -> None:
    people, form = [Person(cloud) for _ in range(8)], Form(videos.exactly(8 * MIB))
    with Http2Wire(front(cloud)) as wire:
        uploads = [upload_of(wire, person, form) for person in people]
        for piece in form.pieces():
            for upload in uploads:
                upload.send(piece)
        for upload in uploads:
            upload.end()
        assert [upload.answer().status for upload in uploads] == [200] * 8
    for person in people:
        person.delete_all()
    assert audit(cloud, *[person.id for person in people]) == []


@pytest.mark.parametrize("how", ["gives up", "hangs up", "crashes"])
def test_a_client_that_goes_away_leaves_nothing_and_may_upload_again(ada: Person, film: bytes, how: str) -> None:
    form = Form(film)
    with Http2Wire(front(ada.services)) as wire:
        upload = upload_of(wire, ada, form)
        upload.send(form.head + film[: len(film) // 2])
        wait_for(ada.services.engine.is_receiving)
        if how == "gives up":
            upload.reset()
            assert wire.get("/health").status == 200
        elif how == "crashes":
            wire.hang_up()
    wait_for(lambda: nothing_left_of(ada.services, ada.id) == [], seconds=2)
    assert ada.upload(film).status_code == 200


def test_a_client_that_stands_still_is_told_so_and_leaves_nothing(cloud: Services, film: bytes) -> None:
    ada, form = Person(cloud, "Ada"), Form(film)
    with Http2Wire(front(cloud)) as wire:
        upload = upload_of(wire, ada, form)
        upload.send(form.head + film[:1000])
        answer = upload.answer()
        assert (answer.status, "stood still" in answer.message) == (408, True)
        assert nothing_left_of(cloud, ada.id) == []


@pytest.mark.parametrize("killed", ["video", "storage"])
def test_a_service_that_is_killed_in_the_middle_of_an_upload_leaves_nothing(
    ada: Person, film: bytes, killed: str
) -> None:
    services, form = ada.services, Form(film)
    with Http2Wire(front(services)) as wire:
        upload = upload_of(wire, ada, form)
        upload.send(form.head + film[: len(film) // 2])
        wait_for(services.engine.is_receiving)
        services[killed].kill()
        if killed == "storage":  # it is noticed when the bytes have come
            upload.send(film[len(film) // 2 :] + form.tail)
            upload.end()
            assert upload.answer().status == 503
        else:
            wait_for(lambda: not wire.listen(0.1) and upload.is_over)
    services.start(services[killed])
    services.let_leases_run_out()
    services.sweep()
    assert audit(services, ada.id) == []
    assert ada.upload(film).status_code == 200
