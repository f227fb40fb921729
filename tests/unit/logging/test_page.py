"""A page is written as its model would write it."""

import uuid
from datetime import UTC, datetime

import pytest

from logging_service.models import LogOut, LogPage
from logging_service.store import Log, Page
from shared.clock import to_text
from shared.cursor import Cursor

HOSTILE = [
    "",
    "Grüße 😀",
    "\"quoted\" 'so' \\ /",
    "</script>",
    "a\nb\tc\r\x01\x1f\x7f",
    "\u2028\u2029\ufeff\uffff",
    '"},{"id":"',
]
TIMES = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(2026, 11, 24, 12, tzinfo=UTC),
    datetime(2026, 11, 24, 12, 0, 0, 1, UTC),
    datetime(2026, 11, 24, 12, 0, 0, 100_000, UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
]


def log(text: str, at: datetime) -> Log:
    return Log(str(uuid.uuid4()), str(uuid.UUID(int=5)), text, text, text, to_text(at))


@pytest.mark.parametrize("goes_on", [Cursor("2026-11-24T12:00:00.000000Z", 7), None])
@pytest.mark.parametrize("count", [0, 1, len(HOSTILE) * len(TIMES)])
def test_it_is_byte_for_byte_what_the_model_writes(count: int, goes_on: Cursor | None) -> None:
    logs = [log(text, at) for text in HOSTILE for at in TIMES][:count]
    model = LogPage(
        logs=[LogOut.model_validate(one, from_attributes=True) for one in logs],
        total=7,
        next=goes_on and goes_on.encoded(),
    )
    assert LogPage.written(Page(logs, 7, goes_on)) == model.model_dump_json().encode()
