"""The log sender: it costs a request nothing, and nothing it does can make one fail."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shared import audit
from shared.audit import AuditLog
from shared.http import Peer, open_client

ANNE = uuid.uuid4()


class Receiver:
    """A logging-service that takes everything, unless ``behave`` does otherwise."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.behave: Callable[[], Any] = asyncio.Event

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("POST", "/api/logs/batch")
        answer = self.behave()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, httpx.Response):
            return answer
        self.batches.append(json.loads(request.content)["logs"])
        return httpx.Response(201, json={"message": "taken"})

    @property
    def descriptions(self) -> list[str]:
        return [entry["description"] for batch in self.batches for entry in batch]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BACKOFF_SECONDS", (0.005, 0.01))
    monkeypatch.setattr(audit, "GATHER_SECONDS", 0.005)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@asynccontextmanager
async def sending(receiver: Receiver, queue: int = audit.QUEUE) -> AsyncIterator[AuditLog]:
    async with (
        open_client(httpx.MockTransport(receiver)) as client,
        AuditLog(Peer(client, "logging-service", "http://logs", lambda: "token"), queue) as log,
    ):
        yield log


async def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, "it has not happened within 10 seconds"
        await asyncio.sleep(0.001)


def record(log: AuditLog, number: int) -> None:
    for each in range(number):
        log.record(ANNE, "LOGIN", str(each), "UserAccountService")


async def test_everything_arrives_in_order_in_batches(receiver: Receiver) -> None:
    async with sending(receiver) as log:
        record(log, 1200)
    assert receiver.descriptions == [str(each) for each in range(1200)]
    assert max(len(batch) for batch in receiver.batches) <= audit.BATCH
    assert log.dropped == 0


async def test_the_first_goes_at_once_and_what_follows_within_a_moment_in_one_call(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "GATHER_SECONDS", 1)
    async with sending(receiver) as log:
        record(log, 1)
        await wait_until(lambda: receiver.batches)
        assert [len(batch) for batch in receiver.batches] == [1]
        for _ in range(10):
            record(log, 1)
            await asyncio.sleep(0.001)
        await wait_until(lambda: len(receiver.batches) > 1)
        assert [len(batch) for batch in receiver.batches] == [1, 10]


async def test_the_end_does_not_wait_for_more(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "GATHER_SECONDS", 60)
    started = time.monotonic()
    async with sending(receiver) as log:
        record(log, 1)
        await wait_until(lambda: receiver.batches)
        record(log, 2)
    assert len(receiver.descriptions) == 3
    assert time.monotonic() - started < 30


async def test_an_entry_carries_its_own_id_and_the_time_it_happened(receiver: Receiver) -> None:
    before = datetime.now(UTC)
    async with sending(receiver) as log:
        record(log, 2)
        after = datetime.now(UTC)
    entries = [entry for batch in receiver.batches for entry in batch]
    assert entries[0]["id"] != entries[1]["id"]
    assert before <= datetime.fromisoformat(entries[0].pop("created_at")) <= after
    assert uuid.UUID(entries[0].pop("id"))
    assert entries[0] == {
        "user_id": str(ANNE),
        "action": "LOGIN",
        "description": "0",
        "service": "UserAccountService",
    }


async def test_recording_does_not_wait_for_a_slow_receiver(receiver: Receiver) -> None:
    taking = asyncio.Event()
    receiver.behave = taking.wait
    async with sending(receiver) as log:
        record(log, 100)
        taking.set()
    assert len(receiver.descriptions) == 100


async def test_the_queue_is_bounded_and_what_does_not_fit_is_counted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "FLUSH_SECONDS", 0.05)
    receiver.behave = lambda: asyncio.sleep(60)
    async with sending(receiver, queue=10) as log:
        record(log, 100)
        assert log.dropped == 90
    assert log.dropped == 100
    assert receiver.descriptions == []


async def test_a_receiver_that_comes_back_gets_all_of_it_once(receiver: Receiver) -> None:
    failures = iter([httpx.Response(503), httpx.Response(500), httpx.Response(401), httpx.Response(200)])

    def fail_at_first() -> object:
        answer = next(failures, None)
        if answer is not None and answer.status_code == 200:
            raise httpx.ConnectError("refused")
        return answer

    receiver.behave = fail_at_first
    async with sending(receiver) as log:
        record(log, 5)
    assert receiver.descriptions == ["0", "1", "2", "3", "4"]
    assert log.dropped == 0


async def test_a_receiver_that_is_down_holds_the_end_up_for_the_flush_at_most(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit.FLUSH_SECONDS <= 3
    monkeypatch.setattr(audit, "FLUSH_SECONDS", 0.2)
    for behave in (lambda: httpx.Response(503), lambda: asyncio.sleep(60)):
        receiver.behave = behave
        async with sending(receiver) as log:
            record(log, 7)
            await asyncio.sleep(0.01)
            started = time.monotonic()
        assert 0.15 < time.monotonic() - started < 30
        assert log.dropped == 7


async def test_without_anything_to_send_the_end_comes_at_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "FLUSH_SECONDS", 60)
    started = time.monotonic()
    async with sending(receiver):
        pass
    assert time.monotonic() - started < 30


async def test_a_batch_that_is_refused_for_good_is_dropped_and_the_next_one_sent(receiver: Receiver) -> None:
    refusals = iter([httpx.Response(422, json={"message": "No.", "code": "invalid"})])
    receiver.behave = lambda: next(refusals, None)
    async with sending(receiver) as log:
        record(log, 3)
        await wait_until(lambda: log.dropped)
        record(log, 2)
    assert receiver.descriptions == ["0", "1"]
    assert log.dropped == 3


async def test_a_description_that_is_too_long_is_cut(receiver: Receiver) -> None:
    async with sending(receiver) as log:
        log.record(ANNE, "LOGIN", "x" * 5000, "UserAccountService")
    assert receiver.descriptions == ["x" * 1000]


async def test_a_description_that_cannot_be_kept_does_not_fail_the_request(receiver: Receiver) -> None:
    async with sending(receiver) as log:
        log.record(ANNE, "LOGIN", "a\0b", "UserAccountService")


async def test_half_a_character_does_not_end_the_sending(receiver: Receiver) -> None:
    async with sending(receiver) as log:
        log.record(ANNE, "LOGIN", "\ud800", "UserAccountService")
        await wait_until(lambda: receiver.batches)
        log.record(ANNE, "LOGIN", "after it", "UserAccountService")
    assert "after it" in receiver.descriptions
