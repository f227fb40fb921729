"""Between services and Supabase anything may break: the answer is clear, nothing is lost, nothing is counted twice."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from e2e.books import audit
from e2e.engines import Cloud
from e2e.people import Person
from e2e.services import Services, running
from standins import faulty
from standins.faulty import RESET, SILENCE, Faulty, What

ORIGIN = "http://localhost:3000"
RPC = "/rest/v1/rpc/"
UPLOAD = [
    "users_lock_upload",
    "storage_claim",
    "storage_note_session",
    "usage_reserve",
    "storage_finish",
    "videos_add",
    "storage_keep",
    "usage_commit",
    "users_unlock_upload",
    "videos_paid",
]
DELETION = ["videos_delete", "storage_delete_objects", "storage_removed", "usage_count", "videos_paid"]
# With two in a row the second try of a call fails like the first.
FAULTS: dict[str, tuple[What, bool, int]] = {
    "reset twice before": (RESET, False, 2),
    "reset after commit": (RESET, True, 1),
    "reset twice after commit": (RESET, True, 2),
    "HTML 502": (faulty.BAD_GATEWAY, False, 2),
    "503 for a while": (faulty.UNAVAILABLE, False, 3),
    "401 without a code": (faulty.INVALID_KEY, False, 2),
    "truncated": (faulty.cut_short, True, 2),
    "truncated clean": (faulty.cut_clean, True, 2),
    "null": (faulty.NULL, True, 2),
}
faults = pytest.mark.parametrize(("what", "after", "times"), FAULTS.values(), ids=FAULTS)


@pytest.fixture(scope="module")
def front(another_cloud: Callable[[], Cloud]) -> Iterator[tuple[Services, Faulty]]:
    engine = another_cloud()
    leases = {"RESERVATION_SECONDS": 1, "UPLOAD_LOCK_SECONDS": 1, "RENEW_SECONDS": 0.4}
    with Faulty(engine.settings["SUPABASE_URL"]) as proxy:
        engine.settings["SUPABASE_URL"] = proxy.url
        with running(engine, **leases) as services:
            yield services, proxy
            assert audit(services) == []


@pytest.fixture
def services(front: tuple[Services, Faulty]) -> Services:
    return front[0]


@pytest.fixture
def proxy(front: tuple[Services, Faulty]) -> Faulty:
    front[1].forget()
    return front[1]


def settled(services: Services) -> None:
    services.let_leases_run_out()
    services.sweep()


def called(proxy: Faulty) -> set[str]:
    return {path.removeprefix(RPC) for method, path in proxy.calls if method == "POST" and "/logs_" not in path}


def test_these_are_all_the_functions_that_change_something(services: Services, proxy: Faulty, film: bytes) -> None:
    """What a new one would have to be added to."""
    ada = Person(services)
    proxy.forget()
    filename = ada.upload(film).json()["file"]["filename"]
    assert called(proxy) == set(UPLOAD)
    proxy.forget()
    assert ada.delete(filename).status_code == 200
    assert called(proxy) == set(DELETION)


@faults
def test_during_an_upload(services: Services, proxy: Faulty, film: bytes, what: What, after: bool, times: int) -> None:
    answers: list[tuple[str, Person, httpx.Response]] = []
    for function in UPLOAD:
        person = Person(services)
        strike = proxy.at("POST", RPC + function, what, after=after, times=times)
        answers.append((function, person, person.upload(film, "the one")))
        assert strike.times_left < times, function
        proxy.forget()
    settled(services)
    assert audit(services, *(person.id for _, person, _ in answers)) == []
    for function, person, answer in answers:
        titles = [video["title"] for video in person.videos()["videos"]]
        assert answer.status_code in (200, 503), (function, answer.text)
        if answer.status_code == 200:
            assert titles == ["the one"], function
        else:  # whether it has happened nobody knows only if it was the very entry into the catalogue
            assert answer.json()["message"], function
            assert titles == [] or (function == "videos_add" and titles == ["the one"]), function


@faults
def test_during_a_deletion(services: Services, proxy: Faulty, film: bytes, what: What, after: bool, times: int) -> None:
    person = Person(services)
    for function in DELETION:
        filename = person.upload(film).json()["file"]["filename"]
        strike = proxy.at("POST", RPC + function, what, after=after, times=times)
        answer = person.delete(filename)
        assert strike.times_left < times, function
        proxy.forget()
        if answer.status_code != 200:
            assert (answer.status_code, function) == (503, "videos_delete"), answer.text
            assert person.delete(filename).status_code in (200, 404)
    settled(services)
    assert person.videos()["total"] == 0
    assert person.usage()["deletions"] == len(DELETION)
    assert audit(services, person.id) == []


@faults
def test_whoever_asks_is_told_to_try_again_and_never_a_wrong_figure(
    services: Services, proxy: Faulty, what: What, after: bool, times: int
) -> None:
    ada = Person(services)
    asked = {
        "the account": ("user", f"/api/users/user/{ada.id}"),
        "all videos": ("video", "/api/videos/stream"),
        "own videos": ("video", f"/api/videos/user/{ada.id}"),
        "one video": ("video", "/api/videos/stream/unknown"),
        "the storage": ("storage", "/api/storage/usage"),
        "the day": ("usage", "/api/usage/daily-usage"),
        "the logs": ("logging", f"/api/logs/user/{ada.id}"),
        "readiness": ("usage", "/ready"),
    }
    for method in ("GET", "POST"):
        proxy.at(method, "/rest/v1/", what, after=after, times=1000)
    headers = ada.headers | {"Origin": ORIGIN}
    answers = {
        name: services.client.get(services[service].url + path, headers=headers)
        for name, (service, path) in asked.items()
    }
    answers["a login"] = ada.login()
    proxy.forget()
    for name, answer in answers.items():
        assert (answer.status_code, bool(answer.json()["message"])) == (503, True), (name, answer.text)
        assert "retry-after" in answer.headers, name
        assert name == "a login" or answer.headers["access-control-allow-origin"] == ORIGIN, name
    assert ada.login().status_code == 200


@pytest.mark.parametrize("function", ["videos_add", "storage_keep"])
def test_a_database_that_stands_still_is_not_waited_for_without_end(
    services: Services, proxy: Faulty, film: bytes, function: str
) -> None:
    ada = Person(services)
    proxy.at("POST", RPC + function, SILENCE, after=True)
    answer = ada.upload(film, "the one")
    assert answer.status_code == (503 if function == "videos_add" else 200), answer.text
    settled(services)
    assert [video["title"] for video in ada.videos()["videos"]] == ["the one"]
    assert audit(services, ada.id) == []


def test_while_nobody_is_there_everything_is_a_503_and_afterwards_all_is_well(
    services: Services, proxy: Faulty, film: bytes
) -> None:
    ada = Person(services)
    filename = ada.upload(film).json()["file"]["filename"]
    with proxy.refusing():
        for answer in (ada.upload(film), ada.login(), ada.delete(filename), ada.get("video", "/api/videos/stream")):
            assert (answer.status_code, bool(answer.json()["message"])) == (503, True), answer.text
    assert ada.delete(filename).status_code == 200
    assert ada.upload(film).status_code == 200
    settled(services)
    assert audit(services, ada.id) == []
