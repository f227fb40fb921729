"""Whatever is killed at whatever step: nothing is lost, nothing leaks, and the user goes on.

Each end of each call between services gets SIGKILL just before the call arrives, in the middle of its body, or just
after it was done. It is started again, the leases run out, everything is swept. Then the books must be exact, what a
service had promised must be true, and the same user can upload.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import httpx
import pytest
from e2e.books import audit
from e2e.engines import Engine
from e2e.faults import Faults, Moment
from e2e.people import Person, at_once
from e2e.processes import wait_for
from e2e.services import Services, running


@dataclass(frozen=True)
class Call:
    """Between two services; ``says`` is what it is for."""

    caller: str
    callee: str
    method: str
    path: str
    says: str
    nth: int = 1

    @property
    def ends(self) -> tuple[str, str]:
        return self.caller, self.callee

    def matches(self, service: str, method: str, path: str) -> bool:
        return (service, method) == (self.callee, self.method) and re.match(self.path, path) is not None


LOCK = Call("video", "user", "PUT", "/internal/users/[^/]+/upload-lock", "lock")
RESERVE_STORAGE = Call("video", "storage", "POST", "/internal/reservations/", "reserve-storage")
RESERVE_DAY = Call("video", "usage", "POST", "/internal/reservations/", "reserve-day")
SEND = Call("video", "storage", "PUT", "/uploads/", "send")
FINISH = Call("video", "storage", "POST", "/internal/objects/[^/]+/finish", "finish")
KEEP = Call("video", "storage", "POST", "/internal/keep", "keep")
COUNT = Call("video", "usage", "PUT", "/internal/uploads/", "count")
UNLOCK = Call("video", "user", "DELETE", "/internal/users/[^/]+/upload-lock/", "unlock")
REMOVE = Call("video", "storage", "POST", "/internal/delete", "remove")
COUNT_DELETION = Call("video", "usage", "POST", "/internal/deletions", "count-deletion")
RELEASE_DAY = Call("video", "usage", "DELETE", "/internal/reservations/", "release-day")
ASK = Call("storage", "video", "POST", "/internal/videos/[^/]+/settle", "ask")

UPLOAD = [LOCK, RESERVE_STORAGE, RESERVE_DAY, FINISH, KEEP, COUNT, UNLOCK]
DELETION = [REMOVE, COUNT_DELETION]
REFUSAL = [REMOVE, RELEASE_DAY]
RENEWALS = [replace(call, nth=2) for call in (LOCK, RESERVE_STORAGE, RESERVE_DAY)]


def steps(calls: list[Call], moments: Sequence[Moment] = ("before", "after")) -> list[object]:
    return [pytest.param(call, moment, id=f"{moment}-{call.says}") for call in calls for moment in moments]


SWEEPERS = ("video", "storage", "usage")


@dataclass(frozen=True)
class Scene:
    """One person in a set of services of which one is to die: ``victim``."""

    services: Services
    faults: Faults
    person: Person
    film: bytes
    victim: str

    def kill(self, call: Call, moment: Moment, act: Callable[[], httpx.Response]) -> httpx.Response | None:
        """The victim dies while ``act`` is done, and is started again; the answer to ``act``, if it got one."""
        self.faults.forget()
        die = self.services[self.victim].kill
        strike = self.faults.at(call.callee, call.method, call.path, moment, die, nth=call.nth)
        answer = None
        with suppress(httpx.TransportError):
            answer = act()
        assert strike.happened, f"{call} was not made; these were: {self.faults.calls}"
        self.services[self.victim].start()
        if self.victim in SWEEPERS:
            self.services.sweep_one(self.victim)  # after its first round, which it begins at its start
        return answer

    def upload(self) -> httpx.Response:
        return self.person.upload(self.film, "the one")

    def upload_slowly(self) -> httpx.Response:
        """So slowly that lock and reservations have to be renewed, and the strike comes."""
        return self.person.upload(self.film, "the one", halfway=lambda: wait_for(lambda: self.faults.struck))

    def titles(self) -> list[str]:
        return [video["title"] for video in self.person.videos()["videos"]]

    def all_is_well(self, answer: httpx.Response | None) -> None:
        """Once the leases have run out and all was swept: the books are exact, and the user goes on.

        A storage-service that lives may still be busy with what it got before its caller died: it removes that by
        itself, or a later round does.
        """

        def books() -> list[str]:
            self.services.let_leases_run_out()
            self.services.sweep()
            return audit(self.services, self.person.id)

        with suppress(AssertionError):
            wait_for(lambda: books() == [])
        assert books() == []
        if answer is not None:
            assert self.titles() == (["the one"] if answer.status_code == 200 else [])
        assert self.person.upload(self.film).status_code == 200
        assert audit(self.services, self.person.id) == []


@pytest.fixture(scope="module")
def houses(new_engine: Callable[[], Engine | None]) -> Iterator[list[Services]]:
    """Two sets: in the one the caller of a call dies, and at the same time in the other the callee.

    The bytes go to a file of storage-service, or to the bucket.
    """
    with two_sets(new_engine, OFFER_UPLOAD_FILES=True) as sets:
        yield sets


@pytest.fixture(scope="module")
def houses_over_http() -> Iterator[list[Services]]:
    """The same, where the bytes go to storage-service over HTTP."""
    with two_sets(lambda: None) as sets:
        yield sets


@contextmanager
def two_sets(new_engine: Callable[[], Engine | None], **settings: object) -> Iterator[list[Services]]:
    leases = {"RESERVATION_SECONDS": 1, "UPLOAD_LOCK_SECONDS": 1, "RENEW_SECONDS": 0.2}
    with (
        running(new_engine(), faulty=True, **leases, **settings) as one,
        running(new_engine(), faulty=True, **leases, **settings) as other,
    ):
        yield [one, other]
        assert audit(one) == []
        assert audit(other) == []


Play = Callable[[Scene], None]


@pytest.fixture
def whoever_dies(houses: list[Services], film: bytes) -> Callable[[Call, Play], None]:
    """Plays it with the death of the caller and with the death of the callee."""

    return lambda call, act: play_with_both_deaths(houses, film, call, act)


def play_with_both_deaths(houses: list[Services], film: bytes, call: Call, act: Play) -> None:
    scenes = [scene(house, film, victim) for house, victim in zip(houses, call.ends, strict=True)]
    at_once([partial(act, scene) for scene in scenes])


def scene(services: Services, film: bytes, victim: str = "") -> Scene:
    assert services.faults is not None
    services.faults.forget()
    return Scene(services, services.faults, Person(services), film, victim)


def test_these_are_all_the_calls_between_services(houses: list[Services], film: bytes) -> None:
    """What a new step would have to be added to."""
    quiet = scene(houses[0], film)

    def expect(*known: Call) -> None:
        calls: list[tuple[str, str, str]] = []
        for call in quiet.faults.calls:
            renewed = call in calls and any(one.matches(*call) for one in RENEWALS)  # on a busy machine
            if call[0] != "logging" and not renewed:
                calls.append(call)
        assert len(calls) == len(known), calls
        assert [call for call in calls if not any(one.matches(*call) for one in known)] == []
        quiet.faults.forget()

    assert quiet.upload().status_code == 200
    expect(*UPLOAD)
    assert quiet.person.delete_all().status_code == 200
    expect(*DELETION)
    assert quiet.person.upload(b"no video").status_code == 415
    expect(LOCK, RESERVE_STORAGE, RESERVE_DAY, FINISH, *REFUSAL, UNLOCK)


@pytest.mark.parametrize(("call", "moment"), steps(UPLOAD))
def test_during_an_upload(call: Call, moment: Moment, whoever_dies: Callable[[Call, Play], None]) -> None:
    whoever_dies(call, partial(killed_in_an_upload, call, moment))


@pytest.mark.parametrize(("call", "moment"), steps([SEND], ["before", "within", "after"]))
def test_while_the_bytes_go_to_storage_over_http(
    call: Call, moment: Moment, houses_over_http: list[Services], film: bytes
) -> None:
    play_with_both_deaths(houses_over_http, film, call, partial(killed_in_an_upload, call, moment))


def killed_in_an_upload(call: Call, moment: Moment, scene: Scene) -> None:
    answer = scene.kill(call, moment, scene.upload)
    assert answer is None or answer.status_code in (200, 503), answer.text
    scene.all_is_well(answer)


def test_while_half_of_the_body_has_arrived(whoever_dies: Callable[[Call, Play], None]) -> None:
    def play(scene: Scene) -> None:
        service = scene.services[scene.victim]

        def killed_and_started() -> None:
            service.kill()
            service.start()

        answer = None
        with suppress(httpx.TransportError):
            answer = scene.person.upload(scene.film, "the one", halfway=killed_and_started)
        # 409: the reservation ran out while storage-service was down.
        assert answer is None or answer.status_code in (200, 409, 503), answer.text
        scene.all_is_well(answer)

    whoever_dies(FINISH, play)


@pytest.mark.parametrize(("call", "moment"), steps(RENEWALS))
def test_while_a_slow_upload_renews_its_leases(
    call: Call, moment: Moment, whoever_dies: Callable[[Call, Play], None]
) -> None:
    def play(scene: Scene) -> None:
        answer = scene.kill(call, moment, scene.upload_slowly)
        assert answer is None or answer.status_code in (200, 503), answer.text
        scene.all_is_well(answer)

    whoever_dies(call, play)


@pytest.mark.parametrize(("call", "moment"), steps(REFUSAL))
def test_during_the_refusal_of_an_upload(
    call: Call, moment: Moment, whoever_dies: Callable[[Call, Play], None]
) -> None:
    def play(scene: Scene) -> None:
        answer = scene.kill(call, moment, lambda: scene.person.upload(b"no video" * 50_000))
        assert answer is None or answer.status_code == 415, answer.text
        scene.all_is_well(answer)

    whoever_dies(call, play)


@pytest.mark.parametrize(("call", "moment"), steps(DELETION))
def test_during_a_deletion(call: Call, moment: Moment, whoever_dies: Callable[[Call, Play], None]) -> None:
    def play(scene: Scene) -> None:
        filename = scene.upload().json()["file"]["filename"]
        answer = scene.kill(call, moment, lambda: scene.person.delete(filename))
        assert answer is None or answer.status_code == 200, answer.text
        assert scene.titles() == []
        scene.all_is_well(None)

    whoever_dies(call, play)


@pytest.mark.parametrize(("left", "wanted"), [(FINISH, False), (KEEP, True)], ids=["unwanted", "wanted"])
@pytest.mark.parametrize(("call", "moment"), steps([ASK]))
def test_while_storage_asks_about_an_object_that_nobody_kept(
    call: Call, moment: Moment, left: Call, wanted: bool, whoever_dies: Callable[[Call, Play], None]
) -> None:
    def play(scene: Scene) -> None:
        replace(scene, victim="video").kill(left, "after" if left is FINISH else "before", scene.upload)
        scene.services.let_leases_run_out()
        scene.kill(call, moment, lambda: scene.services.sweep_one("storage"))
        assert scene.titles() == (["the one"] if wanted else [])
        scene.all_is_well(None)
        assert scene.titles() == (["A film", "the one"] if wanted else ["A film"])

    whoever_dies(call, play)
