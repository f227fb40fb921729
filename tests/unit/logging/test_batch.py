"""A batch is read the short way or by the contract, and nobody can tell which."""

import json
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from logging_service.models import Batch
from logging_service.service import LoggingService
from logging_service.store import Log
from shared.clock import to_text
from shared.contracts import LogBatch, LogEntry

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
BATCH = TypeAdapter(Batch)


class FakeStore:
    async def add(self, logs: list[Log]) -> None:
        self.logs = logs


async def written(entries: Any) -> list[Log]:
    """What the service makes of them."""
    store: Any = FakeStore()
    await LoggingService(store, clock=lambda: NOW).write(entries)
    logs: list[Log] = store.logs
    return logs


def judged(kind: TypeAdapter[Any], body: Any) -> Any:
    """What becomes of it, or everything that is wrong with it."""
    try:
        return kind.validate_python(body)
    except ValidationError as error:
        return error.errors(include_input=False, include_context=False)


def entry(**more: Any) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "user_id": str(uuid.uuid4()),
        "action": "LOGIN",
        "description": "Grüße 😀",
        "service": "UserAccountService",
        "created_at": to_text(NOW + timedelta(microseconds=random.randrange(10**12))),
        **more,
    }


# What a field may hold: fine, odd, or wrong.
FIELDS: dict[str, list[Any]] = {
    "id": [
        uuid.UUID(int=7).hex,
        str(uuid.UUID(int=2**128 - 1)).upper(),
        "{" + str(uuid.UUID(int=5)) + "}",
        "urn:uuid:" + str(uuid.UUID(int=5)),
        str(uuid.UUID(int=5)) + "\n",
        str(uuid.UUID(int=5))[:-1] + "٣",
        "",
        "1",
        1,
        True,
        [],
    ],
    "user_id": [uuid.UUID(int=7).hex, str(uuid.UUID(int=11)).upper(), None, "anne", 5, {}],
    "action": ["A" * 64, "😀" * 64, "", "A" * 65, "a\0", "\0", "\ud800", "a\nb", None, 1, ["A"], "\\u0000", "\ue000"],
    "service": ["S" * 64, "", "S" * 65, "\udfff", "\0", None, 0.5, "\r", "\u2028"],
    "description": [
        "",
        "d" * 2000,
        "😀" * 2000,
        "d" * 2001,
        "a\0b",
        "x\udc00",
        "\ud83d\ude00",
        None,
        7,
        {"a": 1},
        "\x01",
    ],
    "created_at": [
        None,
        "2026-02-30T00:00:00.000000Z",
        "2024-02-29T23:59:59.999999Z",
        "2025-02-29T23:59:59.999999Z",
        "2026-11-24T24:00:00.000000Z",
        "2026-11-24T23:60:00.000000Z",
        "2026-11-24T23:59:60.000000Z",
        "2026-00-01T00:00:00.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "0001-01-01T00:00:00.000000Z",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-14:00",
        "2026-11-24T12:00:00Z",
        "2026-11-24T12:00:00.5Z",
        "2026-11-24T12:00:00.123456z",
        "2026-11-24 12:00:00.123456Z",
        "2026-11-24T12:00:00.123456+00:00",
        "2026-11-24T12:00:00.123456-00:00",
        "2026-11-24T12:00:00.123456+14:00",
        "2026-11-24T12:00:00.1234567Z",
        "2026-11-24T12:00:00.123456",
        "2026-11-24T12:00:00.123456Z\n",
        "٢٠٢٦-11-24T12:00:00.123456Z",
        "2026-11-24",
        1_764_000_000,
        1.5,
        "",
        "now",
        float("nan"),
        float("inf"),
        10**400,
    ],
}


async def test_every_body_is_taken_or_refused_as_the_contract_says() -> None:
    random.seed(7)
    ways = {"rows": 0, "entries": 0, "refused": 0}
    bodies: list[Any] = [{"logs": [entry(**{name: value})]} for name, values in FIELDS.items() for value in values]
    for _ in range(2000):
        entries = [entry() for _ in range(random.randint(1, 3))]
        for one in entries:
            for name in random.sample([*FIELDS], random.choice([0, 0, 0, 1, 2])):
                if random.random() < 0.2:
                    del one[name]
                else:
                    one[name] = random.choice(FIELDS[name])
            if random.random() < 0.2:
                one["more"] = random.choice([None, 1, "x"])
        bodies.append({"logs": entries, "more": 1} if random.random() < 0.1 else {"logs": entries})
    bodies += [
        None,
        [],
        {},
        "logs",
        b"logs",
        5,
        {"logs": None},
        {"logs": []},
        {"logs": {}},
        {"logs": [None]},
        {"logs": [[]]},
    ]
    for body in bodies:
        expected, batch = judged(TypeAdapter(LogBatch), body), judged(BATCH, body)
        if not isinstance(expected, LogBatch):
            assert batch == expected
            ways["refused"] += 1
            continue
        assert isinstance(batch, Batch)
        ways["rows" if isinstance(batch.entries[0], Log) else "entries"] += 1
        ours, theirs = await written(batch.entries), await written(expected.logs)
        assert len(ours) == len(theirs)
        for given, one, other in zip(expected.logs, ours, theirs, strict=True):
            assert one[1:] == other[1:]
            assert given.id is None or one[0] == other[0]
    assert min(ways.values()) > 100


def test_what_our_services_send_is_rows_at_once() -> None:
    sent = LogBatch(
        logs=[
            LogEntry(
                id=uuid.uuid4(),
                user_id=uuid.uuid4(),
                action="LOGIN",
                description='Grüße 😀\n"quoted"',
                service="UserAccountService",
                created_at=NOW + timedelta(microseconds=number + 1),
            )
            for number in range(1000)
        ]
    )
    batch = BATCH.validate_python(json.loads(sent.model_dump_json()))
    assert {type(one) for one in batch.entries} == {Log}


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_has_one_to_a_thousand(count: int) -> None:
    with pytest.raises(ValidationError):
        BATCH.validate_python({"logs": [entry()] * count})


def test_its_schema_is_the_contracts() -> None:
    assert BATCH.json_schema() == LogBatch.model_json_schema()
