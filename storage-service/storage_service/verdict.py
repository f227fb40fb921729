"""What a judge of files answers, and how it travels from the judge's process to the service.

It stands apart from probe.py so that the service understands it without loading ffmpeg.
"""

import base64
import json
import math
import os
from dataclasses import asdict, dataclass

CONTENT_TYPES = {"video/mp4", "video/quicktime", "video/webm", "video/x-matroska"}


class NotAVideo(Exception):
    """The file is not a video that we take; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Width and height are those on the screen: turned, and with square pixels. The duration is in seconds."""

    content_type: str
    duration: float | None
    width: int
    height: int
    thumbnail: bytes


def encode(verdict: Probe | NotAVideo | OSError) -> bytes:
    match verdict:
        case Probe():
            answer = asdict(verdict) | {"thumbnail": base64.b64encode(verdict.thumbnail).decode()}
        case NotAVideo():
            answer = {"refused": str(verdict)}
        case OSError():
            answer = {"errno": verdict.errno}
    return json.dumps(answer).encode()


def decode(answer: bytes) -> Probe:
    """Raises what the judge could not return, and ValueError for what none in its right mind would answer.

    JSON and a look at each field, not pickle: who takes over a judge must not get further by its answer.
    """
    match json.loads(answer):
        case {"refused": str(why)}:
            raise NotAVideo(why)
        case {"errno": int(number)}:
            raise OSError(number, os.strerror(number))
        case {
            "content_type": str(content_type),
            "duration": float() | None as duration,
            "width": int(width),
            "height": int(height),
            "thumbnail": str(thumbnail),
        } if content_type in CONTENT_TYPES and math.isfinite(duration or 0):
            return Probe(content_type, duration, width, height, base64.b64decode(thumbnail))
    raise ValueError("not an answer")
