"""Ranges and conditions as RFC 9110 has them: 206, 304 and 416 exactly when they are due, 200 with all otherwise."""

from datetime import UTC, datetime, timedelta

import pytest
from starlette.datastructures import Headers

from storage_service.ranges import Part, RangeNotSatisfiable, http_date, select

SIZE = 1000
ETAG = '"film.video"'
MODIFIED = datetime(2026, 11, 24, 12, 30, 15, 999_999, tzinfo=UTC)
WHOLE = Part(200, 0, SIZE)
FRESH = Part(304, 0, 0)
HOUR = timedelta(hours=1)


def asked(size: int = SIZE, *, is_get: bool = True, **headers: str) -> Part:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return select(named, size=size, etag=ETAG, modified=MODIFIED, is_get=is_get)


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-499", 0, 500),
        ("bytes=500-999", 500, 1000),
        ("bytes=999-999", 999, 1000),
        ("bytes=0-", 0, 1000),
        ("bytes=999-", 999, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-999", 1, 1000),
        ("bytes=-1000", 0, 1000),
        ("bytes=-1001", 0, 1000),
        ("bytes=990-2000", 990, 1000),
        ("BYTES=0-9", 0, 10),
        ("bytes=0-9 ", 0, 10),
        ("bytes=0000000000000000000000-09", 0, 10),
        ("bytes=0-" + "9" * 5000, 0, 1000),
        ("bytes=-" + "9" * 5000, 0, 1000),
    ],
)
def test_one_range_is_answered_with_that_part(header: str, start: int, stop: int) -> None:
    assert asked(range=header) == Part(206, start, stop)


@pytest.mark.parametrize(
    "header", ["bytes=1000-", "bytes=1000-1000", "bytes=1000-2000", "bytes=-0", "bytes=" + "9" * 5000 + "-"]
)
def test_a_range_outside_the_file_is_a_416_that_tells_the_size(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refusal:
        asked(range=header)
    assert refusal.value.headers == {"Content-Range": "bytes */1000"}


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-0"])
def test_no_range_lies_inside_an_empty_file(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        asked(0, range=header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=--5",
        "bytes=5",
        "bytes=5-4",
        "bytes=2000-1999",
        "bytes=a-b",
        "bytes=0x0-0x9",
        "bytes=1.0-2",
        "bytes=-5-",
        "bytes=+1-2",
        "bytes=1_0-2_0",
        "bytes=²-³",
        "bytes 0-9",
        "items=0-9",
        "bytes=0-9;q=1",
        "bytes=0-0,5-9",
        "bytes=0-0, -1",
        "bytes=" + "0-0," * 1000 + "0-0",
    ],
)
def test_several_ranges_and_what_is_no_range_are_ignored(header: str) -> None:
    assert asked(range=header) == WHOLE


def test_no_range_is_the_whole_and_a_head_request_has_no_ranges() -> None:
    assert asked() == WHOLE
    assert asked(is_get=False, range="bytes=0-9") == WHOLE
    assert asked(is_get=False, range="bytes=5000-") == WHOLE


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (ETAG, True),
        (f" {ETAG} ", True),
        (f"W/{ETAG}", False),
        ('"another"', False),
        ("film.video", False),
        ("", False),
        (http_date(MODIFIED), True),
        (http_date(MODIFIED - HOUR), False),
        (http_date(MODIFIED + HOUR), False),
        ("yesterday", False),
    ],
)
def test_if_range_gives_the_part_only_of_the_very_file_the_client_knows(condition: str, holds: bool) -> None:
    assert asked(range="bytes=0-9", if_range=condition) == (Part(206, 0, 10) if holds else WHOLE)
    if not holds:
        assert asked(range="bytes=5000-", if_range=condition) == WHOLE


@pytest.mark.parametrize("is_get", [True, False])
@pytest.mark.parametrize(
    ("known", "fresh"),
    [
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"a", {ETAG}', True),
        (f'"a",W/{ETAG} , "b"', True),
        ("*", True),
        ('"a"', False),
        ('"a", "b"', False),
        ("", False),
        ("film.video", False),
    ],
)
def test_if_none_match_is_a_304_for_the_file_the_client_has(known: str, fresh: bool, is_get: bool) -> None:
    assert asked(is_get=is_get, if_none_match=known) == (FRESH if fresh else WHOLE)


@pytest.mark.parametrize(
    ("since", "fresh"),
    [
        (http_date(MODIFIED), True),
        (http_date(MODIFIED + HOUR), True),
        (http_date(MODIFIED - HOUR), False),
        ("Tue, 24 Nov 2026 12:30:14 GMT", False),
        ("Tuesday, 24-Nov-26 12:30:15 GMT", True),
        ("Tue Nov 24 12:30:15 2026", True),
        ("Tue, 24 Nov 2026 13:30:15 +0100", True),
        ("", False),
        ("never", False),
        ("24 Nov 2026 99:00:00 GMT", False),
        ("24 Nov 99999999999999999999 12:00:00 GMT", False),
        ("24 Nov 2026 12:30:15 +99999999999999999999", False),
        ("9" * 5000, False),
    ],
)
def test_if_modified_since_is_a_304_for_a_file_no_newer_and_ignored_if_it_is_no_date(since: str, fresh: bool) -> None:
    assert asked(if_modified_since=since) == (FRESH if fresh else WHOLE)
    if not fresh:
        assert asked(range="bytes=0-9", if_range=since) == WHOLE


def test_an_etag_that_does_not_match_outweighs_the_date() -> None:
    assert asked(if_none_match='"a"', if_modified_since=http_date(MODIFIED)) == WHOLE


def test_what_the_client_has_already_it_gets_no_part_of() -> None:
    assert asked(if_none_match=ETAG, range="bytes=0-9") == FRESH


def test_a_time_in_any_zone_is_written_as_http_writes_it() -> None:
    assert http_date(MODIFIED) == "Tue, 24 Nov 2026 12:30:15 GMT"
    assert http_date(datetime.fromisoformat("2026-11-24T13:30:15+01:00")) == "Tue, 24 Nov 2026 12:30:15 GMT"
