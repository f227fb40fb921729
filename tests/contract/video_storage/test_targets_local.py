"""Google's resumable protocol as storage-service speaks it over its folder, request by request."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from contract.video_storage.sending import STORAGE_URL, open_wire, target_app

from storage_service.blobs import open_blobs
from storage_service.blobs.capability import UploadUrls
from storage_service.blobs.local import LocalBlobs
from storage_service.config import Settings

GRANTED = 1_000_000
CONTENT = random.Random(1).randbytes(GRANTED)
WRONG = [
    "",
    "bytes",
    "bytes 0-9",
    "0-9/10",
    "bytes=0-9/10",
    "Bytes 0-9/10",
    "bytes 0-9/",
    "bytes -9/10",
    "bytes 0-/10",
    "bytes -1-9/10",
    "bytes 0--9/10",
    "bytes 9-0/10",
    "bytes 5-4/10",
    "bytes 0-10/10",
    "bytes 0-9/-10",
    "bytes 0-9/*/*",
    "bytes 0-9/10, bytes 0-9/10",
    "bytes 0-9,20-29/30",
    "bytes  0-9/10",
    "bytes 0-9/10 ",
    "bytes 0x0-0x9/10",
    "bytes +0-9/10",
    "bytes 0.0-9/10",
    "bytes ²-9/10",
    "bytes 0-99999999999999999/*",
    "bytes */99999999999999999",
    "items 0-9/10",
]


@dataclass
class Target:
    """The target of ``video``, for 1,000,000 bytes."""

    blobs: LocalBlobs
    wire: httpx.AsyncClient
    url: str

    async def put(self, span: str, content: Any = b"") -> tuple[int, str | None]:
        """The status, and how far the upload is."""
        answer = await self.wire.put(self.url, content=content, headers={"Content-Range": f"bytes {span}"})
        return answer.status_code, answer.headers.get("range")

    @property
    def content(self) -> bytes:
        return self.blobs.source("video", 0).read_bytes()


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(Settings)


@pytest.fixture
async def target(settings: Settings) -> AsyncIterator[Target]:
    async with open_blobs(settings) as blobs, open_wire(blobs, settings) as wire:
        assert isinstance(blobs, LocalBlobs)
        opened = await blobs.open_target("video", GRANTED, None)
        yield Target(blobs, wire, STORAGE_URL + opened.target.url)


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("no byte is read")
    yield b""


async def test_pieces_arrive_one_after_another_and_the_last_one_ends_it(target: Target) -> None:
    assert await target.put("0-299999/*", CONTENT[:300_000]) == (308, "bytes=0-299999")
    assert await target.put("300000-300000/*", CONTENT[300_000:300_001]) == (308, "bytes=0-300000")
    assert await target.put("300001-999999/1000000", CONTENT[300_001:]) == (200, None)
    assert target.content == CONTENT


async def test_it_says_how_far_it_is(target: Target) -> None:
    assert await target.put("*/*") == (308, None)
    assert await target.put("*/10") == (308, None)
    await target.put("0-9/*", CONTENT[:10])
    assert await target.put("*/*") == (308, "bytes=0-9")
    assert await target.put("*/11") == (308, "bytes=0-9")
    assert await target.put("*/10") == (200, None)
    assert await target.put("*/9") == (400, None), "more has arrived than there is said to be"


@pytest.mark.parametrize("value", WRONG)
async def test_a_content_range_that_is_none_is_a_400(target: Target, value: str) -> None:
    headers = {"Content-Range": value.encode("latin-1")}
    answer = await target.wire.put(target.url, content=unread(), headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_two_content_ranges_are_a_400_and_so_is_none(target: Target) -> None:
    two = [("Content-Range", "bytes 0-9/*"), ("Content-Range", "bytes 0-9/10")]
    for headers in (two, []):
        answer = await target.wire.put(target.url, content=unread(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("capability", ["x", "AAAA", "A" * 32, "%00", "%C3%A4", "..%2F", "another file's"])
async def test_a_capability_that_is_not_for_this_file_is_a_403(
    target: Target, settings: Settings, capability: str
) -> None:
    if capability == "another file's":
        capability = UploadUrls(settings).url("another", GRANTED).split("/")[2]
    url = f"{STORAGE_URL}/uploads/{capability}/video"
    answer = await target.wire.put(url, content=unread(), headers={"Content-Range": "bytes 0-9/10"})
    assert answer.status_code == (404 if "2F" in capability else 403)
    assert target.content == b""


@pytest.mark.parametrize("filename", ["..", "a.b", "%2e%2e%2fx", "video%00", "x" * 65])
async def test_a_filename_that_can_be_none_is_a_404(target: Target, filename: str) -> None:
    url = target.url.rpartition("/")[0] + "/" + filename
    answer = await target.wire.put(url, content=unread(), headers={"Content-Range": "bytes 0-9/10"})
    assert answer.status_code == 404


@pytest.mark.parametrize("span", ["0-1000000/*", "0-1000000/1000001", "0-9/1000001", "*/1000001", "999999-1000000/*"])
async def test_more_than_was_granted_is_a_413_before_a_byte_is_read(target: Target, span: str) -> None:
    assert await target.put(span, unread()) == (413, None)


async def test_a_target_that_was_never_opened_is_a_404(target: Target, settings: Settings) -> None:
    target.url = STORAGE_URL + UploadUrls(settings).url("unknown", GRANTED)
    assert await target.put("*/*") == (404, None)
    assert await target.put("0-9/10", unread()) == (404, None)


async def test_a_body_shorter_than_its_range_is_a_400_and_what_came_stays(target: Target) -> None:
    assert await target.put("0-9/10", CONTENT[:4]) == (400, None)
    assert await target.put("*/*") == (308, "bytes=0-3")
    assert await target.put("4-9/10", CONTENT[4:10]) == (200, None)
    assert target.content == CONTENT[:10]


async def test_a_body_longer_than_its_range_is_a_400_and_no_byte_beyond_it_arrives(target: Target) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield CONTENT[:10]
        yield b"too much"

    assert await target.put("0-9/*", body()) == (400, None)
    assert await target.put("*/*") == (308, "bytes=0-9")


async def test_bytes_that_have_arrived_before_are_skipped(target: Target) -> None:
    await target.put("0-299999/*", CONTENT[:300_000])

    async def other() -> AsyncIterator[bytes]:
        yield bytes(150_000)
        yield bytes(150_001) + CONTENT[300_001:300_002]  # from byte 300,000 on it is new

    assert await target.put("0-300001/*", other()) == (308, "bytes=0-300001")
    assert target.content == CONTENT[:300_000] + b"\0" + CONTENT[300_001:300_002]


async def test_bytes_beyond_what_has_arrived_are_not_taken_and_it_says_how_far_it_is(target: Target) -> None:
    await target.put("0-9/*", CONTENT[:10])
    assert await target.put("20-29/30", CONTENT[20:30]) == (308, "bytes=0-9")
    assert target.content == CONTENT[:10]


async def test_the_last_piece_may_come_twice(target: Target) -> None:
    for _ in range(2):
        assert await target.put("0-9/10", CONTENT[:10]) == (200, None)
    assert target.content == CONTENT[:10]


async def test_what_came_before_a_cut_stays(target: Target, settings: Settings) -> None:
    messages = iter([{"type": "http.request", "body": CONTENT[:7], "more_body": True}, {"type": "http.disconnect"}])
    answered: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        answered.append(message)

    path = httpx.URL(target.url).path
    scope = {"type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": [(b"content-range", b"bytes 0-9/10")]}
    await target_app(target.blobs, settings)(scope, receive, send)
    assert answered[0]["status"] == 400
    assert await target.put("*/*") == (308, "bytes=0-6")


async def test_a_later_request_takes_over_from_an_earlier_one_that_hangs(target: Target) -> None:
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield CONTENT[:300_000]
        sent.set()
        await go_on.wait()
        yield b"\0" * 10
        yield b"\0" * 699_990

    earlier = asyncio.create_task(target.put("0-999999/1000000", hanging()))
    await sent.wait()
    assert await target.put("*/*") == (308, "bytes=0-299999")
    assert await target.put("300000-999998/*", CONTENT[300_000:999_999]) == (308, "bytes=0-999998")
    go_on.set()
    assert await earlier == (409, None)
    assert await target.put("999999-999999/1000000", CONTENT[999_999:]) == (200, None)
    assert target.content == CONTENT
