"""An answer whose bytes nginx sends in our place: ``X-Accel-Redirect`` names the file in a location of nginx's own.

We judge the capability, the conditions and the range; nginx then reads the range once more, by its own rules. So this
is for requests that both read alike, which are those that browsers make. The others we answer as ever.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from storage_service import ranges

_PLAIN_RANGE = re.compile(r"bytes=(\d{1,18}-\d{0,18}|-\d{1,18})")


def answer(
    request: Request,
    path: Path,
    location: str,
    *,
    etag: str,
    modified: datetime,
    headers: Mapping[str, str],
    asked: Callable[[int], None],
) -> Response | None:
    """None if it is for us to send; ``asked`` is told what nginx is to send, for how much is taken nobody tells us.

    Raises ``RangeNotSatisfiable``, and ``FileNotFoundError`` if the file is gone.
    """
    modified_text = ranges.http_date(modified)
    if request.method != "GET" or not _is_read_alike(request.headers, etag, modified_text):
        return None
    size = path.stat().st_size
    part = ranges.select(request.headers, size=size, etag=etag, modified=modified, is_get=True)
    if part.status != (206 if "range" in request.headers else 200):
        return None
    asked(part.stop - part.start)
    # Accept-Ranges and Content-Range are nginx's to say.
    told = {
        "ETag": etag,
        "Last-Modified": modified_text,
        "X-Accel-Redirect": f"{location}{path.parent.name}/{path.name}",
    }
    return Response(headers={**headers, **told})


def _is_read_alike(headers: Mapping[str, str], etag: str, modified: str) -> bool:
    if "if-match" in headers or "if-unmodified-since" in headers:  # we pass over them, nginx would not
        return False
    if headers.get("if-range", etag) not in (etag, modified):
        return False
    return "range" not in headers or _PLAIN_RANGE.fullmatch(headers["range"]) is not None
