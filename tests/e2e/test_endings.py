"""The end of a service, by SIGTERM: in time, with nothing lost that could be saved, whatever it is in the middle of."""

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import videos
from e2e.books import audit, nothing_left_of
from e2e.people import Form, Person, at_once
from e2e.processes import wait_for
from e2e.services import Services, running
from e2e.wire import Answer, upload_head
from http2 import wire_to

from shared.settings import MIB

STOP_SECONDS = 8  # Cloud Run kills after 10


@pytest.fixture(scope="module", params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
def services(request: pytest.FixtureRequest) -> Iterator[Services]:
    """All five over HTTP/1.1, and then video-service over HTTP/2."""
    leases = {"RESERVATION_SECONDS": 1, "UPLOAD_LOCK_SECONDS": 1, "RENEW_SECONDS": 0.2}
    with running(cloud_run=request.param, STREAMED_REPORT_SECONDS=60, **leases) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Person:
    return Person(services, "Ada")


def test_an_upload_that_a_restart_cuts_off_is_told_so_and_leaves_nothing(ada: Person, film: bytes) -> None:
    video, form = ada.services["video"], Form(film)
    with wire_to(ada.services, "video") as wire:
        upload_head(wire, ada, form)
        wire.send(form.head + form.video)
        wait_for(ada.services.engine.is_receiving)
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
    services.start(*senders)
    assert max(took) < 1 + 3
    assert {"LOGIN", "FETCH_USER_VIDEOS", "CHECK_STORAGE", "CHECK_BANDWIDTH"} <= ada.actions()


def test_every_service_ends_in_time_in_the_middle_of_its_work_and_with_nobody_to_hear_its_last_words(
    ada: Person,
) -> None:
    """An upload and a playback are under way, and neither moves; what is to be logged and reported cannot be."""
    services, film = ada.services, videos.exactly(16 * MIB)
    uploaded = ada.upload(film).json()["file"]
    with wire_to(services, "video") as upload, wire_to(services, "storage") as playback:
        form = Form(videos.exactly(MIB))
        upload_head(upload, ada, form)
        upload.send(form.head + form.video[:-1])
        playback.send_head("GET", urlsplit(uploaded["filepath"]).path, {})
        assert playback.begins()
        wait_for(services.engine.is_receiving)
        with services["logging"].frozen(), services["usage"].frozen():
            for call in (ada.login, ada.videos, ada.storage):
                call()
            took = at_once([services[name].stop for name in ("user", "video", "storage")])
        took += [services[name].stop() for name in ("usage", "logging")]
    assert max(took) < STOP_SECONDS, took
    services.start(*services)
    services.let_leases_run_out()
    services.sweep()
    assert audit(services) == []
    assert ada.videos()["total"] == 1
    assert ada.upload(film).status_code == 200


@pytest.mark.parametrize("ending", [["video"], ["video", "storage"]], ids=" and ".join)
def test_what_moves_when_services_end_is_finished(ada: Person, ending: list[str]) -> None:
    """An upload through both and a playback are under way; neither needs longer than is left to it.

    The last calls of an upload go to storage-service. If it is gone by then, the upload is to be tried again.
    """
    services, film = ada.services, videos.exactly(2 * MIB)
    uploaded = ada.upload(film).json()["file"]
    path = urlsplit(uploaded["filepath"]).path
    bob, form = Person(services, "Bob"), Form(film)
    answers: list[Answer] = []
    with wire_to(services, "video") as upload, wire_to(services, "storage") as playback:
        upload_head(upload, bob, form)
        upload.send(form.head + form.video[:MIB])
        wait_for(services.engine.is_receiving)
        playback.send_head("GET", path, {"Range": f"bytes=0-{MIB - 1}"})

        def go_on() -> float:
            time.sleep(0.3)
            assert playback.answer().body == film[:MIB]
            upload.send(form.video[MIB:] + form.tail)
            upload.end()
            answers.append(upload.answer())
            return 0

        took = at_once([go_on, *[services[name].stop for name in ending]])
    assert max(took) < STOP_SECONDS, took
    services.start(*[services[name] for name in ending])
    services.let_leases_run_out()
    services.sweep()
    assert audit(services) == []
    answer = answers[0]
    if answer.status == 200:
        wait_for(lambda: "UPLOAD_VIDEO" in bob.actions())
        assert services.client.get(bob.videos()["videos"][0]["filepath"]).content == film
    else:
        assert ending == ["video", "storage"], answer
        assert (answer.status, "try again" in answer.message, "retry-after" in answer.headers) == (503, True, True)
        assert nothing_left_of(services, bob.id) == []
        assert bob.upload(film).status_code == 200
