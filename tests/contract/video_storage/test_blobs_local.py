"""What the folder promises beyond what every place for objects does: about a full disk, threads, and a power cut."""

import asyncio
import math
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.errors import Conflict, ServiceError, Unavailable
from storage_service.blobs import Blobs, open_blobs
from storage_service.blobs import local as local_blobs
from storage_service.config import Settings

CONTENT = random.Random(1).randbytes(1_000_000)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(Settings)


@pytest.fixture
async def blobs(settings: Settings) -> AsyncIterator[Blobs]:
    async with open_blobs(settings) as opened:
        yield opened


@pytest.fixture
def everything(settings: Settings) -> Callable[[], dict[str, int]]:
    """All files there are, with their sizes."""
    root = settings.data_dir

    def look() -> dict[str, int]:
        return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}

    return look


async def pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def written_and_finished(blobs: Blobs) -> int:
    size = await blobs.write("film", pieces(CONTENT), 1_000_000)
    await blobs.finish("film", b"jpeg")
    return size


async def test_a_disk_that_does_not_take_bytes_is_a_503(
    blobs: Blobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", full)
        with pytest.raises(Unavailable):
            await blobs.write("film", pieces(CONTENT), 1_000_000)
        assert everything() == {}
    await blobs.write("film", pieces(CONTENT), 1_000_000)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(Unavailable):
            await blobs.finish("film", b"jpeg")
    assert not [path for path in everything() if path.startswith("objects")]
    await blobs.remove("film")
    assert everything() == {}
    await blobs.ping()


async def test_a_root_that_is_gone_is_a_503(blobs: Blobs, settings: Settings) -> None:
    await blobs.write("written", pieces(b"x"), 1)
    settings.data_dir.rename(settings.data_dir.with_name("elsewhere"))
    calls: list[Callable[[], object]] = [
        blobs.ping,
        lambda: blobs.write("film", pieces(b"x"), 1),
        lambda: blobs.finish("written", b"jpeg"),
    ]
    for call in calls:
        with pytest.raises(ServiceError) as refusal:
            await call()  # type: ignore[misc]
        assert refusal.value.status == 503


class Held:
    """A function of the disk that does not come back before it is let go."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.running, self.let_go = threading.Event(), threading.Event()

    def __call__(self, *given: object, **named: object) -> object:
        self.running.set()
        assert self.let_go.wait(10)
        return self.function(*given, **named)


@pytest.mark.parametrize("step", ["_create", "_write", "_write_last", "fsync", "_sync_folder"])
async def test_a_write_that_is_cancelled_waits_for_its_thread_and_leaves_nothing(
    blobs: Blobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A file closed under a running thread would be another upload's file a moment later: descriptors are reused."""
    holder = os if step == "fsync" else local_blobs
    held = Held(getattr(holder, step))
    with monkeypatch.context() as slow:
        slow.setattr(holder, step, held)
        slow.setattr(blobs, "_wary_until", math.inf)
        writing = asyncio.create_task(written_and_finished(blobs))
        await asyncio.to_thread(held.running.wait, 10)
        writing.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not writing.done()
        held.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert everything() == {} or step in ("fsync", "_sync_folder")
    await blobs.remove("film")
    assert everything() == {}
    assert await written_and_finished(blobs) == 1_000_000


async def test_a_disk_that_lets_a_write_wait_is_waited_for_by_threads_for_a_while(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev, writers, clock = os.writev, list[bool](), SimpleNamespace(now=1000.0)
    seconds = iter([0.0, 2 * local_blobs.SLOW])

    def watched(descriptor: int, pieces: Sequence[memoryview]) -> int:
        writers.append(threading.current_thread() is threading.main_thread())
        clock.now += next(seconds, 0.0)
        return writev(descriptor, pieces)

    monkeypatch.setattr(os, "writev", watched)
    monkeypatch.setattr(local_blobs, "time", SimpleNamespace(monotonic=lambda: clock.now))
    await written_and_finished(blobs)
    assert writers == [True, True, False, False], "the second was slow; and the end is a thread's in any case"
    clock.now += local_blobs.WARY
    await blobs.write("film2", pieces(CONTENT), 1_000_000)
    assert writers[4:] == [True, True, True, False]


async def test_what_the_disk_is_to_begin_with_is_written_by_a_thread(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    fadvise, advisers = os.posix_fadvise, list[tuple[bool, int, int]]()

    def watched(descriptor: int, start: int, length: int, advice: int) -> None:
        advisers.append((threading.current_thread() is threading.main_thread(), start, length))
        fadvise(descriptor, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", watched)
    monkeypatch.setattr(local_blobs, "BEGUN", 500_000)
    await blobs.write("film", pieces(CONTENT), 1_000_000)
    assert advisers == [(False, 0, 524_288), (False, 524_288, 475_712)]


async def test_an_object_is_on_the_disk_before_it_has_its_name(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
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
    await written_and_finished(blobs)
    assert done == [*written, "sync", *named, "sync"], "both files, the folder that is new, their names in it"
    done.clear()
    await blobs.write("film2", pieces(b"film"), 4)
    await blobs.finish("film2", b"jpeg")
    assert done == [*written, *named, "sync"]


async def test_an_object_removed_before_it_is_finished_does_not_appear(
    blobs: Blobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await blobs.write("film", pieces(CONTENT), 1_000_000)
    await blobs.remove("film")
    with pytest.raises(Conflict):
        await blobs.finish("film", b"jpeg")
    await blobs.write("film", pieces(CONTENT), 1_000_000)
    held = Held(os.fsync)
    with monkeypatch.context() as slow:
        slow.setattr(os, "fsync", held)
        finishing = asyncio.create_task(blobs.finish("film", b"jpeg"))
        await asyncio.to_thread(held.running.wait, 10)
        removing = asyncio.create_task(blobs.remove("film"))
        await removing
        held.let_go.set()
        with pytest.raises(Conflict):
            await finishing
    assert everything() == {}
