"""Ranges and conditions of a GET, as RFC 9110 has them (13.1, 14). Offsets are bytes, ``stop`` is exclusive."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import Literal

from shared.errors import ServiceError

_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d*)-(\d*)\s*", re.IGNORECASE)
# More digits than any file has bytes; it also bounds the work of reading the number.
_LONGEST = 18


class RangeNotSatisfiable(ServiceError):
    """``size`` is the whole length in bytes (RFC 9110, 15.5.17)."""

    status, code = 416, "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        sentence = f"The range lies outside the {size} bytes of this file."
        super().__init__(sentence, headers={"Content-Range": f"bytes */{size}"})


@dataclass(frozen=True, slots=True)
class Part:
    """What to send: 200 with everything, 206 with a part, or 304 with nothing."""

    status: Literal[200, 206, 304]
    start: int
    stop: int


def select(headers: Mapping[str, str], *, size: int, etag: str, modified: datetime, is_get: bool) -> Part:
    """Which part of a file of ``size`` bytes these request headers ask for; raises ``RangeNotSatisfiable``.

    ``etag`` comes with its quotes; ``headers`` must find names in any case. Ranges count for GET alone (14.2).
    """
    if _is_fresh(headers, etag, modified):
        return Part(304, 0, 0)
    asked = headers.get("range")
    if asked is None or not is_get or not _may_range(headers.get("if-range"), etag, modified):
        return Part(200, 0, size)
    span = _span(asked, size)
    return Part(206, *span) if span else Part(200, 0, size)


@lru_cache(maxsize=1024)
def http_date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0), usegmt=True)


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """None where the header is to be ignored: another unit, malformed, or several ranges (a server may decline)."""
    match = _ONE_RANGE.fullmatch(asked)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = min(_number(last), size)
        if length == 0:
            raise RangeNotSatisfiable(size)
        return size - length, size
    start = _number(first)
    if last and _number(last) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return start, min(_number(last) + 1, size) if last else size


def _number(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _LONGEST else 10**_LONGEST


def _is_fresh(headers: Mapping[str, str], etag: str, modified: datetime) -> bool:
    known = headers.get("if-none-match")
    if known is not None:
        tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
        return "*" in tags or etag in tags
    since = _date(headers.get("if-modified-since"))
    return since is not None and modified.replace(microsecond=0) <= since


def _may_range(condition: str | None, etag: str, modified: datetime) -> bool:
    """If-Range: the part only if the file is still the one the client has a piece of; compared strongly."""
    if condition is None or condition.strip() == etag:
        return True
    return _date(condition) == modified.replace(microsecond=0)


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
