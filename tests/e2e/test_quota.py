"""Limits hold to the byte, whoever tries whatever at once; and what is refused leaves nothing."""

import uuid
from collections.abc import Callable, Iterator
from threading import Barrier
from typing import Any

import pytest
import videos
from e2e.books import audit, nothing_left_of
from e2e.engines import Engine
from e2e.people import Form, Person, at_once
from e2e.services import Services, running
from e2e.wire import Wire, upload_head

from shared.settings import MIB

STORAGE, DAY, UPLOAD = 2 * MIB, 3 * MIB, MIB + MIB // 2
SMALL = 100_000
both_ways = pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])


@pytest.fixture(scope="module")
def services(new_engine: Callable[[], Engine | None]) -> Iterator[Services]:
    """Limits that are quick to reach. Leases have their usual life, so nothing here is saved by one that runs out."""
    settings = {"MAX_STORAGE_MB": 2, "DAILY_BANDWIDTH_MB": 3, "MAX_UPLOAD_MB": 1.5}
    with running(new_engine(), **settings) as services:
        yield services
        services.sweep()
        assert audit(services) == []


@pytest.fixture
def ada(services: Services) -> Person:
    return Person(services, "Ada")


# Exactly so much, and no byte more


@both_ways
def test_a_video_that_exactly_fills_the_storage_is_taken_and_one_byte_more_is_not(ada: Person, chunked: bool) -> None:
    assert ada.upload(videos.exactly(MIB)).status_code == 200
    refused = ada.upload(videos.exactly(STORAGE - MIB + 1), chunked=chunked)
    assert (refused.status_code, refused.json()["code"]) == (413, "storage_limit")
    assert "Exceeding total storage limit" in refused.json()["message"]
    assert bytes_of(ada) == (MIB, MIB)
    assert ada.upload(videos.exactly(STORAGE - MIB), chunked=chunked).status_code == 200
    assert bytes_of(ada) == (STORAGE, STORAGE)
    assert ada.storage()["usagePercentage"] == "100.00"
    refused = ada.upload(videos.exactly(SMALL), chunked=chunked)
    assert "Exceeding total storage limit" in refused.json()["message"]
    assert bytes_of(ada) == (STORAGE, STORAGE)


@both_ways
def test_a_video_that_exactly_fills_the_day_is_taken_and_one_byte_more_is_not(ada: Person, chunked: bool) -> None:
    for _ in range(2):
        ada.delete(ada.upload(videos.exactly(MIB)).json()["file"]["filename"])
    assert bytes_of(ada) == (0, 2 * MIB), "deleted uploads still count towards the day"
    assert ada.usage()["isThresholdExceeded"] is False
    refused = ada.upload(videos.exactly(DAY - 2 * MIB + 1), chunked=chunked)
    assert (refused.status_code, refused.json()["code"]) == (429, "daily_limit")
    assert "Exceeding daily bandwidth limit" in refused.json()["message"]
    assert bytes_of(ada) == (0, 2 * MIB)
    assert ada.upload(videos.exactly(DAY - 2 * MIB), chunked=chunked).status_code == 200
    assert bytes_of(ada) == (MIB, DAY)
    assert ada.usage()["isThresholdExceeded"] is True
    refused = ada.upload(videos.exactly(SMALL), chunked=chunked)
    assert (refused.status_code, ada.usage()["totalUsageMb"]) == (429, DAY / MIB)
    assert "Exceeding daily bandwidth limit" in refused.json()["message"]


@both_ways
def test_one_upload_has_a_limit_of_its_own_and_the_refusal_says_so(ada: Person, chunked: bool) -> None:
    refused = ada.upload(videos.exactly(UPLOAD + 1), chunked=chunked)
    assert refused.status_code == 413
    assert "1.5 MB that one upload may have" in refused.json()["message"]
    assert nothing_left_of(ada.services, ada.id) == []
    assert ada.upload(videos.exactly(UPLOAD), chunked=chunked).status_code == 200


def test_what_cannot_fit_is_refused_before_the_body(ada: Person) -> None:
    ada.upload(videos.exactly(UPLOAD))
    with Wire(ada.services["video"]) as wire:
        upload_head(wire, ada, Form(b""), Content_Length=str(UPLOAD), Expect="100-continue")
        answer = wire.answer()
    assert (answer.status, "Exceeding total storage limit" in answer.message) == (413, True)


def bytes_of(person: Person) -> tuple[float, float]:
    """Stored, and uploaded today."""
    return person.storage()["totalSizeMb"] * MIB, person.usage()["totalUsageMb"] * MIB


# Two at once


def test_of_two_uploads_of_one_user_the_second_is_told_that_the_first_runs(ada: Person, film: bytes) -> None:
    others: list[Any] = []
    first = ada.upload(film, halfway=lambda: others.append(ada.upload(film)))
    assert first.status_code == 200
    assert others[0].status_code == 409
    assert "Already uploading" in others[0].json()["message"]
    assert ada.upload(film).status_code == 200, "the lock is free again"


def test_two_people_upload_at_the_same_time(ada: Person, film: bytes) -> None:
    bob, others = Person(ada.services, "Bob"), []
    assert ada.upload(film, halfway=lambda: others.append(bob.upload(film))).status_code == 200
    assert others[0].status_code == 200


def test_ten_uploads_of_one_user_at_the_same_moment_are_taken_or_told_to_wait(ada: Person) -> None:
    film = videos.exactly(MIB)
    start = Barrier(10)

    def upload() -> int:
        start.wait()
        return ada.upload(film).status_code

    answers = at_once([upload] * 10)
    taken = answers.count(200)
    assert 1 <= taken <= 2, "no more fit"
    assert set(answers) <= {200, 409, 413}
    assert bytes_of(ada) == (taken * MIB, taken * MIB)


@pytest.mark.parametrize(("name", "limit"), [("storage", STORAGE), ("usage", DAY)])
def test_fifty_reservations_at_the_edge_on_two_instances_never_exceed_it_and_all_that_fit_are_taken(
    services: Services, name: str, limit: int
) -> None:
    person, edge = uuid.uuid4(), limit // SMALL
    urls = [services[name].url, services.twin(name).url] * 25
    start = Barrier(len(urls))

    def reserve(url: str) -> tuple[int, Any]:
        start.wait()
        answer = services.client.post(
            f"{url}/internal/reservations/{uuid.uuid4().hex}",
            json={"user_id": str(person), "least": SMALL, "most": SMALL},
            headers=services.service_headers(),
        )
        return answer.status_code, answer.json()

    answers = at_once([lambda url=url: reserve(url) for url in urls])
    granted = [body["granted"] for status, body in answers if status == 200]
    refused = [body["message"] for status, body in answers if status != 200]
    assert granted == [SMALL] * edge
    assert len(refused) == len(urls) - edge
    assert all("Exceeding" in message for message in refused)
    (held,) = services.engine.rows(
        name,
        "SELECT reserved FROM storage_ledger WHERE user_id = ?"
        if name == "storage"
        else "SELECT sum(granted) AS reserved FROM usage_reservations WHERE user_id = ?",
        str(person),
    )
    assert held["reserved"] == edge * SMALL
    # Nobody uploads them: they lapse.
    table = "storage_objects" if name == "storage" else "usage_reservations"
    services.engine.execute(name, f"UPDATE {table} SET expires_at = '2000-01-01' WHERE user_id = ?", str(person))
