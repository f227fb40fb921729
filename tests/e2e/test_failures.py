"""Who may fail: with each service really stopped, frozen or ended in the middle of its work, the rest goes on."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
import videos
from e2e.books import audit, nothing_left_of
from e2e.people import Person, at_once
from e2e.processes import wait_for
from e2e.services import Fresh, Services, running

from shared.settings import MIB


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    # Nobody is saved by a lease that runs out: only a sweep would notice, and that is called where it is meant.
    leases = {"RESERVATION_SECONDS": 1, "UPLOAD_LOCK_SECONDS": 1, "RENEW_SECONDS": 0.2}
    with running(MAX_STORAGE_MB=6, **leases) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Person:
    return Person(services, "Ada")


def test_without_logging_everything_works_and_the_logs_follow(services: Services, film: bytes) -> None:
    with services["logging"].down():
        ada = Person(services, "Ada")
        uploaded = ada.upload(film).json()["file"]
        assert watch(ada, uploaded) == film
        assert (ada.videos()["total"], ada.usage()["uploads"], ada.storage()["totalSizeMb"]) == (1, 1, len(film) / MIB)
        assert ada.delete(uploaded["filename"]).status_code == 200
        assert ada.delete_all().status_code == 200
    actions = {"REGISTER", "LOGIN", "UPLOAD_VIDEO", "STREAM_VIDEO", "FETCH_USER_VIDEOS", "CHECK_BANDWIDTH"}
    actions |= {"CHECK_STORAGE", "DELETE_VIDEO", "DELETE_ALL_VIDEOS"}
    wait_for(lambda: ada.actions() == actions)


def test_without_usage_everything_works_and_the_usage_follows(ada: Person, film: bytes) -> None:
    services = ada.services
    with services["usage"].down():
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
    with ada.services["user"].down():
        uploaded = ada.upload(film).json()["file"]
        assert watch(ada, uploaded) == film
        assert (ada.videos()["total"], ada.usage()["uploads"], ada.storage()["totalSizeMb"]) == (1, 1, len(film) / MIB)
        assert ada.delete(uploaded["filename"]).status_code == 200
        assert ada.delete_all().status_code == 200
        assert ada.get("logging", f"/api/logs/user/{ada.id}").status_code == 200
    ada.services.let_leases_run_out()
    ada.services.sweep()
    assert audit(ada.services) == []


def test_without_user_nobody_is_told_to_wait_and_the_quota_is_exact_all_the_same(ada: Person) -> None:
    film, others = videos.exactly(3 * MIB + 1), []
    with ada.services["user"].down():
        first = ada.upload(film, halfway=lambda: others.append(ada.upload(film)))
    assert (first.status_code, others[0].status_code) == (200, 413)
    ada.services.let_leases_run_out()
    ada.services.sweep()
    assert audit(ada.services) == []


def test_without_storage_uploads_are_told_when_to_try_again_and_the_rest_works(ada: Person, film: bytes) -> None:
    services = ada.services
    uploaded = ada.upload(film).json()["file"]
    with services["storage"].down():
        is_told_to_try_again(ada.upload(film))
        assert ada.get("video", "/api/videos/stream").status_code == 200
        assert ada.videos()["total"] == 1
        assert ada.usage()["uploads"] == 1
        assert ada.get("logging", f"/api/logs/user/{ada.id}").status_code == 200
        is_told_to_try_again(ada.get("video", f"/api/videos/stream/{uploaded['filename']}"))
        assert Person(services).login().status_code == 200
        assert ada.delete(uploaded["filename"]).status_code == 200
        assert ada.videos()["total"] == 0
    services.let_leases_run_out()
    services.sweep()
    assert ada.storage()["totalSizeMb"] == 0
    assert audit(services) == []


def test_what_an_upload_held_when_storage_died_is_free_again_as_soon_as_storage_is_back(fresh: Fresh) -> None:
    """With leases of their usual life: nobody waits for one to run out."""
    services = fresh(MAX_STORAGE_MB=1, SWEEP_SECONDS=0.5)
    ada, film = Person(services, "Ada"), videos.exactly(MIB)
    answer = ada.upload(film, chunked=True, halfway=services["storage"].kill)
    is_told_to_try_again(answer)
    services["storage"].start()
    wait_for(lambda: ada.upload(film, chunked=True).status_code == 200)
    assert ada.storage()["totalSizeMb"] == 1
    services.sweep()
    assert audit(services) == []


def test_without_video_the_rest_works_and_so_do_the_addresses_already_handed_out(ada: Person, film: bytes) -> None:
    services = ada.services
    uploaded = ada.upload(film).json()["file"]
    with services["video"].down():
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
    with services[name].down():
        for asked in who:
            answer = services.client.get(f"{services[asked].url}/ready")
            is_told_to_try_again(answer)
            states = answer.json()["checks"]
            assert {peer for peer in states if states[peer] != "ok"} == {f"{name}-service"}
            assert services[asked].answers(), "it is up all the same"


# Frozen: they take connections, and never answer


def test_a_frozen_logging_service_slows_nobody_down(ada: Person, film: bytes) -> None:
    with ada.services["logging"].frozen():
        calls: list[Callable[[], Any]] = [
            *[ada.login, ada.videos, ada.storage, ada.usage] * 20,
            lambda: ada.upload(film),
            ada.delete_all,
        ]
        started = time.monotonic()
        for call in calls:
            call()
        assert time.monotonic() - started < len(calls) * 1.0, "a call that waits takes 5 s"
    wait_for(lambda: {"UPLOAD_VIDEO", "DELETE_ALL_VIDEOS"} <= ada.actions())


def test_a_frozen_usage_service_delays_an_upload_but_does_not_stop_it(ada: Person, film: bytes) -> None:
    with ada.services["usage"].frozen():
        started = time.monotonic()
        assert ada.upload(film).status_code == 200
        assert time.monotonic() - started < 30
    ada.services.let_leases_run_out()
    ada.services.sweep()
    assert audit(ada.services) == []


def test_a_frozen_storage_service_is_a_503_in_time_and_browsing_stays_quick(ada: Person, film: bytes) -> None:
    def browse() -> None:
        for _ in range(20):
            assert ada.videos()["total"] == 0

    with ada.services["storage"].frozen():
        started = time.monotonic()
        _, answer = at_once([browse, lambda: ada.upload(film)])
        is_told_to_try_again(answer)
        assert time.monotonic() - started < 30
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
        with services["video"].frozen():
            services.let_leases_run_out()
            services.sweep_one("storage")

    answer = ada.upload(film, halfway=sleep)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_gone")
    services.sweep()
    assert audit(services) == []
    assert ada.upload(film).status_code == 200


def watch(person: Person, video: Any) -> bytes:
    answer = person.get("video", f"/api/videos/stream/{video['filename']}")
    return person.services.client.get(answer.json()["url"]).content


def is_told_to_try_again(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["message"]
