"""Files written through the page cache: in the event loop while the disk is quick, by threads while it is not."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from shared import disk
from shared.disk import Disk, FileWriter, write_chunks
from shared.errors import Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Disk]:
    with closing(Disk(tmp_path)) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "video").write_bytes(b"")
    return tmp_path / "video"


class Held:
    """A function that does not come back before it is let go."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.running, self.let_go = threading.Event(), threading.Event()

    def __call__(self, *given: object) -> object:
        self.running.set()
        assert self.let_go.wait(10)
        return self.function(*given)


def content(path: Path) -> bytes:
    return path.read_bytes()


def in_the_loop() -> bool:
    return threading.current_thread() is threading.main_thread()


def test_a_disk_that_takes_a_part_of_what_it_is_given_gets_all_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def a_little(descriptor: int, chunks: Sequence[memoryview]) -> int:
        return os.write(descriptor, b"".join(chunks)[:3])

    monkeypatch.setattr(os, "writev", a_little)
    with path.open("wb") as file:
        write_chunks(file.fileno(), [b"one", b"", memoryview(b"two and"), b"three", b"!"], None)
    assert path.read_bytes() == b"onetwo andthree!"


async def test_a_writer_appends(folder: Disk, path: Path) -> None:
    for chunks, then in (((b"one", b"two"), b"onetwo"), ((b"", b"three"), b"onetwothree")):
        with closing(await FileWriter.open(folder, path)) as writer:
            for chunk in chunks:
                await writer.write(chunk)
            await writer.flush()
        assert (writer.size, content(path)) == (len(then), then)


async def test_a_writer_never_makes_a_file(folder: Disk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await FileWriter.open(folder, tmp_path / "unknown")
    assert os.listdir(tmp_path) == []


async def test_a_disk_that_refuses_is_a_503_whose_reason_only_the_operator_sees(
    folder: Disk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with closing(await FileWriter.open(folder, path)) as writer:
        await writer.write(b"video")
        with pytest.raises(Unavailable, match="does not answer") as refusal:
            await writer.flush()
    assert "No space left" in refusal.value.reason


async def test_errors_that_are_expected_rise_as_they_are(folder: Disk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await folder.run((tmp_path / "unknown").stat, expected=(FileNotFoundError,))
    with pytest.raises(Unavailable):
        await folder.run((tmp_path / "unknown").stat)


async def test_a_caller_that_is_cancelled_waits_for_its_thread(folder: Disk) -> None:
    """A file closed under a running thread would be another upload's file a moment later: descriptors are reused."""
    held = Held(lambda: None)
    running = asyncio.create_task(folder.run(held))
    await asyncio.to_thread(held.running.wait, 10)
    running.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not running.done()
    held.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_caller_that_is_cancelled_while_a_file_is_opened_leaves_none_open(
    folder: Disk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(os.lseek)
    monkeypatch.setattr(os, "lseek", held)
    opening = asyncio.create_task(FileWriter.open(folder, path))
    await asyncio.to_thread(held.running.wait, 10)
    opening.cancel()
    held.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert str(path) not in [file.path for file in psutil.Process().open_files()]


async def test_while_a_disk_is_slow_threads_write(folder: Disk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev, writers, clock = os.writev, list[bool](), SimpleNamespace(now=1000.0)
    seconds = iter([0.0, 2 * disk.SLOW_SECONDS])

    def watched(descriptor: int, chunks: Sequence[memoryview]) -> int:
        writers.append(in_the_loop())
        clock.now += next(seconds, 0.0)
        return writev(descriptor, chunks)

    monkeypatch.setattr(os, "writev", watched)
    monkeypatch.setattr(disk, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with closing(await FileWriter.open(folder, path)) as writer:
        for _ in range(4):
            await writer.write(bytes(disk.BLOCK_BYTES))
        assert writers == [True, True, False, False], "the second was slow"
        clock.now += disk.WARY_SECONDS
        await writer.write(bytes(disk.BLOCK_BYTES))
        assert writers[4:] == [True]
    assert len(content(path)) == 5 * disk.BLOCK_BYTES


async def test_write_back_is_started_by_a_thread_once_for_each_part(
    folder: Disk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fadvise, advice = os.posix_fadvise, list[tuple[bool, int, int]]()

    def watched(descriptor: int, start: int, length: int, kind: int) -> None:
        advice.append((in_the_loop(), start, length))
        fadvise(descriptor, start, length, kind)

    monkeypatch.setattr(os, "posix_fadvise", watched)
    monkeypatch.setattr(disk, "WRITE_BACK_BYTES", 2 * disk.BLOCK_BYTES)
    with closing(await FileWriter.open(folder, path)) as writer:
        for _ in range(5):
            await writer.write(bytes(disk.BLOCK_BYTES))
        await writer.flush()
    block = disk.BLOCK_BYTES
    assert advice == [(False, 0, 2 * block), (False, 2 * block, 2 * block)]


async def test_many_small_chunks_are_written_before_they_are_a_block(folder: Disk, path: Path) -> None:
    with closing(await FileWriter.open(folder, path)) as writer:
        for _ in range(disk.MOST_CHUNKS):
            await writer.write(b"x")
        assert len(content(path)) == disk.MOST_CHUNKS
