"""Where the services under test keep what they keep, and a look into it from beside them.

``Embedded`` is what a laptop has: a SQLite file for each service, a folder for the objects. ``Cloud`` is what grows:
a real PostgreSQL behind the stand-in for PostgREST, and an emulator of Google Cloud Storage; there the services have
no disk of their own.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import gcs
import psycopg
from cryptography.hazmat.primitives.asymmetric import rsa
from psycopg.rows import dict_row
from standins.keys import Keys
from standins.postgres import Database, Postgres
from standins.serving import ServedApart
from unit.storage.signatures import write_key_file

Row = dict[str, Any]

DATABASES = {
    "user": "users.db",
    "video": "videos.db",
    "storage": "storage.db",
    "usage": "usage.db",
    "logging": "logs.db",
}


class Engine(Protocol):
    """``settings`` go to all five services. Times and ids in rows are text; a ``?`` in a query is a value."""

    settings: dict[str, str]

    def rows(self, service: str, query: str, *values: str) -> list[Row]: ...

    def execute(self, service: str, statement: str, *values: str) -> None: ...

    def stored(self) -> dict[str, int]:
        """Every object and every piece of one, with its size: ``<filename>.video``, ``<filename>.jpg``."""
        ...

    def is_receiving(self) -> bool:
        """Whether storage-service is taking in a video."""
        ...


class Embedded:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings: dict[str, str] = {}

    def rows(self, service: str, query: str, *values: str) -> list[Row]:
        with self._database(service) as database:
            return [dict(row) for row in database.execute(query, values)]

    def execute(self, service: str, statement: str, *values: str) -> None:
        with self._database(service) as database:
            database.execute(statement, values)

    def stored(self) -> dict[str, int]:
        found = {}
        for path in (self._folder / "storage").rglob("*"):
            with suppress(FileNotFoundError):  # gone meanwhile
                if path.is_file() and ".db" not in path.name:
                    found[path.name] = path.stat().st_size
        return found

    def is_receiving(self) -> bool:
        return any((self._folder / "storage" / "incoming").iterdir())

    def _database(self, service: str) -> "closing[sqlite3.Connection]":
        path = self._folder / service / DATABASES[service]
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        connection.row_factory = sqlite3.Row
        return closing(connection)


class Cloud:
    def __init__(self, database: Database, supabase: dict[str, str], gcs: gcs.Cloud, key_file: Path) -> None:
        self._database = database.as_owner
        self._gcs = gcs
        self._bucket = f"bucket-{database.name.replace('_', '-')}"
        gcs.make_bucket(self._bucket)
        self.settings = supabase | {
            "GCS_BUCKET": self._bucket,
            "STORAGE_EMULATOR_HOST": gcs.url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(key_file),
        }

    def rows(self, service: str, query: str, *values: str) -> list[Row]:
        query = f"SELECT to_jsonb(found) AS row FROM ({query.replace('?', '%s')}) AS found"
        with psycopg.connect(self._database, autocommit=True, row_factory=dict_row) as connection:
            return [found["row"] for found in connection.execute(query.encode(), values)]

    def execute(self, service: str, statement: str, *values: str) -> None:
        with psycopg.connect(self._database, autocommit=True) as connection:
            connection.execute(statement.replace("?", "%s").encode(), values)

    def stored(self) -> dict[str, int]:
        kinds = {".mp4": ".video", ".jpg": ".jpg"}
        return {Path(key).stem + kinds[Path(key).suffix]: size for key, size in self._gcs.objects(self._bucket).items()}

    def is_receiving(self) -> bool:
        """An object is in the bucket when it is whole; what is on the way there has its reservation."""
        return bool(self.rows("storage", "SELECT filename FROM storage_objects WHERE state = 'reserved'"))


@contextmanager
def clouds() -> Iterator[Callable[[], Cloud]]:
    """Gives one cloud after another, each empty: its own database behind its own PostgREST, its own bucket."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        postgres = stack.enter_context(Postgres())
        emulator = stack.enter_context(gcs.running("fake-gcs-server"))
        key_file = folder / "key.json"
        write_key_file(key_file, rsa.generate_private_key(65_537, 2048))
        keys = Keys()

        def another() -> Cloud:
            database = postgres.create_database()
            postgrest = stack.enter_context(ServedApart(database.as_authenticator, keys.secret))
            return Cloud(database, {"SUPABASE_URL": postgrest.url, "SUPABASE_KEY": keys.service}, emulator, key_file)

        yield another
