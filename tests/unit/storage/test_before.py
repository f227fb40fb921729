"""A data file of the release before opens with all that it has."""

import sqlite3
from contextlib import closing
from pathlib import Path

from datafiles import schema

from storage_service.store.sqlite import SqliteStore

BEFORE = Path(__file__).with_name("objects_1.sql").read_text()


async def test_a_file_from_before_keeps_its_rows_and_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as database:
        database.executescript(BEFORE)
        database.execute("INSERT INTO storage_ledger VALUES ('anne', 700, 0)")
        database.execute(
            """INSERT INTO storage_objects (filename, user_id, state, granted, size, created_at, expires_at)
               VALUES ('a', 'anne', 'kept', 700, 700, '', '')"""
        )
        database.commit()
    for name in ("old.db", "new.db"):
        async with SqliteStore.open(tmp_path / name):
            pass
    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")
    with closing(sqlite3.connect(tmp_path / "old.db")) as database:
        assert database.execute("SELECT filename, user_id, size, session FROM storage_objects").fetchall() == [
            ("a", "anne", 700, None)
        ]
        assert database.execute("SELECT * FROM storage_ledger").fetchall() == [("anne", 700, 0)]
