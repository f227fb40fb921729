"""A database from before the lists were counted has any page of them when it has been opened once."""

import random
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.clock import to_text
from shared.database import Sqlite
from video_service.store.sqlite import MIGRATIONS, SqliteStore

ANN, BEN = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("count", [4, 1500])
async def test_videos_from_before_are_listed_and_deleted_ones_are_not(tmp_path: Path, schema: int, count: int) -> None:
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
    async with Sqlite(path, MIGRATIONS[:schema]) as database:
        for owner, name, uploaded, deleted in rows:
            await database.execute(
                """INSERT INTO videos (id, user_id, filename, filepath, title, uploaded_at, deleted_at, size_mb, width,
                                       height, title_key)
                   VALUES (?, ?, ?, ?, 'A film', ?, ?, 1.0, 640, 480, 'a film')""",
                (str(uuid.uuid4()), owner, name, name, uploaded, deleted),
            )

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

    async with SqliteStore.open(path) as store:
        await verify(store, set())
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
