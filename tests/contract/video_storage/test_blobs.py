"""What every place for objects promises, over every backend."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from shared.errors import Conflict, NotFound, ServiceError, TooLarge, Unavailable
from storage_service.blobs import Blobs, open_blobs
from storage_service.blobs import local as local_blobs
from storage_service.config import Settings

CONTENT = random.Random(1).randbytes(1_000_000)
HOSTILE = ["../x", "..", ".", "", "a/b", "/etc/passwd", "a\\b", "a.b", "a\0b", "a\n", "ä", "x" * 300, "%2e%2e%2fx"]


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(Settings)


@pytest.fixture(params=["local"])
async def blobs(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Blobs]:
    assert request.param == "local"
    async with open_blobs(settings) as opened:
        yield opened


@pytest.fixture
def everything(settings: Settings) -> Callable[[], dict[str, int]]:
    """All files there are, by their path below the root's parent, with their sizes."""
    root = settings.data_dir.parent

    def look() -> dict[str, int]:
        return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}

    return look


@pytest.fixture(autouse=True)
def _no_file_stays_open(settings: Settings) -> Iterator[None]:
    yield
    assert not [file.path for file in psutil.Process().open_files() if file.path.startswith(str(settings.data_dir))]


async def pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 262_143, 262_144, 262_145, 1_000_000])
@pytest.mark.parametrize("piece", [999, 262_144, 1_000_000])
async def test_what_is_written_is_there_to_the_byte(blobs: Blobs, size: int, piece: int) -> None:
    assert await blobs.write("film", pieces(CONTENT[:size], piece), size) == size
    await blobs.write_thumbnail("film", b"jpeg")
    assert blobs.path("film", "video").read_bytes() == CONTENT[:size]
    assert blobs.path("film", "thumbnail").read_bytes() == b"jpeg"


@pytest.mark.parametrize("limit", [1, 1000, 262_144, 999_999])
async def test_the_limit_is_exact_and_one_byte_over_it_leaves_nothing(
    blobs: Blobs, everything: Callable[[], dict[str, int]], limit: int
) -> None:
    with pytest.raises(TooLarge):
        await blobs.write("over", pieces(CONTENT[: limit + 1], 1000), limit)
    assert everything() == {}
    assert await blobs.write("fits", pieces(CONTENT[:limit], 1000), limit) == limit


async def test_no_more_is_read_than_shows_that_it_is_too_much(blobs: Blobs) -> None:
    read = []

    async def source() -> AsyncIterator[bytes]:
        for number in range(100):
            read.append(number)
            yield bytes(1000)

    with pytest.raises(TooLarge):
        await blobs.write("film", source(), 2500)
    assert read == [0, 1, 2]


@pytest.mark.parametrize("error", [Unavailable("down"), RuntimeError("a bug"), asyncio.CancelledError()])
@pytest.mark.parametrize("before", [0, 10, 500_000])
async def test_a_source_that_fails_leaves_nothing_and_its_error_rises_as_it_is(
    blobs: Blobs, everything: Callable[[], dict[str, int]], before: int, error: BaseException
) -> None:
    async def source() -> AsyncIterator[bytes]:
        if before:
            yield bytes(before)
        raise error

    with pytest.raises(type(error)) as raised:
        await blobs.write("film", source(), 1_000_000)
    assert raised.value is error or isinstance(error, asyncio.CancelledError)
    assert everything() == {}
    assert await blobs.write("film", pieces(CONTENT), 1_000_000) == 1_000_000


async def test_one_filename_is_written_by_one_and_once(blobs: Blobs) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        begun.set()
        await go_on.wait()

    first = asyncio.create_task(blobs.write("film", slow(), 100))
    await begun.wait()
    with pytest.raises(Conflict):
        await blobs.write("film", pieces(b"second"), 100)
    go_on.set()
    assert await first == 5
    with pytest.raises(Conflict):
        await blobs.write("film", pieces(b"third"), 100)
    assert blobs.path("film", "video").read_bytes() == b"first"


async def test_many_writers_of_one_filename_at_once_have_one_winner_and_his_bytes_stay(
    blobs: Blobs, everything: Callable[[], dict[str, int]]
) -> None:
    for number in range(10):
        written = await asyncio.gather(
            *(blobs.write(f"film{number}", pieces(bytes([writer]) * 50), 50) for writer in range(8)),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in written) == ["Conflict"] * 7 + ["int"]
        assert blobs.path(f"film{number}", "video").read_bytes() == bytes([written.index(50)]) * 50
    assert set(everything().values()) == {50}
    assert len(everything()) == 10


async def test_what_is_removed_is_gone_wherever_it_stood_and_removing_again_is_fine(
    blobs: Blobs, everything: Callable[[], dict[str, int]]
) -> None:
    await blobs.write("film", pieces(CONTENT), 1_000_000)
    await blobs.write_thumbnail("film", b"jpeg")
    await blobs.write("other", pieces(b"stays"), 5)
    for _ in range(2):
        await blobs.remove("film")
        await blobs.remove("unknown")
        assert list(everything().values()) == [5]
    with pytest.raises(FileNotFoundError):
        blobs.path("film", "video").open()


async def test_an_object_removed_while_it_arrives_does_not_appear(
    blobs: Blobs, everything: Callable[[], dict[str, int]]
) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield CONTENT
        await blobs.remove("film")
        yield b"more"

    with pytest.raises(Conflict):
        await blobs.write("film", source(), 2_000_000)
    assert everything() == {}


@pytest.mark.parametrize("filename", HOSTILE)
async def test_a_hostile_filename_never_leaves_the_root(
    blobs: Blobs, everything: Callable[[], dict[str, int]], settings: Settings, filename: str
) -> None:
    outside = settings.data_dir.parent / "x"
    outside.write_bytes(b"not ours")
    with pytest.raises(NotFound):
        await blobs.write(filename, pieces(b"evil"), 10)
    with pytest.raises(NotFound):
        await blobs.write_thumbnail(filename, b"evil")
    with pytest.raises(NotFound):
        await blobs.remove(filename)
    with pytest.raises(NotFound):
        blobs.path(filename, "video")
    assert everything() == {"x": 8}


@pytest.mark.parametrize("filename", ["-", "_", "--help", "A", "a", "x" * 64, "CON", "aa-_09"])
async def test_every_filename_that_can_be_one_is_taken(blobs: Blobs, filename: str) -> None:
    await blobs.write(filename, pieces(b"film"), 4)
    await blobs.write_thumbnail(filename, b"jpeg")
    assert blobs.path(filename, "video").read_bytes() == b"film"
    await blobs.remove(filename)


async def test_a_disk_that_does_not_take_bytes_is_a_503(
    blobs: Blobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(Unavailable):
            await blobs.write("film", pieces(CONTENT), 1_000_000)
    assert everything() == {}
    await blobs.ping()


async def test_a_root_that_is_gone_is_a_503(blobs: Blobs, settings: Settings) -> None:
    settings.data_dir.rename(settings.data_dir.with_name("elsewhere"))
    calls: list[Callable[[], object]] = [
        blobs.ping,
        lambda: blobs.write("film", pieces(b"x"), 1),
        lambda: blobs.write_thumbnail("film", b"jpeg"),
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


@pytest.mark.parametrize("step", ["_create", "_write_all", "fsync", "_sync_folder"])
async def test_a_write_that_is_cancelled_waits_for_its_thread_and_leaves_nothing(
    blobs: Blobs, everything: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A file closed under a running thread would be another upload's file a moment later: descriptors are reused."""
    holder = os if step == "fsync" else local_blobs
    held = Held(getattr(holder, step))
    with monkeypatch.context() as slow:
        slow.setattr(holder, step, held)
        writing = asyncio.create_task(blobs.write("film", pieces(CONTENT), 1_000_000))
        await asyncio.to_thread(held.running.wait, 10)
        writing.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not writing.done()
        held.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert everything() == {}
    assert await blobs.write("film", pieces(CONTENT), 1_000_000) == 1_000_000


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
    await blobs.write("film", pieces(b"film"), 4)
    await blobs.write_thumbnail("film", b"jpeg")
    assert done == ["sync", "rename", "sync", "sync"] * 2, "the file, its name, the folders that hold the name"
