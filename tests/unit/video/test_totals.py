"""A database from before the totals were kept has them when it has been opened once."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

from shared.database import Sqlite
from video_service.store.sqlite import MIGRATIONS, SqliteStore

ANN, BEN = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


async def test_videos_from_before_are_counted_and_deleted_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "videos.db"
    rows = [(ANN, "a1", None), (ANN, "a2", None), (ANN, "gone", "2026-11-25T00:00:00.000000Z"), (BEN, "b1", None)]
    async with Sqlite(path, MIGRATIONS[:1]) as database:
        for owner, name, deleted in rows:
            await database.execute(
                """INSERT INTO videos (id, user_id, filename, filepath, title, uploaded_at, deleted_at, size_mb, width,
                                       height, title_key)
                   VALUES (?, ?, ?, ?, 'A film', '2026-11-24T00:00:00.000000Z', ?, 1.0, 640, 480, 'a film')""",
                (str(uuid.uuid4()), str(owner), name, name, deleted),
            )
    async with SqliteStore.open(path) as store:
        totals = [(await store.page(owner=owner, search="", start=0, limit=16)).total for owner in (None, ANN, BEN)]
        assert totals == [3, 2, 1]
        assert await store.delete(["a1"], [], NOON, NOON) == 1
        assert await store.delete(["a1"], [], NOON, NOON) == 1, "a repetition"
        totals = [(await store.page(owner=owner, search="", start=0, limit=16)).total for owner in (None, ANN, BEN)]
        assert totals == [2, 1, 1]
