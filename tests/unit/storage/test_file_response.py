"""Bytes from a file to a viewer: the right ones, no more after he has gone, and nobody else is kept waiting."""

import asyncio
import gc
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.requests import Request
from starlette.types import Message

from shared.turns import Turns
from storage_service import file_response
from storage_service.file_response import STEP, answer
from storage_service.open_files import OpenFiles
from storage_service.ranges import RangeNotSatisfiable

SIZE = 5 * STEP + 12_345
ETAG = '"film.video"'
CONTENT = random.Random(1).randbytes(SIZE)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(autouse=True)
def _no_file_stays_open(film: Path) -> Iterator[None]:
    yield
    gc.collect()  # a traceback may hold the mapping
    assert str(film) not in {file.path for file in psutil.Process().open_files()}


class Viewer:
    """A browser over a server that hands on what it is sent; it goes away after ``patience`` pieces."""

    def __init__(
        self,
        path: Path,
        *,
        method: str = "GET",
        patience: int | None = None,
        turns: Turns | None = None,
        **headers: str,
    ) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw}
        self.path = path
        self.patience = patience
        self.turns = turns or Turns()
        self.messages: list[Message] = []
        self.sent: list[int] = []
        self.gone = asyncio.Event()
        self.asked = False

    async def receive(self) -> Message:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append({**message, "body": bytes(message.get("body", b""))})
        if self.patience is not None and len(self.messages) - 1 >= self.patience:
            self.gone.set()

    async def fetch(self) -> None:
        response = answer(
            Request(self.scope),
            self.path,
            files=OpenFiles(),
            etag=ETAG,
            modified=datetime(2026, 11, 24, tzinfo=UTC),
            headers={"Content-Type": "video/mp4"},
            sent=self.sent.append,
            turns=self.turns,
        )
        await response(self.scope, self.receive, self.send)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])


@asynccontextmanager
async def another_request() -> AsyncIterator[list[int]]:
    """Another request: it counts how often it gets its turn."""
    counted = [0]

    async def forever() -> None:
        while True:
            counted[0] += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(forever())
    yield counted
    task.cancel()


@pytest.fixture(params=["cached", "cold", "system cannot tell"])
def cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "cold":
        monkeypatch.setattr(file_response, "_is_cached", lambda descriptor, start, stop: False)
    if request.param == "system cannot tell":
        monkeypatch.setattr(file_response, "_NOWAIT", None)
    return str(request.param)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        (None, 0, SIZE),
        ("bytes=0-", 0, SIZE),
        ("bytes=0-0", 0, 1),
        ("bytes=-1", SIZE - 1, SIZE),
        (f"bytes={STEP}-{2 * STEP - 1}", STEP, 2 * STEP),
        (f"bytes={STEP - 1}-{2 * STEP}", STEP - 1, 2 * STEP + 1),
        ("bytes=12345-", 12_345, SIZE),
        (f"bytes=-{STEP + 1}", SIZE - STEP - 1, SIZE),
    ],
)
async def test_the_bytes_are_those_of_the_file(film: Path, asked: str | None, start: int, stop: int) -> None:
    headers: dict[str, Any] = {"range": asked} if asked else {}
    viewer = Viewer(film, **headers)
    await viewer.fetch()
    assert hashlib.sha256(viewer.body).digest() == hashlib.sha256(CONTENT[start:stop]).digest()
    assert viewer.status == (206 if asked else 200)
    assert viewer.headers["content-length"] == str(stop - start) == str(sum(viewer.sent))
    assert viewer.headers.get("content-range") == (f"bytes {start}-{stop - 1}/{SIZE}" if asked else None)
    assert {message.get("more_body", False) for message in viewer.messages[1:-1]} <= {True}
    assert not viewer.messages[-1].get("more_body", False)


async def test_a_large_file_leaves_in_steps_of_one_mebibyte(film: Path) -> None:
    viewer = Viewer(film)
    await viewer.fetch()
    assert viewer.sent == [STEP] * 5 + [12_345]


async def test_a_head_request_gets_the_headers_of_the_whole_and_no_byte(film: Path) -> None:
    viewer = Viewer(film, method="HEAD", range="bytes=0-9")
    await viewer.fetch()
    assert (viewer.status, viewer.headers["content-length"], viewer.body) == (200, str(SIZE), b"")
    assert (viewer.headers["accept-ranges"], viewer.headers["etag"]) == ("bytes", ETAG)
    assert viewer.sent == []


async def test_who_has_the_file_already_gets_a_304_without_content(film: Path) -> None:
    viewer = Viewer(film, if_none_match=ETAG)
    await viewer.fetch()
    assert (viewer.status, viewer.body, viewer.sent) == (304, b"", [])
    assert viewer.headers["etag"] == ETAG
    assert not viewer.headers.keys() & {"content-type", "content-length"}


async def test_a_range_outside_and_a_file_that_is_gone_are_told_before_anything_is_sent(film: Path) -> None:
    for viewer, error in (
        (Viewer(film, range=f"bytes={SIZE}-"), RangeNotSatisfiable),
        (Viewer(film.with_name("gone")), FileNotFoundError),
    ):
        with pytest.raises(error):
            await viewer.fetch()
        assert viewer.messages == []


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("patience", [0, 1, 3])
async def test_when_the_viewer_goes_away_the_reading_stops(film: Path, patience: int) -> None:
    viewer = Viewer(film, patience=patience)
    await viewer.fetch()
    assert len(viewer.sent) <= patience + 1
    assert len(viewer.body) == sum(viewer.sent), "what did not leave is not counted"


@pytest.mark.usefixtures("cache")
async def test_between_two_steps_everybody_else_has_his_turn(film: Path) -> None:
    async with another_request() as counted:
        seen = []
        viewer = Viewer(film)
        viewer.sent = Watched(lambda: seen.append(counted[0]))
        await viewer.fetch()
    assert len(seen) == 6
    assert all(earlier < later for earlier, later in pairwise(seen))


async def test_a_small_request_waits_for_one_step_and_not_for_as_many_as_there_are_viewers(film: Path) -> None:
    turns, count = Turns(), 5
    async with another_request() as counted:
        seen = []
        viewers = [Viewer(film, turns=turns) for _ in range(count)]
        for viewer in viewers:
            viewer.sent = Watched(lambda: seen.append(counted[0]))
        await asyncio.gather(*(viewer.fetch() for viewer in viewers))
    after_the_start = seen[count:]
    assert len(after_the_start) == 5 * count
    assert all(earlier < later for earlier, later in pairwise(after_the_start))
    assert all(viewer.body == CONTENT for viewer in viewers)


class Watched(list[int]):
    def __init__(self, look: object) -> None:
        super().__init__()
        self.look = look

    def append(self, sent: int) -> None:
        super().append(sent)
        self.look()  # type: ignore[operator]


async def test_a_file_that_is_removed_while_it_is_sent_arrives_whole(tmp_path: Path) -> None:
    path = tmp_path / "film"
    path.write_bytes(CONTENT)
    viewer = Viewer(path)
    viewer.sent = Watched(lambda: path.unlink(missing_ok=True))
    await viewer.fetch()
    assert viewer.body == CONTENT


async def test_a_delivery_that_is_cancelled_leaves_nothing_open(film: Path) -> None:
    viewer = Viewer(film)
    stuck = asyncio.Event()

    async def stall(message: Message) -> None:
        stuck.set()
        await asyncio.Event().wait()

    viewer.send = stall  # type: ignore[method-assign]
    task = asyncio.create_task(viewer.fetch())
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
