"""Rows by the million, written past the services into their SQLite files. All knowledge of their tables is here."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from e2e.engines import DATABASES
from e2e.services import Services

from logging_service.store.sqlite import COUNT_ALL
from shared.clock import to_text
from video_service.store import titles

OwnerOf = Callable[[int], uuid.UUID]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TOTALS = {
    "videos": "SELECT live FROM videos_totals WHERE user_id = ?",
    "logs": "SELECT logs FROM logs_totals WHERE user_id = ?",
}
"""How many rows a list has, as the services count them, by the owner's id or '' for all rows. Express asks this too."""


def count_and_index(services: Services) -> None:
    """The services count the logs and index the titles that they write themselves; make both from the rows."""
    with opened(services, "video") as database:
        titles.index_anew(database)
    with opened(services, "logging") as database:
        for statement in COUNT_ALL.split(";"):
            database.execute(statement)


def path_of(services: Services, service: str) -> Path:
    return services[service].data / DATABASES[service]


@contextmanager
def opened(services: Services, service: str) -> Iterator[sqlite3.Connection]:
    """One transaction in a service's database, beside the running service."""
    with closing(sqlite3.connect(path_of(services, service), timeout=60)) as database, database:
        yield database


def fill_videos(services: Services, owner_of: OwnerOf, first: int, last: int) -> None:
    """Rows number ``first`` up to ``last``, a second apart."""

    def row(number: int) -> tuple[str | float | int, ...]:
        name, title = f"bench-{number}", f"Video {number}"
        owner, moment = str(owner_of(number)), to_text(BEGIN + timedelta(seconds=number))
        return (str(uuid.uuid4()), owner, name, name, title, moment, 1.5, 10.0, 640, 480, title.casefold())

    with opened(services, "video") as database:
        database.executemany(
            """INSERT INTO videos (id, user_id, filename, filepath, title, uploaded_at, size_mb, duration, width,
                                   height, title_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (row(number) for number in range(first, last)),
        )


def fill_logs(services: Services, owner_of: OwnerOf, first: int, last: int) -> None:
    def row(number: int) -> tuple[str, ...]:
        owner, moment = str(owner_of(number)), to_text(BEGIN + timedelta(seconds=number))
        return (str(uuid.uuid4()), owner, "WATCH_VIDEO", f"Watched video {number}", "video-service", moment)

    with opened(services, "logging") as database:
        database.executemany(
            """INSERT INTO logs (id, user_id, action_type, description, service_name, created_at)
               VALUES (?, ?, ?, ?, ?, ?)""",
            (row(number) for number in range(first, last)),
        )


def fill_ledger(services: Services, owner_of: OwnerOf, first: int, last: int) -> None:
    """Stored objects of 1 MiB each, without their files."""
    moment = to_text(BEGIN)
    owners = {str(owner_of(number)) for number in range(first, last)}
    with opened(services, "storage") as database:
        database.executemany(
            "INSERT INTO storage_ledger (user_id) VALUES (?) ON CONFLICT DO NOTHING", ((owner,) for owner in owners)
        )
        database.executemany(
            """INSERT INTO storage_objects (filename, user_id, state, granted, size, content_type, created_at,
                                            expires_at)
               VALUES (?, ?, 'kept', 1048576, 1048576, 'video/mp4', ?, ?)""",
            ((f"bench-{number}", str(owner_of(number)), moment, moment) for number in range(first, last)),
        )
        database.executemany(
            "UPDATE storage_ledger SET kept = kept + 1048576 WHERE user_id = ?",
            ((str(owner_of(number)),) for number in range(first, last)),
        )


def fill_usage(services: Services, owner_of: OwnerOf, first: int, last: int) -> None:
    """One day of usage for each number."""
    with opened(services, "usage") as database:
        database.executemany(
            "INSERT INTO usage_days VALUES (?, ?, 1048576, 0, 1, 0) ON CONFLICT DO NOTHING",
            (
                (str(owner_of(number)), (BEGIN - timedelta(days=number % 365)).date().isoformat())
                for number in range(first, last)
            ),
        )
