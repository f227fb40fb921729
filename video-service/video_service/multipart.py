"""The upload form (RFC 7578), parsed from the stream: the video's bytes pass through, the fields stay.

The page sends the part ``video`` first and ``title`` after it; the other order works too. What is not the video may
take OVERHEAD bytes in all, so a declared length tells the video's size within that much.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from shared.contracts import Chunk
from shared.errors import BadRequest, Invalid, ServiceError, TooLarge
from shared.turns import Turns

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

OVERHEAD = 64 * 1024
LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1
FIELDS = ("title",)


class TooSlow(ServiceError):
    """The caller stopped sending."""

    status, code = 408, "too_slow"


class UploadForm:
    """Read ``video()`` to its end, then ``finish()``; then ``fields`` holds what came with it."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes], idle_seconds: float, turns: Turns) -> None:
        """Raises ``Invalid`` unless ``content_type`` is a multipart form with a boundary. Reads nothing yet."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= LONGEST_BOUNDARY:
            raise Invalid("video: send the file as multipart/form-data in a part named video.", code="no_file")
        self._body = body
        self._idle_seconds = idle_seconds
        self._turns = turns
        self._parts = _Parts()
        self._parser = MultipartParser(boundary, self._parts.callbacks())
        self._read = 0

    @property
    def fields(self) -> dict[str, str]:
        """The text fields read so far; raises ``Invalid`` for one that is not UTF-8."""
        try:
            return {name: value.decode() for name, value in self._parts.fields.items()}
        except UnicodeDecodeError:
            raise Invalid("title: must be text in UTF-8.") from None

    async def video(self) -> AsyncIterator[Chunk]:
        """The bytes of the part ``video``; raises ``Invalid`` if there is none."""
        parts = self._parts
        while True:
            chunks, parts.chunks = parts.chunks, []
            for chunk in chunks:
                yield chunk
            if parts.video_ended:
                return
            if not await self._feed():
                raise Invalid("video: send a file in a part named video.", code="no_file")

    async def finish(self) -> None:
        """Read what follows the video."""
        while await self._feed():
            pass

    async def _feed(self) -> bool:
        """Parse the next piece of the body; False at its end. Bounds the wait and what is not video."""
        await self._turns.yield_turn()
        try:
            async with asyncio.timeout(self._idle_seconds):
                piece = await anext(self._body, b"")
        except TimeoutError:
            raise TooSlow(f"The upload stood still for {self._idle_seconds:g} seconds.") from None
        except ClientDisconnect:
            raise BadRequest("The upload was cut off.", code="cut_off") from None
        if not piece:
            if self._read == 0:
                raise Invalid("video: send a file in a part named video.", code="no_file")
            if not self._parts.complete:
                raise BadRequest("The upload was cut off before the end of the form.", code="cut_off")
            return False
        self._read += len(piece)
        try:
            self._parser.write(piece)
        except MultipartParseError:
            raise BadRequest("The form cannot be read: it is not well-formed multipart/form-data.") from None
        if self._read - self._parts.video_bytes > OVERHEAD:
            raise TooLarge("What comes with the video is too long.", code="form_too_large")
        return True


class _Parts:
    """What the parser has found so far. It knows nothing of the parser, so that none of the two keeps the other."""

    def __init__(self) -> None:
        self.chunks: list[memoryview] = []
        self.fields: dict[str, bytearray] = {}
        self.video_bytes = 0
        self.video_ended = self.complete = False
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._field: bytearray | None = None
        self._in_video = self._video_seen = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_ends,
            "on_end": self._form_ends,
        }

    def _part_begins(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_ends(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == "video" and b"filename" in options:
            if self._video_seen:
                raise Invalid("video: send one file at a time.", code="too_many_files")
            self._in_video = self._video_seen = True
        elif name in FIELDS:
            self._field = self.fields[name] = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_video:
            self.video_bytes += end - start
            self.chunks.append(memoryview(data)[start:end])  # no copy
        elif self._field is not None:
            self._field.extend(data[start:end])

    def _part_ends(self) -> None:
        self.video_ended = self.video_ended or self._in_video
        self._in_video = False
        self._field = None

    def _form_ends(self) -> None:
        self.complete = True
