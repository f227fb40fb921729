"""What every migration keeps to, read from the catalogue: what holds for those there are holds for those to come."""

import re
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from standins.postgres import Database, Postgres, installed, migrations

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANNE = uuid.uuid4()

# The tables of the specification: their columns in its order, with its types, and a row of one.
SPECIFIED = {
    "users": {
        "id": ("uuid", ANNE),
        "email": ("text", "Anne@Example.test"),
        "password": ("text", "$argon2id$…"),
        "username": ("text", "Anne"),
        "created_at": ("timestamp with time zone", NOW),
        "role": ("text", "user"),
        "uploading": ("timestamp with time zone", None),
    },
    "videos": {
        "id": ("uuid", uuid.uuid4()),
        "user_id": ("uuid", ANNE),
        "filename": ("text", "a-film"),
        "filepath": ("text", "a-film.mp4"),
        "title": ("text", "A film"),
        "uploaded_at": ("timestamp with time zone", NOW),
        "deleted_at": ("timestamp without time zone", None),
        "size_mb": ("double precision", 0.5),
    },
    "logs": {
        "id": ("uuid", uuid.uuid4()),
        "user_id": ("uuid", ANNE),
        "action_type": ("character varying", "UPLOAD_VIDEO"),
        "description": ("text", "a film"),
        "service_name": ("character varying", "VideoUploadService"),
        "created_at": ("timestamp without time zone", NOW.replace(tzinfo=None)),
    },
}

# The tables of a service begin with its word; a foreign key never leaves them.
OWNERS = ("users", "videos", "storage", "usage", "logs", "short_video")

FINGERPRINT = """
    SELECT 'table ' || c.oid::regclass || ' ' || coalesce(c.relacl::text, '') || c.relrowsecurity FROM pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('column %s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure || ' ' || coalesce(p.proacl::text, '') || p.prosrc FROM pg_proc AS p
    WHERE p.pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'role ' || rolname FROM pg_roles
    UNION ALL
    SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'
    ORDER BY 1
"""

FUNCTIONS = """
    SELECT p.oid::regprocedure::text AS name, p.oid, p.prosrc AS source, p.proconfig AS config,
        p.prosecdef AS as_its_owner, l.lanname AS language
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    WHERE p.pronamespace = 'public'::regnamespace ORDER BY 1
"""

# SQL that changes rows, up to the end of its statement or of the part of a WITH that it is.
CHANGE = re.compile(r"\b(?:delete\s+from\s+[\w.]+|update\s+[\w.]+\s+(?:as\s+\w+\s+)?set\b)[^;]*", re.IGNORECASE)


@pytest.fixture(scope="module")
def migrated(postgres: Postgres) -> Database:
    return postgres.create_database()


@pytest.fixture
def database(migrated: Database) -> Iterator[psycopg.Connection]:
    """As its owner; nothing of what a test does is kept."""
    with psycopg.connect(migrated.as_owner) as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Database]:
    """A project before its first migration."""
    database = postgres.create_database(migrated=False)
    yield database
    postgres.drop_database(database)


def fingerprint(database: Database) -> list[str]:
    with psycopg.connect(database.as_owner) as connection:
        return [line for (line,) in connection.execute(FINGERPRINT)]


def insert(connection: psycopg.Connection, table: str, **other: Any) -> None:
    """A row that gives a value to the specification's columns, and to no other."""
    row = {name: value for name, (_, value) in SPECIFIED[table].items()} | other
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


def specified(connection: psycopg.Connection, table: str) -> list[tuple[Any, ...]]:
    columns = sql.SQL(", ").join(map(sql.Identifier, SPECIFIED[table]))
    return connection.execute(sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table))).fetchall()


def tables(connection: psycopg.Connection) -> list[str]:
    found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [name for (name,) in found]


def test_each_is_noted_under_its_name(database: psycopg.Connection) -> None:
    noted = database.execute("SELECT name FROM short_video_migrations ORDER BY name").fetchall()
    assert [name for (name,) in noted] == [path.stem for path in migrations()]


def test_the_build_applies_them_as_often_as_it_runs(empty: Database, migrated: Database, tmp_path: Path) -> None:
    """deploy/migrate.sh, with PostgreSQL's own psql."""
    script = Path(__file__).parents[2] / "deploy/migrate.sh"
    environment = {
        "PATH": f"{installed() / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "DATABASE_URL": empty.as_owner,
    }
    for _ in range(2):
        ran = subprocess.run(["sh", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert fingerprint(empty) == fingerprint(migrated)
    elsewhere = environment | {"DATABASE_URL": f"{empty.as_owner} dbname=nobodys"}
    ran = subprocess.run(["sh", script], env=elsewhere, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "no service was touched" in ran.stderr


def test_applied_twice_they_change_nothing_and_lose_nothing(postgres: Postgres) -> None:
    database = postgres.create_database()
    with psycopg.connect(database.as_owner, autocommit=True) as connection:
        for table in SPECIFIED:
            insert(connection, table)
        before, rows = fingerprint(database), {table: specified(connection, table) for table in SPECIFIED}
        database.migrate()
        assert fingerprint(database) == before
        assert {table: specified(connection, table) for table in SPECIFIED} == rows
    postgres.drop_database(database)


def test_each_is_done_whole_or_not_at_all(empty: Database) -> None:
    for path in migrations():
        before = fingerprint(empty)
        with psycopg.connect(empty.as_owner, autocommit=True) as connection:
            with connection.transaction(force_rollback=True):
                connection.execute(path.read_text().encode())
            assert fingerprint(empty) == before, f"{path.name} ends its transaction by itself"
            with connection.transaction():
                connection.execute(path.read_text().encode())
        assert fingerprint(empty) != before, f"{path.name} does nothing"


def test_tables_that_were_made_by_the_specification_alone_are_taken_over_with_their_rows(empty: Database) -> None:
    with psycopg.connect(empty.as_owner, autocommit=True) as connection:
        for table, columns in SPECIFIED.items():
            parts = [
                sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, (kind, _) in columns.items()
            ]
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(table), sql.SQL(", ").join(parts)))
            insert(connection, table)
        rows = {table: specified(connection, table) for table in SPECIFIED}
        empty.migrate()
        assert {table: specified(connection, table) for table in SPECIFIED} == rows
        for table in SPECIFIED:
            with pytest.raises(psycopg.errors.UniqueViolation):
                insert(connection, table)


def test_videos_that_lacked_something_are_listed_found_and_counted_after_the_takeover(empty: Database) -> None:
    """Tables that people made by themselves let everything be missing; one such row must not end every list."""
    with psycopg.connect(empty.as_owner, autocommit=True) as connection:
        columns = ", ".join(f"{name} {kind}" for name, (kind, _) in SPECIFIED["videos"].items())
        connection.execute(f"CREATE TABLE videos ({columns})".encode())
        connection.execute("INSERT INTO videos (title) VALUES ('An Old Film')")
        connection.execute("INSERT INTO videos (user_id) VALUES ('00000000-0000-0000-0000-000000000000')")
        connection.execute("INSERT INTO videos (filename, user_id, title) VALUES ('a', gen_random_uuid(), 'New')")
        for _ in range(2):
            empty.migrate()
        ((page,),) = connection.execute("SELECT videos_page(NULL, '', 0, 10)").fetchall()
        ((found,),) = connection.execute("SELECT videos_page(NULL, 'old film', 0, 10)").fetchall()
    assert (page["total"], len(page["videos"]), found["total"]) == (3, 3, 1)
    needed = ("id", "user_id", "filename", "title", "uploaded_at", "size_mb", "width", "height")
    assert [(video["filename"], name) for video in page["videos"] for name in needed if video[name] is None] == []


@pytest.mark.parametrize("table", SPECIFIED)
def test_the_columns_of_the_specification_come_first_with_their_types(database: psycopg.Connection, table: str) -> None:
    found = database.execute(
        """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
           WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
        [table],
    ).fetchall()
    assert found[: len(SPECIFIED[table])] == [(name, kind) for name, (kind, _) in SPECIFIED[table].items()]


@pytest.mark.parametrize("table", SPECIFIED)
def test_a_row_needs_no_other_columns(database: psycopg.Connection, table: str) -> None:
    insert(database, table)
    assert specified(database, table) == [tuple(value for _, value in SPECIFIED[table].values())]


def test_row_level_security_is_on_and_nothing_is_let_through(database: psycopg.Connection) -> None:
    open_tables = database.execute(
        """SELECT relname FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relrowsecurity"""
    ).fetchall()
    assert open_tables == []
    assert database.execute("SELECT schemaname, tablename, policyname FROM pg_policies").fetchall() == []


def test_what_row_level_security_does_not_cover_is_not_there(database: psycopg.Connection) -> None:
    """A view reads with its owner's rights."""
    found = database.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm', 'f')"
    ).fetchall()
    assert found == []


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_nobody_but_the_services_may_even_ask_a_table(database: psycopg.Connection, role: str) -> None:
    every = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER"
    for table in tables(database):
        (may,) = database.execute("SELECT has_table_privilege(%s, %s, %s)", [role, f"public.{table}", every]).fetchone()
        assert not may, f"{role} may do something with {table}"


def test_the_services_may_read_and_empty_every_table_of_theirs(database: psycopg.Connection) -> None:
    for table in tables(database):
        needed = ["SELECT"] if table.endswith("_migrations") else ["SELECT", "INSERT", "UPDATE", "DELETE"]
        for one in needed:
            row = database.execute("SELECT has_table_privilege('service_role', %s, %s)", [f"public.{table}", one])
            assert row.fetchone() == (True,), f"service_role may not {one} {table}"


def test_every_function_is_for_the_services_alone(database: psycopg.Connection) -> None:
    for name, oid, *_ in database.execute(FUNCTIONS).fetchall():
        for role, expected in (("anon", False), ("authenticated", False), ("service_role", True)):
            row = database.execute("SELECT has_function_privilege(%s, %s::oid, 'EXECUTE')", [role, oid]).fetchone()
            assert row == (expected,), f"{role} {'may not' if expected else 'may'} execute {name}"
    granted_to_all = """
        SELECT p.oid::regprocedure::text FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner)))
        WHERE pronamespace = 'public'::regnamespace AND grantee = 0
    """
    assert database.execute(granted_to_all).fetchall() == []


def test_no_function_trusts_the_callers_search_path_or_lends_its_owners_rights(database: psycopg.Connection) -> None:
    for name, _, _, config, as_its_owner, language in database.execute(FUNCTIONS).fetchall():
        assert any(one.startswith("search_path=") for one in config or ()), f"{name} has no search_path of its own"
        assert not as_its_owner, f"{name} is SECURITY DEFINER"
        assert language in ("sql", "plpgsql"), f"{name} is in {language}"


def test_no_function_changes_a_whole_table(database: psycopg.Connection) -> None:
    """Supabase has the extension safeupdate: what has no WHERE is refused there, inside of functions too."""
    for name, _, source, *_ in database.execute(FUNCTIONS).fetchall():
        without_comments = re.sub(r"--[^\n]*", "", source)
        for change in CHANGE.findall(without_comments):
            assert re.search(r"\bwhere\b", change, re.IGNORECASE), f"{name}: {change}"


def test_no_function_fails_as_if_it_did_not_serialize(database: psycopg.Connection) -> None:
    """PostgREST would repeat it without end."""
    for name, _, source, *_ in database.execute(FUNCTIONS).fetchall():
        assert not re.search("40001|serialization_failure", source, re.IGNORECASE), name


def test_a_table_is_named_after_its_service_and_no_foreign_key_leaves_it(database: psycopg.Connection) -> None:
    for table in tables(database):
        assert _owner(table)
    keys = database.execute(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
    )
    for table, other in keys.fetchall():
        assert _owner(table) == _owner(other), f"a foreign key leads from {table} to {other}"


def test_every_foreign_key_finds_its_rows_by_an_index(database: psycopg.Connection) -> None:
    """Otherwise each change of what it refers to reads the whole table."""
    without = database.execute(
        """SELECT c.conrelid::regclass::text, c.conname FROM pg_constraint AS c
           WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace AND NOT EXISTS (
               SELECT FROM pg_index AS i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])"""
    ).fetchall()
    assert without == []


def test_every_table_has_a_primary_key(database: psycopg.Connection) -> None:
    without = database.execute(
        """SELECT relname FROM pg_class AS t WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
           AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = t.oid AND indisprimary)"""
    ).fetchall()
    assert without == []


def test_no_figure_that_must_be_there_is_ever_negative(database: psycopg.Connection) -> None:
    """For each there is a check that a row with -1 in it does not pass."""
    figures = database.execute(
        """SELECT a.attrelid::regclass::text, a.attname FROM pg_attribute AS a JOIN pg_class AS t ON t.oid = a.attrelid
               JOIN pg_type AS kind ON kind.oid = a.atttypid
           WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND kind.typcategory = 'N'
               AND a.attnum > 0 AND a.attnotnull AND a.attidentity = '' AND NOT a.attisdropped"""
    ).fetchall()
    assert ("videos", "size_mb") in figures
    for table, column in figures:
        checks = database.execute(
            "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'",
            [table],
        ).fetchall()
        passed = [
            database.execute(
                sql.SQL("SELECT ({}) IS NOT FALSE FROM jsonb_populate_record(NULL::{}, %s) AS row").format(
                    sql.SQL(check.replace("%", "%%")), sql.Identifier("public", table)
                ),
                [Jsonb({column: -1})],
            ).fetchone()
            for (check,) in checks
        ]
        assert (False,) in passed, f"{table}.{column} may be negative"


PAGES = {
    "logs_list(NULL, 0, %(at)s, 50, 10)": "logs",
    "logs_list(%(user)s, 0, %(at)s, 50, 10)": "logs",
    "videos_list(NULL, '', 0, %(at)s, 50, 10)": "videos",
    "videos_list(%(user)s, '', 0, %(at)s, 50, 10)": "videos",
}


@pytest.mark.parametrize("seconds", [1, 0])
@pytest.mark.parametrize("call", PAGES)
def test_a_page_deep_in_a_list_reads_no_more_rows_than_it_answers(
    database: psycopg.Connection, call: str, seconds: int
) -> None:
    """Also where all rows have one time."""
    times = f"timestamptz '2026-11-24 12:00:00Z' + number * interval '{seconds} seconds'"
    database.execute(
        f"""INSERT INTO logs (user_id, action_type, description, service_name, created_at, seq)
            OVERRIDING SYSTEM VALUE SELECT %s, 'A', '', 'S', ({times}) AT TIME ZONE 'utc', number
            FROM generate_series(1, 5000) AS number""".encode(),
        [ANNE],
    )
    database.execute(
        f"""INSERT INTO videos (user_id, filename, filepath, title, uploaded_at, size_mb, seq)
            OVERRIDING SYSTEM VALUE SELECT %s, number, '', '', {times}, 1, number
            FROM generate_series(1, 5000) AS number""".encode(),
        [ANNE],
    )
    database.execute("ANALYZE logs, videos")
    table, place = PAGES[call], NOW + timedelta(seconds=50 * seconds)
    read = f"SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = '{table}'"
    (before,) = database.execute(read.encode()).fetchone()
    (page,) = database.execute(f"SELECT {call}".encode(), {"user": ANNE, "at": place}).fetchone()
    (after,) = database.execute(read.encode()).fetchone()
    assert (len(page[table]), page["total"], page["next_seq"]) == (10, 5000, 40)
    assert after - before <= 20


def test_the_revision_before_lists_by_its_own_functions_until_the_traffic_has_moved(
    database: psycopg.Connection,
) -> None:
    insert(database, "logs")
    insert(database, "videos")
    for old, new, table in (
        ("logs_page(NULL, 0, 10)", "logs_list(NULL, 0, NULL, NULL, 10)", "logs"),
        ("videos_page(NULL, '', 0, 10)", "videos_list(NULL, '', 0, NULL, NULL, 10)", "videos"),
    ):
        pages = [database.execute(f"SELECT {call}".encode()).fetchone()[0] for call in (old, new)]
        assert [(page["total"], len(page[table]), page[table][0]["id"]) for page in pages] == [
            (1, 1, str(SPECIFIED[table]["id"][1]))
        ] * 2


def test_an_address_in_another_case_is_the_same_address(database: psycopg.Connection) -> None:
    insert(database, "users")
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(database, "users", id=uuid.uuid4(), email="aNNE@eXAMPLE.TEST")


@pytest.mark.parametrize(
    ("table", "other"),
    [
        ("users", {"role": "root"}),
        ("users", {"role": ""}),
        ("videos", {"size_mb": -0.1}),
    ],
)
def test_what_cannot_be_is_refused(database: psycopg.Connection, table: str, other: dict[str, Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(database, table, **other)


def _owner(table: str) -> str:
    found = [owner for owner in OWNERS if table == owner or table.startswith(f"{owner}_")]
    assert len(found) == 1, f"whose is {table}?"
    return found[0]
