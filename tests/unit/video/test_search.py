"""A search finds exactly the live videos whose titles have what was asked for in them, whatever signs it is made of."""

import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from video_service.store import Video, titles
from video_service.store.sqlite import SqliteStore

ANN, BEN = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
# What means something to SQLite, to its full-text index, to JSON or to Unicode; few, so that they meet.
SIGNS = [
    *"aab AND OR NOT \"'*^:-+(){}%_\\/.,\n\t",
    *"äÄßſİıσςΣéẞ",
    "e\u0301",
    "\u0301",
    "\u200d",
    "👩",
    "🎬",
    "\U0010ffff",
]
SIGNS += [
    "\ufffd",
    "\ufffe",
    "\uffff",
    "\ue000",
    "\ud7ff",
    "\x01",
    "\x7f",
    "\x80",
    "NEAR",
    "title_key",
    "film",
    "abc",
    "中",
    "文",
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path / "videos.db") as store:
        yield store


def text(longest: int) -> str:
    return "".join(random.choice(SIGNS) for _ in range(random.randint(1, longest)))


def films(count: int) -> list[Video]:
    return [
        Video(
            uuid.uuid4(),
            random.choice([ANN, BEN]),
            f"f{number}",
            text(12),
            NOON + timedelta(seconds=random.randrange(count)),
            1,
            None,
            1,
            1,
        )
        for number in range(count)
    ]


async def verify(store: SqliteStore, live: list[Video], rounds: int) -> set[bool]:
    """Against Python's own ``in``; whether searches found something."""
    ways = set()
    newest = sorted(enumerate(live), key=lambda one: (one[1].uploaded_at, one[0]), reverse=True)
    for _ in range(rounds):
        title = random.choice(live).title
        at = random.randrange(len(title))
        search = random.choice([text(4), title[at : at + random.randint(1, 8)], title, title.swapcase()])
        owner = random.choice([None, None, ANN, BEN])
        start, limit = random.choice([0, 0, 1, 3, 10**30]), random.randint(1, 20)
        true = [
            film.filename
            for _, film in newest
            if search.casefold() in film.title.casefold() and owner in (None, film.user_id)
        ]
        page = await store.page(owner=owner, search=search, start=start, limit=limit)
        assert (page.total, [video.filename for video in page.videos]) == (len(true), true[start : start + limit]), (
            search
        )
        if page.next:
            behind = await store.page(owner=owner, search=search, start=0, limit=limit, after=page.next)
            more = true[start + limit :][:limit]
            assert (behind.total, [video.filename for video in behind.videos]) == (len(true), more), search
        else:
            assert start + limit >= len(true)
        ways.add(bool(true))
    return ways


@pytest.mark.parametrize("few", [0, 5, 5000])
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_search_is_part_of_the_title(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, few: int, seed: int
) -> None:
    monkeypatch.setattr(titles, "FEW", few)
    random.seed(seed)
    live = films(300)
    for film in live:
        assert await store.add(film, [], NOON)
        assert await store.add(film, [], NOON), "a repetition"
    assert await verify(store, live, 400) == {True, False}
    gone = random.sample(live, 150)
    for _ in range(2):  # the second is a repetition
        for start in range(0, 150, 50):
            assert await store.delete([film.filename for film in gone[start : start + 50]], [], NOON, NOON) == 50
    live = [film for film in live if film not in gone]
    assert await verify(store, live, 400) == {True, False}


async def test_an_upload_that_is_refused_leaves_nothing_to_find(store: SqliteStore) -> None:
    film = films(1)[0]
    assert not await store.settle(film.filename, NOON)
    assert not await store.add(film, [], NOON)
    assert (await store.page(owner=None, search=film.title, start=0, limit=9)).total == 0


@pytest.mark.parametrize("few", [0, 5000])
async def test_signs_that_the_index_takes_for_one_another_are_told_apart(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(titles, "FEW", few)
    signs = ["\ufffd", "\ufffe", "\uffff", "\ufffc"]
    for number, (film, sign) in enumerate(zip(films(len(signs)), signs, strict=True)):
        await store.add(replace(film, title=f"ab{sign}cd{number}"), [], NOON)
    for number, sign in enumerate(signs):
        page = await store.page(owner=None, search=f"ab{sign}cd", start=0, limit=9)
        assert (page.total, [video.filename for video in page.videos]) == (1, [f"f{number}"])
