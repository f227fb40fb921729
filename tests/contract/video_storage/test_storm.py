"""Many people at once while networks and databases fail at random: afterwards all services tell one story, to the byte.

Any call to a peer or a database may be refused, or be done and its answer lost. What a page was promised must hold all
the same.
"""

import asyncio
import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from contract.video_storage.house import House, Person, film, form, open_house
from quickfolder import quick_folder

from shared.clock import utc_now
from shared.errors import Unavailable

T = TypeVar("T")
PEOPLE, DEEDS = 6, 16
VIDEOS = "http://video-service/api/videos"
MB = 1_048_576


class Weather:
    """``luck`` is the share of calls between services, and to their databases, that come through unharmed."""

    def __init__(self, house: House, dice: random.Random) -> None:
        self.luck = 1.0
        self._dice = dice
        self._connect = house.switchboard.handle_async_request
        house.switchboard.handle_async_request = self.connect  # type: ignore[method-assign]
        context = house.app("video-service").state.context
        videos, uploads = context.videos, context.uploads
        videos._store = uploads._store = videos._outbox._store = Flaky(videos._store, self)
        for rules in (
            house.app("storage-service").state.context.storage,
            house.app("usage-service").state.context.usage,
        ):
            rules._store = Flaky(rules._store, self)

    async def connect(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.startswith("/internal"):
            return await self._connect(request)
        return await self.through(
            lambda: self._connect(request),
            httpx.ConnectError("refused", request=request),
            httpx.ReadError("the answer is lost", request=request),
        )

    async def through(self, call: Callable[[], Awaitable[T]], before: Exception, after: Exception) -> T:
        harm = self._dice.random() >= self.luck
        if harm and self._dice.random() < 0.5:
            raise before
        answer = await call()
        if harm:
            raise after
        return answer


class Flaky:
    """A store out in the weather."""

    def __init__(self, store: Any, weather: Weather) -> None:
        self._store = store
        self._weather = weather

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        away = Unavailable("The database does not answer.")

        async def call(*given: Any, **named: Any) -> Any:
            return await self._weather.through(lambda: method(*given, **named), away, away)

        return call


async def live(person: Person, dice: random.Random, uploaded: set[str], deleted: set[str]) -> None:
    """One person's deeds; what was promised is noted."""
    mine: list[str] = []
    for _ in range(DEEDS):
        deed = dice.random()
        if deed < 0.5:
            answer = await person.upload(film(dice.randrange(3_000, 400_000)))
            assert answer.status_code in (200, 409, 413, 503), answer.text
            if answer.status_code == 200:
                mine.append(answer.json()["file"]["filename"])
                uploaded.add(mine[-1])
        elif deed < 0.6:
            answer = await person.upload(b"<html>")
            assert answer.status_code in (409, 413, 415, 503), answer.text
        elif deed < 0.7:
            with suppress(OSError):  # unless it is refused before anything is read
                await person.ask("POST", f"{VIDEOS}/upload", content=_cut(), headers={"Content-Type": form(b"", "")[1]})
        elif deed < 0.95 and mine:
            name = mine.pop(dice.randrange(len(mine)))
            answer = await person.ask("DELETE", f"{VIDEOS}/delete/{name}")
            assert answer.status_code in (200, 503), answer.text
            deleted.update([name] if answer.status_code == 200 else [])
        elif deed >= 0.95:
            answer = await person.ask("DELETE", f"{VIDEOS}/delete-all")
            assert answer.status_code in (200, 503), answer.text
            deleted.update(mine if answer.status_code == 200 else [])
            mine.clear()


async def _cut() -> AsyncIterator[bytes]:
    yield form(film(100_000), "Cut")[0][:50_000]
    raise OSError("the line is cut")


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def settle(house: House) -> None:
    """Time passes with good weather, and everybody sweeps."""
    videos = house.app("video-service").state.context.videos
    storage, usage = house.app("storage-service").state.context.storage, house.app("usage-service").state.context.usage
    for whose in (videos, videos._outbox, storage, usage):
        whose._clock = lambda: utc_now() + timedelta(hours=1)
    for _ in range(3):
        for service in ("storage-service", "video-service", "usage-service"):
            await house.sweep(service)


async def sweep_on(house: House) -> None:
    """The sweepers, at work all the time; what they ask may fail like everything else."""
    headers = {"Authorization": f"Bearer {house.tokens.for_service()}"}
    while True:
        for service in ("storage-service", "video-service", "usage-service"):
            with suppress(httpx.TransportError):
                await house.client.post(f"http://{service}/internal/sweep", headers=headers)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("seed", "lease"), [(1, 300), (2, 0.1)], ids=["long leases", "leases that run out"])
async def test_after_the_storm_every_byte_is_where_it_belongs(seed: int, lease: float) -> None:
    dice = random.Random(seed)
    with quick_folder() as folder:
        async with open_house(folder, daily_bandwidth_mb=1000, reservation_seconds=lease) as house:
            people = [await house.person() for _ in range(PEOPLE)]
            uploaded: set[str] = set()
            deleted: set[str] = set()
            weather = Weather(house, dice)
            weather.luck = 0.9
            sweeper = asyncio.create_task(sweep_on(house))
            lives = [random.Random(seed * 100 + number) for number in range(PEOPLE)]
            try:
                await asyncio.gather(
                    *(live(person, life, uploaded, deleted) for person, life in zip(people, lives, strict=True))
                )
            finally:
                sweeper.cancel()
            weather.luck = 1.0
            await settle(house)
            video, storage, usage = (folder / f"{name}-service/{name}.db" for name in ("video", "storage", "usage"))
            catalogue = rows(video.with_name("videos.db"), "SELECT user_id, filename, size_mb, deleted_at FROM videos")
            owed = rows(video.with_name("videos.db"), "SELECT kind FROM videos_outbox")
            objects = rows(storage, "SELECT filename, size FROM storage_objects WHERE state = 'kept'")
            ledger = rows(storage, "SELECT user_id, kept, reserved FROM storage_ledger")
            figures = "sum(uploaded), sum(uploads), sum(deletions)"
            days = rows(usage, f"SELECT user_id, {figures} FROM usage_days GROUP BY user_id")
            files = {path.name for path in (folder / "storage-service/objects").rglob("*") if path.is_file()}
            incoming = list((folder / "storage-service/incoming").iterdir())

    alive = {name: size * MB for _, name, size, gone in catalogue if gone is None}
    assert uploaded <= {name for _, name, _, _ in catalogue}, "what was promised is not there"
    assert not deleted & alive.keys(), "what was deleted is still there"
    assert owed == []
    assert dict(objects) == alive
    assert files == {name + suffix for name in alive for suffix in (".video", ".jpg")}
    assert incoming == []
    kept: Counter[str] = Counter()
    counted: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0])
    for user, _, size, gone in catalogue:
        kept[user] += int(size * MB) if gone is None else 0
        for figure, by in enumerate((size * MB, 1, gone is not None)):
            counted[user][figure] += by
    assert all((held, reserved) == (kept[user], 0) and held <= MB for user, held, reserved in ledger), (
        "the ledger is not exact"
    )
    assert {user: [*figures] for user, *figures in days} == counted
    assert len(uploaded) >= PEOPLE / 2
    assert deleted
