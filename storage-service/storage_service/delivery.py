"""How a stored video or thumbnail is delivered to a viewer. There are three ways:

- it lies in a bucket: a redirect to a signed URL, and the bucket sends it;
- it lies in our folder and nginx stands in front: ``X-Accel-Redirect``, and nginx sends it (accel.py);
- it lies in our folder: we send it (file_response.py).
"""

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from shared.errors import NotFound
from shared.turns import Turns
from storage_service import accel, file_response, ranges
from storage_service.blobs import Blobs, Kind, LocalFile, Method
from storage_service.metering import StreamMeter
from storage_service.open_files import OpenFiles
from storage_service.store import StoredObject

CACHE_SECONDS = 3600


class Delivery:
    """``nginx_location`` is the internal location of the nginx in front, if there is one.

    ``redirect_seconds`` is how long a browser may keep a redirect to the bucket.
    """

    def __init__(
        self,
        blobs: Blobs,
        files: OpenFiles,
        meter: StreamMeter,
        turns: Turns,
        *,
        nginx_location: str | None,
        redirect_seconds: int,
    ) -> None:
        self._blobs = blobs
        self._files = files
        self.meter = meter
        self._nginx_location = nginx_location
        self._redirect_seconds = redirect_seconds
        self._turns = turns

    async def answer(self, request: Request, found: StoredObject, kind: Kind, viewer: uuid.UUID) -> Response:
        """The answer to a GET or HEAD of ``found``; the bytes that it sends are counted for ``viewer``.

        Raises ``RangeNotSatisfiable``, ``NotFound`` if it was removed just now, and ``Unavailable``.
        """
        assert found.video is not None
        content_type = found.video.content_type if kind == "video" else "image/jpeg"
        headers = {
            "Content-Type": content_type,
            "Cache-Control": f"private, max-age={CACHE_SECONDS}",
            "Content-Disposition": "inline",
            "X-Content-Type-Options": "nosniff",
            # A page that isolates itself (COEP) may embed it; the capability is what protects it.
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        count = partial(self.meter.count, viewer)
        method: Method = "HEAD" if request.method == "HEAD" else "GET"
        address = await self._blobs.address(found.filename, kind, content_type, method)
        if isinstance(address, LocalFile):
            return self._from_folder(request, address.path, found, kind, headers, count)
        if kind == "video" and method == "GET":
            count(_asked_for(request, found))
        return self._redirect(address.url, headers)

    def _from_folder(
        self,
        request: Request,
        path: Path,
        found: StoredObject,
        kind: Kind,
        headers: Mapping[str, str],
        count: Callable[[int], None],
    ) -> Response:
        etag, modified = f'"{found.filename}.{kind}"', found.created_at
        try:
            if self._nginx_location:
                by_nginx = accel.answer(
                    request, path, self._nginx_location, etag=etag, modified=modified, headers=headers, asked=count
                )
                if by_nginx is not None:
                    return by_nginx
            return file_response.answer(
                request,
                path,
                files=self._files,
                etag=etag,
                modified=modified,
                headers=headers,
                sent=count,
                turns=self._turns,
            )
        except FileNotFoundError:
            raise NotFound("This video does not exist any more.") from None

    def _redirect(self, url: str, headers: Mapping[str, str]) -> Response:
        ours = {name: value for name, value in headers.items() if name not in ("Content-Type", "Content-Disposition")}
        moved = {"Location": url, "Cache-Control": f"private, max-age={self._redirect_seconds}"}
        return Response(status_code=302, headers={**ours, **moved})


def _asked_for(request: Request, found: StoredObject) -> int:
    """How many bytes the bucket is asked for; it does not tell us how many it has sent.

    Conditions in the request are about what the bucket sent before, and the bucket decides about them.
    """
    assert found.video is not None
    span = {"range": request.headers["range"]} if "range" in request.headers else {}
    part = ranges.select(span, size=found.video.size, etag="", modified=found.created_at, is_get=True)
    return part.stop - part.start
