"""What nginx is left to send: only where it will read the request as we do, and nothing that a viewer would not get."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from storage_service import accel
from storage_service.config import Settings
from storage_service.ranges import RangeNotSatisfiable

SIZE = 1000
ETAG = '"film.video"'
MODIFIED = datetime(2026, 11, 24, 12, 0, 1, 500_000, tzinfo=UTC)
DATE = "Tue, 24 Nov 2026 12:00:01 GMT"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "objects" / "fi" / "film.video"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(SIZE))
    return path


def asked(path: Path, method: str = "GET", **headers: str) -> tuple[Response | None, list[int]]:
    """The answer, and what was told to be sent."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw})
    told: list[int] = []
    answered = accel.answer(
        request,
        path,
        "/by-nginx/",
        etag=ETAG,
        modified=MODIFIED,
        headers={"Content-Type": "video/mp4", "Cache-Control": "private"},
        asked=told.append,
    )
    return answered, told


def test_nginx_is_told_the_file_and_what_the_viewer_is_to_know(film: Path) -> None:
    answer, told = asked(film)
    assert answer is not None
    assert (answer.status_code, bytes(answer.body), told) == (200, b"", [SIZE])
    assert dict(answer.headers) == {
        "content-type": "video/mp4",
        "cache-control": "private",
        "etag": ETAG,
        "last-modified": DATE,
        "x-accel-redirect": "/by-nginx/fi/film.video",
        "content-length": "0",
    }


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ({"range": "bytes=0-"}, SIZE),
        ({"range": "bytes=10-19"}, 10),
        ({"range": "bytes=990-5000"}, 10),
        ({"range": "bytes=-7"}, 7),
        ({"range": "bytes=-5000"}, SIZE),
        ({"range": "bytes=1-1", "if_range": ETAG}, 1),
        ({"range": "bytes=1-1", "if_range": DATE}, 1),
        ({"if_none_match": '"another"'}, SIZE),
        ({"if_modified_since": "Mon, 23 Nov 2026 12:00:01 GMT"}, SIZE),
    ],
    ids=str,
)
def test_what_browsers_ask_for_is_sent_by_nginx_and_counted_as_asked(
    film: Path, headers: dict[str, str], length: int
) -> None:
    answer, told = asked(film, **headers)
    assert answer is not None
    assert told == [length]


@pytest.mark.parametrize(
    "headers",
    [
        {"if_none_match": ETAG},
        {"if_none_match": "*"},
        {"if_modified_since": DATE},
        {"if_match": ETAG},
        {"if_unmodified_since": DATE},
        {"range": "bytes=0-0,5-5"},
        {"range": "bytes=5-2"},
        {"range": "bytes = 1-2"},
        {"range": "BYTES=1-2"},
        {"range": "bytes=0-9999999999999999999"},
        {"range": "lines=1-2"},
        {"range": "bytes=1-1", "if_range": '"another"'},
        {"range": "bytes=1-1", "if_range": "Tue, 24 Nov 2026 12:00:01 -0000"},
    ],
    ids=str,
)
def test_what_nginx_would_read_otherwise_or_has_no_bytes_is_left_to_us(film: Path, headers: dict[str, str]) -> None:
    assert asked(film, **headers) == (None, [])


def test_a_head_request_is_left_to_us(film: Path) -> None:
    assert asked(film, "HEAD") == (None, [])


def test_a_range_outside_is_refused_and_nothing_counted(film: Path) -> None:
    for outside in (f"bytes={SIZE}-", "bytes=-0"):
        with pytest.raises(RangeNotSatisfiable):
            asked(film, range=outside)


def test_a_file_that_is_gone_is_not_promised(film: Path) -> None:
    film.unlink()
    with pytest.raises(FileNotFoundError):
        asked(film)


@pytest.mark.parametrize("location", ["sent", "/", "/sent", "sent/", "//", "/a b/", "/../", "http://nginx/sent/"])
def test_what_is_no_location_stops_the_start(location: str) -> None:
    given: dict[str, Any] = {"_env_file": None, "jwt_secret": "x" * 32, "accel_redirect": location}
    with pytest.raises(ValueError, match="an internal location of nginx"):
        Settings(**given)
