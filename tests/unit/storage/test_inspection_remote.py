"""A file that is none of this machine is judged as one that is, and no judge takes more of it than there is."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import videos

from shared.errors import Unavailable
from storage_service import inspection
from storage_service.inspection import Inspector, NotAVideo
from storage_service.lending import MOST_AT_ONCE

PATIENT = 60.0  # seconds, for a film that is fine on a machine that is busy
HOSTILE = (sys.executable, "-P", str(Path(__file__).with_name("hostile.py")))
FILMS: dict[str, Callable[[], bytes]] = {
    "mp4": videos.mp4,
    "fragmented": lambda: videos.mp4(fragmented=True),
    "MediaRecorder": lambda: videos.webm(live=True, audio=True),
    "4K": lambda: videos.mp4(seconds=0.2, width=3840, height=2160),
    "a page behind": videos.html_polyglot,
    "a film cut short": videos.truncated,
    "a bomb": videos.header_only_huge,
    "a huge frame": videos.absurd_frame,
    "nothing": bytes,
}


class Far:
    """``wait`` is for each part, in seconds; ``failure`` comes instead of the second one."""

    def __init__(self, content: bytes, *, wait: float = 0, failure: Exception | None = None) -> None:
        self.content = content
        self.size = len(content)
        self.wait = wait
        self.failure = failure
        self.reads = 0

    async def read(self, start: int, length: int) -> bytes:
        assert 0 < length <= MOST_AT_ONCE
        assert start + length <= self.size
        self.reads += 1
        if self.failure and self.reads > 1:
            raise self.failure
        await asyncio.sleep(self.wait)
        return self.content[start : start + length]


def large(beginning: bytes = b"") -> bytes:
    return beginning.ljust(16) + bytes(1_000_000)


async def outcome(inspector: Inspector, source: Path | Far) -> str:
    try:
        return str(await inspector.inspect(source))
    except NotAVideo as refusal:
        return str(refusal)


async def test_the_verdict_is_the_same_from_afar(tmp_path: Path) -> None:
    async with Inspector() as inspector:
        for kind, make in FILMS.items():
            film = make()
            (tmp_path / "film").write_bytes(film)
            assert await outcome(inspector, Far(film)) == await outcome(inspector, tmp_path / "film"), kind


async def test_a_storage_that_fails_meanwhile_is_not_the_films_fault() -> None:
    film = videos.mp4() + b"\0\x10\0\0free" + bytes(2**20 - 8) + b"\0\0\0\x08free"
    down = Unavailable("The storage does not answer.")
    async with Inspector(judges=1) as inspector:
        with pytest.raises(Unavailable) as raised:
            await inspector.inspect(Far(film, failure=down))
        assert raised.value is down
        assert (await inspector.inspect(Far(film))).width == 320


async def test_a_judges_time_stands_still_while_the_storage_is_slow() -> None:
    film = videos.mp4()
    async with Inspector(judges=1, seconds=2) as inspector:
        assert (await inspector.inspect(Far(film, wait=2.2))).width == 320


async def test_a_storage_that_is_too_slow_is_not_the_films_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "LENDING_SECONDS", 0.3)
    async with Inspector(judges=1) as inspector:
        with pytest.raises(Unavailable):
            await inspector.inspect(Far(videos.mp4(), wait=5))


async def test_a_judge_who_asks_without_end_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "LENDING_SECONDS", 0.3)
    began = time.monotonic()
    async with Inspector(judges=1, seconds=0.5, server=HOSTILE) as inspector:
        with pytest.raises((Unavailable, NotAVideo)):
            await inspector.inspect(Far(large(b"endless")))
        assert time.monotonic() - began < 15, "not as long as a storage may take by default"
        monkeypatch.undo()
        inspector.seconds = PATIENT
        assert (await inspector.inspect(Far(videos.mp4()))).width == 320


async def test_a_judge_who_asks_for_nonsense_is_broken() -> None:
    async with Inspector(judges=1, server=HOSTILE) as inspector:
        for beginning in (b"beyond", b"before", b"nothing", b"everything", b"half"):
            with pytest.raises(NotAVideo, match="limits of time and memory"):
                await inspector.inspect(Far(large(beginning)))
            assert (await inspector.inspect(Far(videos.mp4()))).width == 320


async def test_a_judge_who_sleeps_over_a_lent_file_is_woken_by_nobody() -> None:
    async with Inspector(judges=1, seconds=0.5, server=HOSTILE) as inspector:
        with pytest.raises(NotAVideo, match=r"within 0\.5 seconds"):
            await inspector.inspect(Far(large(b"sleeps")))
        inspector.seconds = PATIENT
        assert (await inspector.inspect(Far(videos.mp4()))).width == 320


async def test_many_are_lent_to_at_once() -> None:
    films = [videos.mp4(seconds=0.2, width=32 * number, height=64) for number in range(1, 9)]
    async with Inspector() as inspector:
        found = await asyncio.gather(*[inspector.inspect(Far(film, wait=0.01)) for film in films])
    assert [one.width for one in found] == [32 * number for number in range(1, 9)]
