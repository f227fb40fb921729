"""What every place for objects promises, over every backend."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import gcs
import psutil
import pytest

from shared.errors import Conflict, NotFound, TooLarge, Unavailable
from storage_service.blobs import Blobs, Kind, open_blobs
from storage_service.config import Settings

CONTENT = random.Random(1).randbytes(1_000_000)
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
def everything(place: Place) -> Callable[[], dict[str, int]]:
    return place.everything


async def stored(blobs: Blobs, filename: str, chunks: AsyncIterator[bytes], limit: int) -> int:
    """Written and finished; its size."""
    size = await blobs.write(filename, chunks, limit)
    await blobs.finish(filename, b"\xff\xd8\r\n\0jpeg")
    return size


async def content(blobs: Blobs, filename: str, kind: Kind = "video") -> bytes | None:
    """What a viewer gets; None if it is not there."""
    address = await blobs.address(filename, kind, "video/mp4", "GET")
    if isinstance(address, Path):
        return address.read_bytes() if address.exists() else None
    return await asyncio.to_thread(gcs.fetched, address)


async def pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("piece", [999, 262_144, 1_000_000])
async def test_what_is_written_is_there_to_the_byte(blobs: Blobs, piece: int) -> None:
    for size in (0, 1, 2, 262_143, 262_144, 262_145, 1_000_000):
        assert await stored(blobs, f"film{size}", pieces(CONTENT[:size], piece), size) == size
        assert await content(blobs, f"film{size}") == CONTENT[:size]
    assert await content(blobs, "film1", "thumbnail") == b"\xff\xd8\r\n\0jpeg"


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
    for late in (b"third", b"fourth"):
        with pytest.raises(Conflict):
            await blobs.write("film", pieces(late), 100)
        if late == b"third":
            await blobs.finish("film", b"jpeg")
    assert await content(blobs, "film") == b"first"


async def test_many_writers_of_one_filename_at_once_have_one_winner_and_his_bytes_stay(
    blobs: Blobs, everything: Callable[[], dict[str, int]]
) -> None:
    for number in range(10):
        written = await asyncio.gather(
            *(blobs.write(f"film{number}", pieces(bytes([writer]) * 50), 50) for writer in range(8)),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in written) == ["Conflict"] * 7 + ["int"]
        await blobs.finish(f"film{number}", b"jpeg")
        assert await content(blobs, f"film{number}") == bytes([written.index(50)]) * 50
    assert sorted(everything().values()) == [4] * 10 + [50] * 10


async def test_what_is_removed_is_gone_wherever_it_stood_and_removing_again_is_fine(
    blobs: Blobs, everything: Callable[[], dict[str, int]]
) -> None:
    await stored(blobs, "film", pieces(CONTENT), 1_000_000)
    await blobs.write("arrived", pieces(CONTENT), 1_000_000)
    await blobs.write("other", pieces(b"stays"), 5)
    for _ in range(2):
        for filename in ("film", "arrived", "unknown"):
            await blobs.remove(filename)
        assert list(everything().values()) == [5]
    assert await content(blobs, "film") is None


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


async def test_a_hostile_filename_never_leaves_the_root(
    blobs: Blobs, everything: Callable[[], dict[str, int]], place: Place
) -> None:
    outside = place.settings.data_dir.parent / "x"
    outside.write_bytes(b"not ours")
    for filename in HOSTILE:
        with pytest.raises(NotFound):
            await blobs.write(filename, pieces(b"evil"), 10)
        with pytest.raises(NotFound):
            await blobs.finish(filename, b"evil")
        with pytest.raises(NotFound):
            await blobs.remove(filename)
        with pytest.raises(NotFound):
            blobs.source(filename, 10)
        with pytest.raises(NotFound):
            await blobs.address(filename, "video", "video/mp4", "GET")
    assert everything() == {}
    assert outside.read_bytes() == b"not ours"


async def test_every_filename_that_can_be_one_is_taken(blobs: Blobs) -> None:
    for filename in ("-", "_", "--help", "A", "a", "x" * 64, "CON", "aa-_09"):
        await stored(blobs, filename, pieces(filename.encode()), 64)
        assert await content(blobs, filename) == filename.encode()
        await blobs.remove(filename)


async def test_what_was_written_is_read_for_inspection_in_any_part(blobs: Blobs) -> None:
    await blobs.write("film", pieces(CONTENT), 1_000_000)
    source = blobs.source("film", 1_000_000)
    if isinstance(source, Path):
        assert source.read_bytes() == CONTENT
        await blobs.remove("film")
        assert not source.exists()
        return
    assert source.size == 1_000_000
    for start, length in ((0, 1), (0, 1_000_000), (999_999, 1), (262_143, 2)):
        assert await source.read(start, length) == CONTENT[start : start + length]
    with pytest.raises(Unavailable):
        await source.read(999_999, 2)
    await blobs.remove("film")
    with pytest.raises(Unavailable):
        await source.read(0, 1)


async def test_a_place_that_is_there_says_so(blobs: Blobs) -> None:
    await blobs.ping()
