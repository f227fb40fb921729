"""What SQLite files of the services are made of."""

import sqlite3
from contextlib import closing
from pathlib import Path


def schema(path: Path) -> set[tuple[str, str, str]]:
    """Every object's type, name and statement, however that is laid out."""
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall()
    return {(kind, name, "".join(statement.split()).rstrip(";")) for kind, name, statement in found}
