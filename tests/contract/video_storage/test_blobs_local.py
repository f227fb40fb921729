"""What the folder promises beyond what every place for objects does: about a full disk, threads, and a power cut."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from contract.video_storage.sending import STORAGE_URL, open_targets, open_wire, pieces, upload

from shared.contracts import UploadTarget
from shared.disk import Disk
from shared.errors import Conflict, NotFound, ServiceError, Unavailable
from storage_service.blobs import local, open_blobs
from storage_service.blobs.local import LocalBlobs
from storage_service.config import Settings
from video_service import target
from video_service.target import Targets

CONTENT = random.Random(1).randbytes(1_000_000)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(Settings, offer_upload_files=True)


@pytest.fixture
async def blobs(settings: Settings) -> AsyncIterator[LocalBlobs]:
    async with open_blobs(settings) as opened:
        assert isinstance(opened, LocalBlobs)
        yield opened


@pytest.fixture
async def targets(blobs: LocalBlobs, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Targets]:
    monkeypatch.setattr(target, "FIRST_PAUSE", 0.001)
    async with open_targets(blobs, settings) as opened:
        yield opened


@pytest.fixture
async def wire(blobs: LocalBlobs, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_wire(blobs, settings) as opened:
        yield opened


@pytest.fixture
def everything(settings: Settings) -> Callable[[], dict[str, int]]:
    """All files there are, with their sizes."""
    root = settings.data_dir

    def look() -> dict[str, int]:
        return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}

    return look


async def arrive(blobs: LocalBlobs, filename: str = "video", content: bytes = CONTENT) -> None:
    await blobs.open_target(filename, len(content), None)
    async with blobs.writer(filename) as writer:
        await writer.write(content)


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_a_full_disk_is_a_503_and_what_had_arrived_can_be_gone_on_with(
    blobs: LocalBlobs, wire: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await blobs.open_target("video", 1_000_000, None)

    async def put(start: int, stop: int, total: str) -> int:
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{total}"}
        return (await wire.put(STORAGE_URL + opened.target.url, content=CONTENT[start:stop], headers=span)).status_code

    assert await put(0, 600_000, "*") == 308
    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", full)
        assert await put(600_000, 1_000_000, "1000000") == 503
    assert await put(600_000, 1_000_000, "1000000") == 200
    assert blobs.source("video", 1_000_000).read_bytes() == CONTENT


async def test_a_sender_gives_up_on_a_disk_that_stays_full(
    blobs: LocalBlobs, targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await blobs.open_target("video", 1_000_000, None)
    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(Unavailable):
        await targets.send(opened.target, pieces(CONTENT))


async def test_a_video_that_cannot_be_synced_is_not_finished(
    blobs: LocalBlobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await arrive(blobs)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(Unavailable):
            await blobs.finish("video", 1_000_000, b"jpeg")
    assert not [path for path in everything() if path.startswith("objects")]
    await blobs.remove("video", None)
    assert everything() == {}
    await blobs.ping()


async def test_a_root_that_is_gone_is_a_503(blobs: LocalBlobs, settings: Settings) -> None:
    await arrive(blobs)
    settings.data_dir.rename(settings.data_dir.with_name("elsewhere"))
    calls = [
        blobs.ping(),
        blobs.open_target("another", 1, None),
        blobs.finish("video", 1_000_000, b"jpeg"),
    ]
    for call in calls:
        with pytest.raises(ServiceError) as refusal:
            await call
        assert refusal.value.status == 503


class Held:
    """A function of the disk that does not come back before it is let go."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.running, self.let_go = threading.Event(), threading.Event()

    def __call__(self, *given: object) -> object:
        self.running.set()
        assert self.let_go.wait(10)
        return self.function(*given)


async def stored(blobs: LocalBlobs) -> None:
    await arrive(blobs)
    await blobs.arrived("video")
    await blobs.finish("video", 1_000_000, b"jpeg")


@pytest.mark.parametrize("step", ["_create", "_size_and_checksum", "fsync", "_sync_folder"])
async def test_an_upload_that_is_cancelled_waits_for_its_thread_and_can_be_removed(
    blobs: LocalBlobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    holder = os if step == "fsync" else local
    held = Held(getattr(holder, step))
    with monkeypatch.context() as slow:
        slow.setattr(holder, step, held)
        storing = asyncio.create_task(stored(blobs))
        await asyncio.to_thread(held.running.wait, 10)
        storing.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not storing.done()
        held.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await storing
    await blobs.remove("video", None)
    assert everything() == {}
    await stored(blobs)


async def test_a_video_is_on_the_disk_before_it_has_its_name(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        done.append("sync")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    written, named = ["sync"] * 2, ["rename"] * 2
    for filename, expected in (
        ("video", [*written, "sync", *named, "sync"]),  # both files, the folder that is new, their names in it
        ("video2", [*written, *named, "sync"]),
    ):
        await arrive(blobs, filename)
        await blobs.finish(filename, 1_000_000, b"jpeg")
        assert done == expected
        done.clear()


async def test_a_video_removed_before_it_is_finished_does_not_appear(
    blobs: LocalBlobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await arrive(blobs)
    held = Held(os.fsync)
    with monkeypatch.context() as slow:
        slow.setattr(os, "fsync", held)
        finishing = asyncio.create_task(blobs.finish("video", 1_000_000, b"jpeg"))
        await asyncio.to_thread(held.running.wait, 10)
        await blobs.remove("video", None)
        held.let_go.set()
        with pytest.raises(Conflict):
            await finishing
    assert everything() == {}
    with pytest.raises(Conflict):
        await blobs.finish("video", 1_000_000, b"jpeg")


async def test_a_video_that_changed_after_it_was_inspected_is_not_finished(
    blobs: LocalBlobs, everything: Callable[[], dict[str, int]]
) -> None:
    await arrive(blobs)
    with pytest.raises(Unavailable):
        await blobs.finish("video", 999_999, b"jpeg")
    assert not [path for path in everything() if path.startswith("objects")]


async def test_a_finished_video_has_no_target_any_more(blobs: LocalBlobs, targets: Targets) -> None:
    opened, sent = await upload(blobs, targets, "video", CONTENT)
    await blobs.finish("video", sent.size, b"jpeg")
    with pytest.raises(Conflict) as refusal:
        await blobs.open_target("video", 1_000_000, None)
    assert refusal.value.code == "already_stored"
    with pytest.raises(NotFound):
        await blobs.received("video")
    with pytest.raises(Conflict):
        await targets.send(UploadTarget(url=opened.target.url), pieces(CONTENT))


async def test_a_request_that_began_before_the_end_of_an_upload_changes_nothing_after_it(blobs: LocalBlobs) -> None:
    await arrive(blobs)
    async with blobs.writer("video") as writer:
        sent = await blobs.arrived("video")
        assert sent
        await blobs.finish("video", sent.size, b"jpeg")
        with pytest.raises(Conflict):
            blobs.check_current("video", writer)
        await writer.write(b"more")
    assert blobs.path("video", "video").read_bytes() == CONTENT


async def test_a_target_takes_nothing_between_its_end_and_its_video(blobs: LocalBlobs, wire: httpx.AsyncClient) -> None:
    """While it is inspected, and while its file gets its name."""
    opened = await blobs.open_target("video", 2_000_000, None)
    async with blobs.writer("video") as writer:
        await writer.write(CONTENT)
    assert await blobs.arrived("video")
    more = {"Content-Range": "bytes 1000000-1000003/*"}
    answer = await wire.put(STORAGE_URL + opened.target.url, content=b"more", headers=more)
    assert answer.status_code in (404, 409)
    assert blobs.source("video", 1_000_000).read_bytes() == CONTENT


async def test_where_files_are_offered_the_bytes_are_written_without_a_request(
    blobs: LocalBlobs, settings: Settings
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError("no request is needed")

    opened = await blobs.open_target("video", 1_000_000, None)
    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        sent = await Targets(client, STORAGE_URL, Disk(settings.data_dir)).send(opened.target, pieces(CONTENT, 999))
    assert await blobs.arrived("video") == sent
    assert blobs.source("video", 1_000_000).read_bytes() == CONTENT


@pytest.mark.parametrize("offered", ["not/there", "."])
async def test_a_file_that_is_not_there_or_may_not_be_opened_is_gone_round_by_http(
    blobs: LocalBlobs, targets: Targets, settings: Settings, offered: str
) -> None:
    opened = await blobs.open_target("video", 1_000_000, None)
    elsewhere = UploadTarget(url=opened.target.url, file=str(settings.data_dir / offered))
    sent = await targets.send(elsewhere, pieces(CONTENT))
    assert await blobs.arrived("video") == sent
    assert not (settings.data_dir / "not").exists()


async def test_a_service_that_offers_no_files_names_none(make_settings: Callable[..., Settings]) -> None:
    async with open_blobs(make_settings(Settings)) as blobs:
        assert (await blobs.open_target("video", 1, None)).target.file is None
