"""Walks a container's parts from the first byte to the last, so that nothing can hide in front, between or behind.

ffmpeg is forgiving: it plays a film with a web page glued to its end, and finds playlists by their text. So the
structure is judged here, in plain Python, before ffmpeg sees it, and the verdict names the one demuxer to use.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage_service.verdict import NotAVideo

MOST_PARTS = 500_000  # an hour of MediaRecorder has 300,000, walked in half a second

FIRST_BOXES = {b"ftyp", b"wide", b"mdat", b"moov", b"free", b"skip"}  # QuickTime had no ftyp before 2001

EBML, DOCTYPE, SEGMENT, INFO, DURATION, CLUSTER = 0x1A45DFA3, 0x4282, 0x18538067, 0x1549A966, 0x4489, 0x1F43B675
DOCTYPES = {b"webm": "video/webm", b"matroska": "video/x-matroska"}
IN_SEGMENT = {INFO, CLUSTER, 0x114D9B74, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367, 0xEC, 0xBF}
IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}


@dataclass(frozen=True, slots=True)
class Container:
    """`timed`: its header knows the duration."""

    demuxer: str
    content_type: str
    timed: bool


def recognise(file: BinaryIO) -> Container:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    # No text begins with a byte below 9: what a browser might take for a page does not get past this line.
    if start[4:] in FIRST_BOXES and start[0] < 9:
        return _iso(file, size)
    if start.startswith(EBML.to_bytes(4)):
        return _ebml(file, size)
    raise NotAVideo("The file is neither MP4, QuickTime, WebM nor Matroska.")


def _iso(file: BinaryIO, size: int) -> Container:
    """ISO/IEC 14496-12, 4.2: a box is its length, its type and its content."""
    kinds: set[bytes] = set()
    brand = b"qt  "
    position = 0
    for _ in range(MOST_PARTS):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8 or not re.fullmatch(rb"[ -~]{4}", header[4:8]):
            raise NotAVideo(f"What stands at byte {position} of the file is not part of a video.")
        length, kind, content = int.from_bytes(header[:4]), header[4:8], 8
        if length == 1:
            length, content = int.from_bytes(header[8:]), 16
        elif length == 0:
            length = size - position
        if not content <= length <= size - position:
            raise NotAVideo(f"The file is cut short in its part '{kind.decode()}', or followed by something else.")
        if kind == b"ftyp":
            brand = header[8:12]
        kinds.add(kind)
        position += length
        if position == size:
            break
    else:
        raise NotAVideo(f"The file has more than {MOST_PARTS:,} parts.")
    if b"moov" not in kinds:
        raise NotAVideo("The file has no index ('moov'): its recording was not finished.")
    return Container("mov", "video/quicktime" if brand == b"qt  " else "video/mp4", timed=b"moof" not in kinds)


def _ebml(file: BinaryIO, size: int) -> Container:
    """RFC 8794 and 9559. MediaRecorder cannot go back in what it wrote: its Segment and Clusters have no length."""
    doctype, timed, inside = b"", False, False
    for identity, start, length in _elements(file, 0, size):
        if identity == EBML and not doctype:
            doctype = _child(file, DOCTYPE, start, length) or b"matroska"
        elif identity == SEGMENT and not inside and start + length == size:
            inside = True
        elif not inside or identity not in IN_SEGMENT | IN_CLUSTER:
            raise NotAVideo(f"What stands before byte {start} of the file is not part of a video.")
        elif identity == INFO:
            timed = _child(file, DURATION, start, length) != b""
    if doctype not in DOCTYPES or not inside:
        raise NotAVideo("The file looks like Matroska, but is neither that nor WebM.")
    return Container("matroska", DOCTYPES[doctype], timed)


def _elements(file: BinaryIO, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Identity, start and length of each; after a Segment, and a Cluster without a length, come those inside it."""
    for _ in range(MOST_PARTS):
        if position == end:
            return
        file.seek(position)
        header = file.read(12).ljust(12, b"\0")
        a = _width(header[0])
        b = a + _width(header[a])
        identity, length, unknown = int.from_bytes(header[:a]), int.from_bytes(header[a:b]), (1 << 7 * (b - a)) - 1
        length &= unknown
        start = position + b
        bare = length == unknown and identity in (SEGMENT, CLUSTER)
        if bare:
            length = end - start
        if a > 4 or b - a > 8 or not 0 <= length <= end - start:
            raise NotAVideo(f"The file is cut short or damaged at byte {position}, or followed by something else.")
        yield identity, start, length
        position = start if bare or identity == SEGMENT else start + length
    raise NotAVideo(f"The file has more than {MOST_PARTS:,} parts.")


def _width(first: int) -> int:
    """A number's first byte tells in its leading zeros how many bytes the number has; 9 is none."""
    return 9 - first.bit_length()


def _child(file: BinaryIO, wanted: int, start: int, length: int) -> bytes:
    for identity, at, size in _elements(file, start, start + length):
        if identity == wanted:
            file.seek(at)
            return file.read(min(size, 16)).rstrip(b"\0")
    return b""
