"""A data file of the release before opens with all that it has; its lists are counted and paged through."""

import random
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from datafiles import schema

from shared.clock import to_text
from video_service.store.sqlite import SqliteStore

ANN, BEN = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
BEFORE = Path(__file__).with_name("videos_4.sql").read_text()


@pytest.mark.parametrize("count", [0, 4, 1500])
async def test_videos_from_before_are_listed_and_deleted_ones_are_not(tmp_path: Path, count: int) -> None:
    random.seed(count)
    path = tmp_path / "videos.db"
    rows = [
        (
            str(BEN if number % 4 == 3 else ANN),
            f"f{number}",
            to_text(NOON + timedelta(seconds=random.choice([7, random.randrange(10**6)]))),
            to_text(NOON) if number % 4 == 2 else None,
        )
        for number in range(count)
    ]
    database = sqlite3.connect(path)
    database.executescript(BEFORE)
    database.executemany(
        """INSERT INTO videos (id, user_id, filename, filepath, title, uploaded_at, deleted_at, size_mb, width, height,
                               title_key)
           VALUES (?1, ?2, ?3, ?3, 'Film ' || ?3, ?4, ?5, 1.0, 640, 480, 'film ' || ?3)""",
        [(str(uuid.uuid4()), *row) for row in rows],
    )
    database.execute(
        "INSERT INTO videos_titles (rowid, title_key) SELECT seq, title_key FROM videos WHERE deleted_at IS NULL"
    )
    database.execute("INSERT INTO videos_ranks VALUES ('', 0, '', ?)", (count,))
    database.commit()
    database.close()

    async def verify(store: SqliteStore, gone: set[str]) -> None:
        for owner in (None, ANN, BEN):
            live = [
                (uploaded, number, name)
                for number, (user, name, uploaded, deleted) in enumerate(rows)
                if deleted is None and name not in gone and owner in (None, uuid.UUID(user))
            ]
            true = [name for _, _, name in sorted(live, reverse=True)]
            for start in {0, len(true), *range(0, len(true), 41)}:
                page = await store.page(owner=owner, search="", start=start, limit=50)
                assert [video.filename for video in page.videos] == true[start : start + 50]
                assert page.total == len(true)
                if page.next:
                    behind = await store.page(owner=owner, search="", start=0, limit=50, after=page.next)
                    assert [video.filename for video in behind.videos] == true[start + 50 : start + 100]
            found = await store.page(owner=owner, search="film f1", start=0, limit=50)
            assert found.total == len([name for name in true if name.startswith("f1")])

    async with SqliteStore.open(path) as store:
        await verify(store, set())
        if count:
            for _ in range(2):  # the second is a repetition
                assert await store.delete(["f0", "f2"], [], NOON + timedelta(hours=1), NOON) == 1
            assert await store.delete(["f0"], [], NOON + timedelta(hours=2), NOON) == 0
            await verify(store, {"f0"})
        many = [f"f{number}" for number in range(0, count, 2)]
        for start in range(0, len(many), 50):
            await store.delete(many[start : start + 50], [], NOON + timedelta(hours=3), NOON)
        await verify(store, set(many))
    async with SqliteStore.open(path) as store:
        await verify(store, set(many))


async def test_a_file_from_before_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "old.db")
    database.executescript(BEFORE)
    database.close()
    for name in ("old.db", "new.db"):
        async with SqliteStore.open(tmp_path / name):
            pass
    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")
