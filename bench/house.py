"""What the bench measures: our five services as processes, in their default configuration but for the quotas, and what
it knows of them: people, a film, rows by the million, processor time and memory.
"""

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from e2e.engines import DATABASES
from e2e.people import Person
from e2e.services import NAMES, Services
from wire import Request, request

from shared.clock import to_text

# The tests' services sweep when they are told to; these as anybody's do. Empty is the default.
DEFAULTS: dict[str, Any] = {"SWEEP_SECONDS": "", "STREAMED_REPORT_SECONDS": ""}
# One person moves more in a bench than anybody may in a day.
QUOTAS: dict[str, Any] = {"MAX_STORAGE_MB": "100000", "DAILY_BANDWIDTH_MB": "1000000"}
OwnerOf = Callable[[int], uuid.UUID]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class House:
    def __init__(self, services: Services) -> None:
        self.services = services

    def port(self, service: str) -> int:
        return self.services[service].port

    def person(self, name: str = "somebody") -> Person:
        return Person(self.services, name)

    def get(self, service: str, target: str, who: Person, **more: Any) -> Request:
        return request("GET", self.port(service), target, who.headers, **more)

    def upload(self, who: Person, body: bytes, content_type: str) -> Request:
        headers = who.headers | {"Content-Type": content_type}
        return request("POST", self.port("video"), "/api/videos/upload", headers, body=memoryview(body))

    def put_film(self, who: Person, film: bytes) -> str:
        """Upload it through the front door; the path of its capability URL."""
        answer = who.upload(film, "The film of the bench")
        assert answer.status_code == 200, answer.text
        url: str = answer.json()["file"]["filepath"]
        return url.partition(f":{self.port('storage')}")[2]

    def processes(self, *names: str) -> list[psutil.Process]:
        roots = [psutil.Process(self.services[name].pid) for name in names or NAMES]
        return [process for root in roots for process in [root, *root.children(recursive=True)]]

    @contextmanager
    def rows(self, service: str) -> Iterator[sqlite3.Connection]:
        """One transaction in a service's database, beside the service."""
        path = self.services[service].data / DATABASES[service]
        with closing(sqlite3.connect(path, timeout=60)) as database, database:
            yield database

    def fill_videos(self, owner_of: OwnerOf, first: int, last: int) -> None:
        """Rows number ``first`` up to ``last``, a second apart."""

        def row(number: int) -> tuple[str | float | int, ...]:
            name, title = f"bench-{number}", f"Film {number}"
            owner, moment = str(owner_of(number)), to_text(BEGIN + timedelta(seconds=number))
            return (str(uuid.uuid4()), owner, name, name, title, moment, 1.5, 10.0, 640, 480, title.casefold())

        with self.rows("video") as database:
            database.executemany(
                """INSERT INTO videos (id, user_id, filename, filepath, title, uploaded_at, size_mb, duration, width,
                                       height, title_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (row(number) for number in range(first, last)),
            )

    def fill_logs(self, owner_of: OwnerOf, first: int, last: int) -> None:
        def row(number: int) -> tuple[str, ...]:
            owner, moment = str(owner_of(number)), to_text(BEGIN + timedelta(seconds=number))
            return (str(uuid.uuid4()), owner, "WATCH_VIDEO", f"Watched film {number}", "video-service", moment)

        with self.rows("logging") as database:
            database.executemany(
                """INSERT INTO logs (id, user_id, action_type, description, service_name, created_at)
                   VALUES (?, ?, ?, ?, ?, ?)""",
                (row(number) for number in range(first, last)),
            )

    def fill_ledger(self, owner_of: OwnerOf, first: int, last: int) -> None:
        """Objects that are kept, of 1 MiB each, without their files."""
        moment = to_text(BEGIN)
        owners = {str(owner_of(number)) for number in range(first, last)}
        with self.rows("storage") as database:
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

    def fill_usage(self, owner_of: OwnerOf, first: int, last: int) -> None:
        """A day of somebody for each."""
        with self.rows("usage") as database:
            database.executemany(
                "INSERT INTO usage_days VALUES (?, ?, 1048576, 0, 1, 0) ON CONFLICT DO NOTHING",
                (
                    (str(owner_of(number)), (BEGIN - timedelta(days=number % 365)).date().isoformat())
                    for number in range(first, last)
                ),
            )


@contextmanager
def house(folder: Path, **settings: Any) -> Iterator[House]:
    with Services(folder, None, faulty=False, **(DEFAULTS | QUOTAS | settings)) as services:
        yield House(services)


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Of user and system, of all of them, by now."""
    times = [process.cpu_times() for process in processes if process.is_running()]
    return sum(time.user + time.system for time in times)


def memory(processes: list[psutil.Process]) -> int:
    """Bytes that these processes alone keep: what is mapped from files is the page cache's, and not counted."""
    total = 0
    for process in processes:
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("Pss_Anon", "Pss_Shmem"):
                    total += int(value.split()[0]) * 1024
        except OSError:  # it has just ended
            continue
    return total
