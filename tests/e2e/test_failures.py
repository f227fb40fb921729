"""Who may fail: with each service really stopped, frozen or ended in the middle of its work, the rest goes on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
import videos
from e2e.books import audit, nothing_left_of
from e2e.people import Form, Person, at_once
from e2e.services import Fresh, Services, running, wait_for
from e2e.wire import Wire, upload_head

from shared.settings import MIB

STOP_SECONDS = 8  # Cloud Run kills after 10


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    # Nobody is saved by a lease that runs out: only a sweep would notice, and that is called where it is meant.
    leases = {"RESERVATION_SECONDS": 1, "UPLOAD_LOCK_SECONDS": 1, "RENEW_SECONDS": 0.2}
    with running(MAX_STORAGE_MB=6, **leases) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Person:
    return Person(services, "Ada")


@contextmanager
def down(services: Services, name: str) -> Iterator[None]:
    services[name].stop()
    try:
        yield
    finally:
        services[name].start()


@contextmanager
def frozen(services: Services, name: str) -> Iterator[None]:
    services[name].pause()
    try:
        yield
    finally:
        services[name].resume()


def test_without_logging_everything_works_and_the_logs_follow(services: Services, film: bytes) -> None:
    with down(services, "logging"):
        ada = Person(services, "Ada")
        uploaded = ada.upload(film).json()["file"]
        assert watch(ada, uploaded) == film
        assert (ada.videos()["total"], ada.usage()["uploads"], ada.storage()["totalSizeMb"]) == (1, 1, len(film) / MIB)
        assert ada.delete(uploaded["filename"]).status_code == 200
        assert ada.delete_all().status_code == 200
    actions = {"REGISTER", "LOGIN", "UPLOAD_VIDEO", "STREAM_VIDEO", "FETCH_USER_VIDEOS", "CHECK_BANDWIDTH"}
    actions |= {"CHECK_STORAGE", "DELETE_VIDEO", "DELETE_ALL_VIDEOS"}
    wait_for(lambda: actions_of(ada) == actions, seconds=10)


def test_without_usage_everything_works_and_the_usage_follows(ada: Person, film: bytes) -> None:
    services = ada.services
    with down(services, "usage"):
        uploaded = ada.upload(film).json()["file"]
        assert watch(ada, uploaded) == film
        assert (ada.videos()["total"], ada.storage()["totalSizeMb"]) == (1, len(film) / MIB)
        assert ada.delete(uploaded["filename"]).status_code == 200
        assert ada.upload(film).status_code == 200
        assert ada.login().status_code == 200
    services.let_leases_run_out()
    services.sweep()
    assert (ada.usage()["totalUsageMb"], ada.usage()["deletions"]) == (2 * len(film) / MIB, 1)
    assert audit(services) == []


def test_without_user_everything_works_for_those_who_have_a_token(ada: Person, film: bytes) -> None:
    with down(ada.services, "user"):
        uploaded = ada.upload(film).json()["file"]
        assert watch(ada, uploaded) == film
        assert (ada.videos()["total"], ada.usage()["uploads"], ada.storage()["totalSizeMb"]) == (1, 1, len(film) / MIB)
        assert ada.delete(uploaded["filename"]).status_code == 200
        assert ada.delete_all().status_code == 200
        assert ada.get("logging", f"/api/logs/user/{ada.id}").status_code == 200
    assert audit(ada.services) == []


def test_without_user_nobody_is_told_to_wait_and_the_quota_is_exact_all_the_same(ada: Person) -> None:
    film, others = videos.exactly(3 * MIB + 1), []
    with down(ada.services, "user"):
        first = ada.upload(film, halfway=lambda: others.append(ada.upload(film)))
    assert (first.status_code, others[0].status_code) == (200, 413)
    assert audit(ada.services) == []


def test_without_storage_uploads_are_told_when_to_try_again_and_the_rest_works(ada: Person, film: bytes) -> None:
    services = ada.services
    uploaded = ada.upload(film).json()["file"]
    with down(services, "storage"):
        is_told_to_try_again(ada.upload(film))
        assert ada.get("video", "/api/videos/stream").status_code == 200
        assert ada.videos()["total"] == 1
        assert ada.usage()["uploads"] == 1
        assert ada.get("logging", f"/api/logs/user/{ada.id}").status_code == 200
        assert Person(services).login().status_code == 200
        assert ada.delete(uploaded["filename"]).status_code == 200
        assert ada.videos()["total"] == 0
    services.let_leases_run_out()
    services.sweep()
    assert ada.storage()["totalSizeMb"] == 0
    assert audit(services) == []


def test_without_video_the_rest_works_and_so_do_the_addresses_already_handed_out(ada: Person, film: bytes) -> None:
    services = ada.services
    uploaded = ada.upload(film).json()["file"]
    with down(services, "video"):
        assert services.client.get(uploaded["filepath"]).content == film
        assert services.client.get(uploaded["filepath"].replace(".mp4", ".jpg")).status_code == 200
        assert (ada.usage()["uploads"], ada.storage()["totalSizeMb"]) == (1, len(film) / MIB)
        assert ada.get("logging", f"/api/logs/user/{ada.id}").status_code == 200
        assert Person(services).login().status_code == 200
    assert ada.upload(film).status_code == 200


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("user", ["video"]),
        ("video", ["storage"]),
        ("storage", ["video"]),
        ("usage", ["video", "storage"]),
        ("logging", ["user", "video", "storage", "usage"]),
    ],
)
def test_readiness_names_the_peer_that_is_down(services: Services, name: str, who: list[str]) -> None:
    assert all(services.client.get(f"{service.url}/ready").status_code == 200 for service in services)
    with down(services, name):
        for asked in who:
            answer = services.client.get(f"{services[asked].url}/ready")
            is_told_to_try_again(answer)
            states = answer.json()["checks"]
            assert {peer for peer in states if states[peer] != "ok"} == {f"{name}-service"}
            assert services[asked].answers(), "it is up all the same"


# Frozen: they take connections, and never answer


def test_a_frozen_logging_service_slows_nobody_down(ada: Person, film: bytes) -> None:
    with frozen(ada.services, "logging"):
        calls: list[Callable[[], Any]] = [
            *[ada.login, ada.videos, ada.storage, ada.usage] * 20,
            lambda: ada.upload(film),
            ada.delete_all,
        ]
        started = time.monotonic()
        for call in calls:
            call()
        assert time.monotonic() - started < len(calls) * 0.1
    wait_for(lambda: {"UPLOAD_VIDEO", "DELETE_ALL_VIDEOS"} <= actions_of(ada), seconds=15)


def test_a_frozen_usage_service_delays_an_upload_but_does_not_stop_it(ada: Person, film: bytes) -> None:
    with frozen(ada.services, "usage"):
        started = time.monotonic()
        assert ada.upload(film).status_code == 200
        assert time.monotonic() - started < 12
    ada.services.let_leases_run_out()
    ada.services.sweep()
    assert audit(ada.services) == []


def test_a_frozen_storage_service_is_a_503_in_time_and_browsing_stays_quick(ada: Person, film: bytes) -> None:
    def browse() -> None:
        for _ in range(20):
            assert ada.videos()["total"] == 0

    with frozen(ada.services, "storage"):
        started = time.monotonic()
        _, answer = at_once([browse, lambda: ada.upload(film)])
        is_told_to_try_again(answer)
        assert time.monotonic() - started < 12
    assert ada.upload(film).status_code == 200


# The machine


def test_a_full_disk_is_a_503_that_leaves_nothing(ada: Person, film: bytes) -> None:
    storage = psutil.Process(ada.services["storage"].pid)
    if not hasattr(storage, "rlimit"):
        pytest.skip("this system cannot limit another process")
    storage.rlimit(psutil.RLIMIT_FSIZE, (4_500_000, psutil.RLIM_INFINITY))  # the database needs 4 MB
    try:
        is_told_to_try_again(ada.upload(videos.exactly(5 * MIB)))
        assert nothing_left_of(ada.services, ada.id) == []
    finally:
        storage.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    assert ada.upload(film).status_code == 200


def test_an_upload_that_slept_longer_than_its_leases_is_given_up(ada: Person, film: bytes) -> None:
    """A laptop's lid, a frozen container: meanwhile its bytes may have become somebody else's."""
    services = ada.services

    def sleep() -> None:
        with frozen(services, "video"):
            services.let_leases_run_out()
            services.sweep_one("storage")

    answer = ada.upload(film, halfway=sleep)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_gone")
    services.sweep()
    assert audit(services) == []
    assert ada.upload(film).status_code == 200


# The end


def test_an_upload_that_a_restart_cuts_off_is_told_so_and_leaves_nothing(ada: Person, film: bytes) -> None:
    video, form = ada.services["video"], Form(film)
    with Wire(video) as wire:
        upload_head(wire, ada, form)
        wire.send(form.head + form.video)
        wait_for(lambda: ada.services.incoming)
        video.stop()
        answer = wire.answer()
    assert (answer.status, "restarted" in answer.message) == (503, True)
    assert "retry-after" in answer.headers
    assert "access-control-allow-origin" in answer.headers
    assert nothing_left_of(ada.services, ada.id) == []
    video.start()
    assert ada.upload(film).status_code == 200


def test_what_is_queued_is_logged_when_a_service_ends(ada: Person) -> None:
    services = ada.services
    services["logging"].pause()
    for call in (ada.login, ada.videos, ada.storage, ada.usage):
        call()
    senders = [services[name] for name in ("user", "video", "storage", "usage")]

    def go_on() -> float:
        time.sleep(1)  # of the 3 s that they have
        services["logging"].resume()
        return 0

    took = at_once([go_on, *[service.stop for service in senders]])
    for service in senders:
        service.launch()
    for service in senders:
        service.wait_until_up()
    assert max(took) < 1 + 3
    assert {"LOGIN", "FETCH_USER_VIDEOS", "CHECK_STORAGE", "CHECK_BANDWIDTH"} <= actions_of(ada)


def test_every_service_ends_in_time_in_the_middle_of_its_work_and_with_nobody_to_hear_its_last_words(
    fresh: Fresh,
) -> None:
    """An upload and a playback are under way, and neither moves; what is to be logged and reported cannot be."""
    services = fresh(RESERVATION_SECONDS=1, UPLOAD_LOCK_SECONDS=1, RENEW_SECONDS=0.2, STREAMED_REPORT_SECONDS=60)
    ada, film = Person(services, "Ada"), videos.exactly(16 * MIB)
    uploaded = ada.upload(film).json()["file"]
    with Wire(services["video"]) as upload, Wire(services["storage"]) as playback:
        form = Form(videos.exactly(MIB))
        upload_head(upload, ada, form)
        upload.send(form.head + form.video[:-1])
        playback.send_head("GET", uploaded["filepath"].partition(str(services["storage"].port))[2], {})
        assert playback.socket.recv(1) == b"H"
        wait_for(lambda: services.incoming)
        with frozen(services, "logging"), frozen(services, "usage"):
            for call in (ada.login, ada.videos, ada.storage):
                call()
            took = at_once([services[name].stop for name in ("user", "video", "storage")])
        took += [services[name].stop() for name in ("usage", "logging")]
    assert max(took) < STOP_SECONDS, took
    for service in services:
        service.launch()
    for service in services:
        service.wait_until_up()
    services.let_leases_run_out()
    services.sweep()
    assert audit(services) == []
    assert ada.videos()["total"] == 1
    assert ada.upload(film).status_code == 200


def watch(person: Person, video: Any) -> bytes:
    answer = person.get("video", f"/api/videos/stream/{video['filename']}")
    return person.services.client.get(answer.json()["url"]).content


def actions_of(person: Person) -> set[str]:
    logs = person.get("logging", f"/api/logs/user/{person.id}").json()["logs"]
    return {log["action_type"] for log in logs}


def is_told_to_try_again(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["message"]
