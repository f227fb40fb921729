"""What stands around the rules of storage-service: a judge, the catalogue, a clock that can be turned, films."""

import base64
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c

from shared.contracts import SentVideo
from shared.errors import ServiceError, Unavailable
from storage_service.verdict import NotAVideo, Probe

ANN, BEN = uuid.UUID(int=1), uuid.UUID(int=2)
LIMIT = 10_000
RESERVATION = timedelta(seconds=300)
DOWN = Unavailable("does not answer")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, by: timedelta) -> None:
        self.now += by


class Inspector:
    """Takes everything that begins with ``film`` for a video."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None

    async def inspect(self, path: Path) -> Probe:
        if self.failure:
            raise self.failure
        return _probe(path)


def _probe(path: Path) -> Probe:
    if not path.read_bytes().startswith(b"film"):
        raise NotAVideo("it does not begin with film.")
    return Probe(content_type="video/mp4", duration=1.5, width=64, height=48, thumbnail=b"jpeg")


def sent(content: bytes) -> SentVideo:
    """What video-service says that it has sent."""
    checksum = google_crc32c.value(content).to_bytes(4)
    return SentVideo(size=len(content), crc32c=base64.b64encode(checksum).decode())


class Catalogue:
    """``videos`` are those that exist; ``asked`` what storage-service wanted to know."""

    def __init__(self) -> None:
        self.videos: set[str] = set()
        self.asked: list[str] = []
        self.failure: ServiceError | None = None

    async def has(self, filename: str) -> bool:
        self.asked.append(filename)
        if self.failure:
            raise self.failure
        return filename in self.videos


class Audit:
    def __init__(self) -> None:
        self.actions: list[str] = []

    def record(self, user_id: uuid.UUID, action: str, description: str, service: str) -> None:
        self.actions.append(action)


def film(size: int) -> bytes:
    return b"film" + b"x" * (size - 4)


async def pieces(content: bytes, size: int = 64) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
