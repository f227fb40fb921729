"""What the suites run over: a project with our migrations, either stood in for or a real one.

A real one is named by TEST_SUPABASE_URL and TEST_SUPABASE_KEY (its service-role key), and must be one for tests: its
tables are emptied, over and over. Hence they must be empty at the start, unless TEST_SUPABASE_EMPTY=1 says: empty them;
at the end they are so again.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import httpx
from standins.keys import Keys
from standins.postgres import Database, Postgres, migrations
from standins.postgrest import PostgREST
from standins.serving import Served

KEPT = "short_video_migrations"
TABLE = re.compile(r"create table if not exists public\.(\w+) \(\s*(\w+)")


class Project(Protocol):
    """``url`` and ``key`` are what SUPABASE_URL and SUPABASE_KEY are."""

    url: str
    key: str

    def clear(self) -> None:
        """Empty every table but the list of migrations, once nobody is at work any more."""
        ...


class StandIn:
    def __init__(self, database: Database, served: Served, keys: Keys) -> None:
        self.database = database
        self.url = served.url
        self.key = keys.service
        self._served = served

    def clear(self) -> None:
        self._served.wait_until_idle()
        self.database.clear(keep=[KEPT])


class Real:
    """Known by the tables of our migrations, each with its first column, which is never null."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self._tables = TABLE.findall("\n".join(path.read_text() for path in migrations()))
        self._tables = [(table, column) for table, column in self._tables if table != KEPT]

    def refuse_unless_empty(self) -> None:
        """Of what is only counted, migrations make a first row themselves."""
        with self._client() as client:
            for table, column in self._tables:
                if table.endswith("_totals"):
                    continue
                answer = client.get(f"/{table}", params={"select": column, "limit": 1})
                assert answer.status_code == 200, (
                    f"{self.url} has no table {table}? Apply the migrations: {answer.text}"
                )
                assert answer.json() == [], (
                    f"TEST_SUPABASE_URL: there are rows in {table} at {self.url}, and these tests would delete them. "
                    "If it is a project for tests, set TEST_SUPABASE_EMPTY=1; if it is anything else, unset it."
                )

    def clear(self) -> None:
        """One table may have to wait for another, and a trigger may write into one that was empty already."""
        with self._client() as client:
            for _ in self._tables:
                deleted = [self._delete(client, table, column) for table, column in self._tables]
                if not any(deleted):
                    return
        raise AssertionError(f"the tables at {self.url} cannot be emptied")

    def _delete(self, client: httpx.Client, table: str, column: str) -> bool:
        """Whether there was anything."""
        prefer = {"Prefer": "return=representation"}
        answer = client.delete(f"/{table}", params={column: "not.is.null"}, headers=prefer)
        assert answer.status_code in (200, 409), answer.text
        return answer.status_code == 409 or answer.json() != []

    def _client(self) -> httpx.Client:
        headers = {"apikey": self.key, "Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"{self.url}/rest/v1", headers=headers, timeout=30)


@contextmanager
def standing_in(postgres: Postgres) -> Iterator[StandIn]:
    """A new project."""
    keys, database = Keys(), postgres.create_database()
    app = PostgREST(database.as_authenticator, keys.secret, gateway={keys.anon, keys.service})
    with Served(app) as served:
        yield StandIn(database, served, keys)


def real_project() -> Real | None:
    """The one that the environment names, which may be emptied."""
    url, key = os.environ.get("TEST_SUPABASE_URL", ""), os.environ.get("TEST_SUPABASE_KEY", "")
    assert bool(url) == bool(key), "set both TEST_SUPABASE_URL and TEST_SUPABASE_KEY, or neither"
    if not url:
        return None
    real = Real(url, key)
    if os.environ.get("TEST_SUPABASE_EMPTY") != "1":
        real.refuse_unless_empty()
    return real
