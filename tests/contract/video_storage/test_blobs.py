"""What every place for objects promises, over every backend, about videos that the real client sends to it."""

import asyncio
import base64
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import gcs
import google_crc32c
import httpx
import psutil
import pytest
from contract.video_storage.sending import STORAGE_URL, open_targets, open_wire, pieces, upload

from shared.contracts import SentVideo, UploadTarget
from shared.errors import Conflict, NotFound, ServiceError, Unavailable
from storage_service.blobs import Blobs, Kind, LocalFile, open_blobs
from storage_service.config import Settings
from video_service import target
from video_service.target import Targets, Upload

UNIT = target.PIECE_UNIT
CONTENT = random.Random(1).randbytes(9_000_000)
HOSTILE = ["../x", "..", ".", "", "a/b", "/etc/passwd", "a\\b", "a.b", "a\0b", "a\n", "ä", "x" * 300, "%2e%2e%2fx"]


@pytest.fixture(scope="module")
def clouds() -> Iterator[dict[str, gcs.Cloud]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(gcs.running(kind)) for kind in gcs.KINDS}


@dataclass
class Place:
    settings: Settings
    cloud: gcs.Cloud | None

    def everything(self) -> dict[str, int]:
        """All objects there are, finished or not, by their path or key, with their sizes."""
        if self.cloud:
            assert self.settings.gcs_bucket
            return self.cloud.objects(self.settings.gcs_bucket)
        root = self.settings.data_dir
        return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


@pytest.fixture(params=["local", *gcs.KINDS])
def place(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], clouds: dict[str, gcs.Cloud]
) -> Iterator[Place]:
    if request.param == "local":
        settings = make_settings(Settings)
        yield Place(settings, None)
        assert not [file.path for file in psutil.Process().open_files() if file.path.startswith(str(settings.data_dir))]
    else:
        cloud, bucket = clouds[request.param], f"bucket-{uuid.uuid4().hex}"
        cloud.make_bucket(bucket)
        yield Place(make_settings(Settings, gcs_bucket=bucket, storage_emulator_host=cloud.url), cloud)


@pytest.fixture
async def blobs(place: Place) -> AsyncIterator[Blobs]:
    async with open_blobs(place.settings) as opened:
        yield opened


@pytest.fixture
async def targets(place: Place, blobs: Blobs) -> AsyncIterator[Targets]:
    async with open_targets(blobs, place.settings) as opened:
        yield opened


@pytest.fixture
async def wire(place: Place, blobs: Blobs) -> AsyncIterator[httpx.AsyncClient]:
    async with open_wire(blobs, place.settings) as opened:
        yield opened


def begin(wire: httpx.AsyncClient, target: UploadTarget) -> Upload:
    return Upload(wire, str(httpx.URL(STORAGE_URL).join(target.url)), {})


def described(content: bytes) -> SentVideo:
    checksum = google_crc32c.value(content).to_bytes(4)
    return SentVideo(size=len(content), crc32c=base64.b64encode(checksum).decode())


async def content(blobs: Blobs, filename: str, kind: Kind = "video") -> bytes | None:
    """What a viewer gets; None if it is not there."""
    address = await blobs.address(filename, kind, "video/mp4", "GET")
    if isinstance(address, LocalFile):
        return address.path.read_bytes() if address.path.exists() else None
    return await asyncio.to_thread(gcs.fetched, address.url)


@pytest.mark.parametrize(("chunk", "piece"), [(999, 4 * UNIT), (UNIT, UNIT), (1_000_000, target.LARGEST_PIECE)])
async def test_what_is_sent_arrives_to_the_byte_and_viewers_get_it(
    blobs: Blobs, targets: Targets, monkeypatch: pytest.MonkeyPatch, chunk: int, piece: int
) -> None:
    monkeypatch.setattr(target, "LARGEST_PIECE", piece)
    for size in (1, 2, UNIT - 1, UNIT, UNIT + 1, 1_000_000, 9_000_000):
        name, whole = f"video{size}", CONTENT[:size]
        opened = await blobs.open_target(name, size, None)
        assert await targets.send(opened.target, pieces(whole, chunk)) == described(whole)
        assert await blobs.arrived(name) == described(whole)
        await blobs.finish(name, size, b"\xff\xd8\r\n\0jpeg")
        assert await content(blobs, name) == whole
        assert await content(blobs, name, "thumbnail") == b"\xff\xd8\r\n\0jpeg"


async def test_nothing_has_arrived_before_there_are_bytes(blobs: Blobs) -> None:
    assert await blobs.arrived("video") is None
    await blobs.open_target("video", 100, None)
    assert await blobs.arrived("video") is None


async def test_a_part_of_a_video_is_not_taken_for_the_whole(
    blobs: Blobs, wire: httpx.AsyncClient, place: Place
) -> None:
    opened = await blobs.open_target("video", 2 * UNIT, None)
    await begin(wire, opened.target).append([CONTENT[:UNIT]])
    assert await blobs.arrived("video") == (None if place.cloud else described(CONTENT[:UNIT]))


async def test_a_target_that_is_opened_again_leads_to_the_same_bytes(blobs: Blobs, wire: httpx.AsyncClient) -> None:
    opened = await blobs.open_target("video", 3 * UNIT, None)
    sending = begin(wire, opened.target)
    await sending.append([CONTENT[:UNIT]])
    assert await blobs.open_target("video", 3 * UNIT, opened.session) == opened
    await sending.finish([CONTENT[UNIT : 2 * UNIT + 5]])
    assert await blobs.arrived("video") == described(CONTENT[: 2 * UNIT + 5])


async def test_a_finished_video_never_changes(blobs: Blobs, targets: Targets, place: Place) -> None:
    opened, sent = await upload(blobs, targets, "video", b"the first")
    await blobs.finish("video", sent.size, b"jpeg")
    there = place.everything()
    with suppress(ServiceError):
        await targets.send(opened.target, pieces(b"the second"))
    for session in (opened.session, None):
        with suppress(ServiceError):
            again = await blobs.open_target("video", 100, session)
            await targets.send(again.target, pieces(b"the third"))
    assert await content(blobs, "video") == b"the first"
    assert place.everything() == there


@pytest.mark.parametrize("error", [Unavailable("down"), RuntimeError("a bug"), asyncio.CancelledError()])
@pytest.mark.parametrize("before", [0, 10, 500_000])
async def test_an_upload_whose_source_fails_can_be_removed_and_begun_anew(
    blobs: Blobs, targets: Targets, place: Place, monkeypatch: pytest.MonkeyPatch, before: int, error: BaseException
) -> None:
    async def source() -> AsyncIterator[bytes]:
        if before:
            yield bytes(before)
        raise error

    monkeypatch.setattr(target, "LARGEST_PIECE", UNIT)
    opened = await blobs.open_target("video", 1_000_000, None)
    with pytest.raises(type(error)):
        await targets.send(opened.target, source())
    await blobs.remove("video", opened.session)
    assert place.everything() == {}
    _, sent = await upload(blobs, targets, "video", CONTENT[:1_000_000])
    assert await blobs.arrived("video") == sent


async def test_removal_at_any_stage_leaves_nothing_and_repeats(
    blobs: Blobs, targets: Targets, wire: httpx.AsyncClient, place: Place
) -> None:
    sessions: dict[str, str | None] = {"unknown": None}
    sessions["open"] = (await blobs.open_target("open", 10, None)).session
    half = await blobs.open_target("half-sent", 2 * UNIT, None)
    await begin(wire, half.target).append([CONTENT[:UNIT]])
    sessions["half-sent"] = half.session
    sessions["arrived"] = (await upload(blobs, targets, "arrived", b"video"))[0].session
    sessions["finished"] = (await upload(blobs, targets, "finished", b"video"))[0].session
    await blobs.finish("finished", 5, b"jpeg")
    await upload(blobs, targets, "other", b"stays there")
    for _ in range(2):
        for filename, session in sessions.items():
            await blobs.remove(filename, session)
        assert list(place.everything().values()) == [11]


async def test_a_target_that_is_removed_takes_no_more_bytes_and_nothing_appears_later(
    blobs: Blobs, targets: Targets, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "LARGEST_PIECE", UNIT)
    opened = await blobs.open_target("video", 10 * UNIT, None)

    async def source() -> AsyncIterator[bytes]:
        yield CONTENT[: UNIT + 1]
        yield CONTENT[UNIT + 1 : 3 * UNIT]
        await blobs.remove("video", opened.session)
        yield CONTENT[3 * UNIT : 5 * UNIT]

    with pytest.raises(Conflict):
        await targets.send(opened.target, source())
    assert place.everything() == {}
    assert await blobs.arrived("video") is None


async def test_a_hostile_filename_never_leaves_the_root(blobs: Blobs, place: Place) -> None:
    outside = place.settings.data_dir.parent / "x"
    outside.write_bytes(b"not ours")
    for filename in HOSTILE:
        with pytest.raises(NotFound):
            await blobs.open_target(filename, 10, None)
        with pytest.raises(NotFound):
            await blobs.arrived(filename)
        with pytest.raises(NotFound):
            await blobs.finish(filename, 4, b"evil")
        with pytest.raises(NotFound):
            await blobs.remove(filename, None)
        with pytest.raises(NotFound):
            blobs.source(filename, 10)
        with pytest.raises(NotFound):
            await blobs.address(filename, "video", "video/mp4", "GET")
    assert place.everything() == {}
    assert outside.read_bytes() == b"not ours"


async def test_every_filename_that_can_be_one_is_taken(blobs: Blobs, targets: Targets) -> None:
    for filename in ("-", "_", "--help", "A", "a", "x" * 64, "CON", "aa-_09"):
        opened, sent = await upload(blobs, targets, filename, filename.encode())
        await blobs.finish(filename, sent.size, b"jpeg")
        assert await content(blobs, filename) == filename.encode()
        await blobs.remove(filename, opened.session)


async def test_what_has_arrived_is_read_for_inspection_in_any_part(blobs: Blobs, targets: Targets) -> None:
    whole = CONTENT[:1_000_000]
    opened, _ = await upload(blobs, targets, "video", whole)
    source = blobs.source("video", 1_000_000)
    if isinstance(source, Path):
        assert source.read_bytes() == whole
        await blobs.remove("video", opened.session)
        assert not source.exists()
        return
    assert source.size == 1_000_000
    for start, length in ((0, 1), (0, 1_000_000), (999_999, 1), (262_143, 2)):
        assert await source.read(start, length) == whole[start : start + length]
    with pytest.raises(Unavailable):
        await source.read(999_999, 2)
    await blobs.remove("video", opened.session)
    with pytest.raises(Unavailable):
        await source.read(0, 1)


async def test_a_place_that_is_there_says_so(blobs: Blobs) -> None:
    await blobs.ping()
