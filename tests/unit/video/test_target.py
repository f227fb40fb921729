"""How a video's bytes reach their target, over a fake of the target that keeps the resumable protocol."""

import asyncio
import base64
import random
import re
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import google_crc32c
import httpx
import pytest

from shared.contracts import Chunk, SentVideo, UploadTarget
from shared.disk import Disk
from shared.errors import Conflict, Unavailable
from video_service import target
from video_service.target import Targets

FAULTS = ["cut before", "cut after", "partial", "refused", ""]
TARGET = UploadTarget(url="/uploads/capability/video")


class FakeTarget:
    """Takes each byte once and in order. ``faults`` says what happens to each request, empty for nothing."""

    def __init__(self, faults: Iterable[str] = ()) -> None:
        self.content = b""
        self.complete = False
        self.lost_an_end = False
        self.urls: list[str] = []
        self.spans: list[str] = []
        self._faults = iter(faults)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self.urls.append(str(request.url))
        self.spans.append(request.headers["content-range"].removeprefix("bytes "))
        span = re.fullmatch(r"(?:(\d+)-(\d+)|\*)/(\d+|\*)", self.spans[-1])
        assert span
        start, stop = (int(span[1]), int(span[2]) + 1) if span[1] else (len(self.content), len(self.content))
        assert (start, stop - start) == (len(self.content), len(body)), "what has arrived is not sent again"
        fault = next(self._faults, "")
        self.lost_an_end |= bool(fault) and span[3] != "*"
        if fault == "refused":
            return httpx.Response(503)
        if fault != "cut before":
            self.content += body[: len(body) // 2] if fault == "partial" else body
            self.complete |= span[3] != "*" and len(self.content) == int(span[3])
        if fault:
            raise httpx.ReadError("cut")
        if self.complete:
            return httpx.Response(200)
        return httpx.Response(308, headers={"range": f"bytes=0-{len(self.content) - 1}"} if self.content else {})


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "PIECE_UNIT", 16)
    monkeypatch.setattr(target, "LARGEST_PIECE", 48)
    monkeypatch.setattr(target, "FIRST_PAUSE", 0)


async def send(
    fake: httpx.AsyncBaseTransport | FakeTarget, chunks: AsyncIterator[Chunk], to: UploadTarget = TARGET
) -> SentVideo:
    transport = httpx.MockTransport(fake) if isinstance(fake, FakeTarget) else fake
    with closing(Disk(Path())) as disk:
        async with httpx.AsyncClient(transport=transport) as client:
            return await Targets(client, "http://storage", disk).send(to, chunks)


async def each(chunks: Sequence[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk


def described(content: bytes) -> SentVideo:
    return SentVideo(size=len(content), crc32c=base64.b64encode(google_crc32c.value(content).to_bytes(4)).decode())


@pytest.mark.usefixtures("small_pieces")
async def test_whatever_faults_happen_the_target_has_what_was_sent_or_the_sender_raises() -> None:
    outcomes = []
    for seed in range(300):
        chance = random.Random(seed)
        likely = chance.choice([1, 4, 8])  # the weight of no fault
        faults = chance.choices(FAULTS, [1] * 4 + [likely * 4], k=200)
        content = chance.randbytes(chance.randint(1, 400))
        size = chance.choice([1, 7, 16, 50, 500])
        fake = FakeTarget(faults)
        try:
            sent = await send(fake, each([content[at : at + size] for at in range(0, len(content), size)]))
        except Unavailable:
            outcomes.append("refused")
        else:
            assert sent == described(content), seed
            # After a lost end only storage-service can tell; it looks at what has arrived.
            assert fake.complete or fake.lost_an_end, seed
            outcomes.append("complete" if fake.complete else "unknown")
        assert content.startswith(fake.content), seed
        assert not fake.complete or fake.content == content, seed
    assert min(outcomes.count("complete") - 200, outcomes.count("refused")) > 3, outcomes


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("fault", ["cut before", "refused"])
async def test_a_target_that_never_takes_a_piece_is_tried_so_often_and_not_longer(fault: str) -> None:
    fake = FakeTarget([fault] * 20)
    with pytest.raises(Unavailable):
        await send(fake, each([bytes(100)]))
    assert fake.spans == ["0-95/*"] + ["*/*"] * (target.TRIES - 1), "and it asks before it sends again"


@pytest.mark.usefixtures("small_pieces")
async def test_a_try_that_brings_the_upload_forward_begins_the_count_anew() -> None:
    fake = FakeTarget(["partial", ""] * target.TRIES)
    await send(fake, each([bytes(48)]))
    assert fake.complete


@pytest.mark.parametrize("status", [404, 409, 410, 412, 499])
async def test_a_target_that_has_ended_is_a_conflict_at_once(status: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status))
    with pytest.raises(Conflict) as refusal:
        await send(transport, each([b"video"]))
    assert refusal.value.code == "upload_gone"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(403),
        httpx.Response(400),
        httpx.Response(302, headers={"location": "http://elsewhere"}),
        httpx.Response(308, headers={"range": "bytes=0-99"}),
    ],
)
async def test_an_answer_that_makes_no_sense_is_a_503(answer: httpx.Response) -> None:
    with pytest.raises(Unavailable):
        await send(httpx.MockTransport(lambda _: answer), each([b"video"]))


@pytest.mark.parametrize(
    ("url", "leads_to"),
    [
        ("/uploads/a/b", "http://storage/uploads/a/b"),
        ("https://bucket/upload?upload_id=1", "https://bucket/upload?upload_id=1"),
    ],
)
async def test_a_relative_url_leads_to_storage_service_and_an_absolute_one_where_it_says(
    url: str, leads_to: str
) -> None:
    fake = FakeTarget()
    await send(fake, each([b"video"]), UploadTarget(url=url))
    assert (fake.urls, fake.content) == ([leads_to], b"video")


@pytest.mark.usefixtures("small_pieces")
async def test_bytes_and_checksum_are_right_however_the_chunks_are_cut() -> None:
    chance = random.Random(1)
    content = chance.randbytes(1000)
    for _ in range(50):
        chunks: list[Chunk] = []
        at = 0
        while at < len(content):
            part = content[at : (at := at + chance.randint(0, 60))]
            around = chance.randbytes(3)
            views: list[Chunk] = [
                part,
                memoryview(part),
                memoryview(around + part + around)[3:-3],
                memoryview(bytearray(part)),
            ]
            chunks.append(chance.choice(views))
        fake = FakeTarget()
        assert await send(fake, each(chunks)) == described(content)
        assert fake.content == content


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("error", [Unavailable("down"), RuntimeError("a bug"), Conflict("no")])
async def test_an_error_of_the_source_rises_as_it_is(error: Exception) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield bytes(100)
        raise error

    fake = FakeTarget()
    with pytest.raises(type(error)) as raised:
        await send(fake, source())
    assert raised.value is error
    assert not fake.complete


class Sink(httpx.AsyncBaseTransport):
    """Keeps nothing, and answers when every upload has a piece on its way: what is measured is the client alone."""

    def __init__(self, uploads: int) -> None:
        self.on_the_way = self.most = 0
        self.pieces: set[int] = set()
        self._together = asyncio.Barrier(uploads)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        length = int(request.headers["content-length"])
        self.on_the_way += length
        self.most = max(self.most, self.on_the_way)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        assert length == sum([len(part) async for part in request.stream])
        await self._together.wait()
        self.on_the_way -= length
        span, total = request.headers["content-range"].removeprefix("bytes ").split("/")
        if total == "*":
            self.pieces.add(length)
            return httpx.Response(308, headers={"range": f"bytes=0-{span.split('-')[1]}"})
        return httpx.Response(200)


@pytest.mark.parametrize(("uploads", "piece"), [(1, 8 * 1_048_576), (8, 2 * 1_048_576)])
async def test_pieces_are_as_large_as_the_number_of_uploads_allows_and_memory_stays_bounded(
    uploads: int, piece: int
) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(400):
            await asyncio.sleep(0)  # each upload's bytes come from its own connection
            yield bytes(65_536)

    sink = Sink(uploads)
    with closing(Disk(Path())) as disk:
        async with httpx.AsyncClient(transport=sink) as client:
            targets = Targets(client, "http://storage", disk)
            tracemalloc.start()
            try:
                sent = await asyncio.gather(*(targets.send(TARGET, source()) for _ in range(uploads)))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert [one.size for one in sent] == [400 * 65_536] * uploads
    assert sink.pieces == {piece}
    assert piece % (256 * 1024) == 0
    assert sink.most <= target.PIECES_BYTES
    assert peak < uploads * (piece + 4 * 65_536) + 1_048_576, "no piece is kept that has been confirmed"
