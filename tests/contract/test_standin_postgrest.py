"""What the services rely on in PostgREST, over what stands in for it, as version 12 and as 13, and over a real one.

A real one is that of TEST_SUPABASE_URL and TEST_SUPABASE_KEY. What needs tables and functions of its own runs there if
TEST_SUPABASE_DSN leads to its database as its owner; what needs other keys, if TEST_SUPABASE_JWT_SECRET signs them.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from standins.keys import Keys
from standins.postgres import Postgres
from standins.postgrest import PostgREST
from standins.serving import Served

REAL = os.environ.get("TEST_SUPABASE_URL", "")

MAKE = """
CREATE TABLE conformance_things (
    id integer PRIMARY KEY,
    n integer CONSTRAINT conformance_n UNIQUE CONSTRAINT conformance_positive CHECK (n >= 0),
    parent integer CONSTRAINT conformance_parent REFERENCES conformance_things DEFERRABLE,
    text text
);
ALTER TABLE conformance_things ENABLE ROW LEVEL SECURITY;
GRANT ALL ON conformance_things TO anon, authenticated, service_role;
CREATE SEQUENCE conformance_attempts;
GRANT ALL ON conformance_attempts TO service_role;

CREATE FUNCTION conformance_add(
    p_id integer, p_n integer DEFAULT NULL, p_parent integer DEFAULT NULL, p_text text DEFAULT 'none'
) RETURNS jsonb LANGUAGE sql AS $$
    INSERT INTO conformance_things VALUES (p_id, p_n, p_parent, p_text);
    SELECT jsonb_build_object('id', p_id, 'text', p_text);
$$;
CREATE FUNCTION conformance_add_late(p_id integer, p_parent integer) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    SET CONSTRAINTS conformance_parent DEFERRED;
    INSERT INTO conformance_things (id, parent) VALUES (p_id, p_parent);
    RETURN '{}';
END $$;
CREATE FUNCTION conformance_add_and_fail(p_id integer, p_state text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO conformance_things (id) VALUES (p_id);
    RAISE EXCEPTION 'it fails' USING errcode = p_state, detail = 'so it does', hint = 'do not';
END $$;
CREATE FUNCTION conformance_add_at_the_third_attempt(p_id integer) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO conformance_things (id) VALUES (p_id);
    IF nextval('conformance_attempts') % 3 <> 0 THEN
        RAISE serialization_failure;
    END IF;
    RETURN '{}';
END $$;
CREATE FUNCTION conformance_raise(p_id integer) RETURNS jsonb LANGUAGE sql AS $$
    UPDATE conformance_things SET n = n + 1 WHERE id = p_id;
    SELECT '{}'::jsonb;
$$;
CREATE FUNCTION conformance_echo(
    p_at timestamptz, p_id uuid, p_number bigint, p_text text, p_texts text[], p_json jsonb
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('at', p_at, 'epoch', extract(epoch FROM p_at), 'id', p_id, 'number', p_number,
        'text', p_text, 'texts', p_texts, 'json', p_json);
$$;
CREATE FUNCTION conformance_who() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('role', current_user, 'claims', current_setting('request.jwt.claims')::jsonb);
$$;
CREATE FUNCTION conformance_closed() RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
REVOKE ALL ON FUNCTION conformance_closed FROM public, anon, authenticated;
CREATE FUNCTION conformance_nothing() RETURNS void LANGUAGE sql AS $$ SELECT NULL::void $$;
CREATE FUNCTION conformance_null() RETURNS jsonb LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION conformance_add_one() RETURNS integer LANGUAGE sql AS $$
    INSERT INTO conformance_things VALUES (-1);
    SELECT 1;
$$;
CREATE FUNCTION conformance_add_by_stealth() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(conformance_add_one());
$$;
CREATE VIEW conformance_view AS SELECT conformance_add_one();
GRANT SELECT ON conformance_view TO service_role;
NOTIFY pgrst, 'reload schema';
"""

UNMAKE = """
DROP VIEW IF EXISTS conformance_view;
DROP TABLE IF EXISTS conformance_things CASCADE;
DROP SEQUENCE IF EXISTS conformance_attempts;
DO $$ DECLARE one regprocedure; BEGIN
    FOR one IN SELECT oid FROM pg_proc WHERE proname LIKE 'conformance\\_%' LOOP
        EXECUTE format('DROP FUNCTION %s', one);
    END LOOP;
END $$;
"""

Ask = Callable[..., httpx.Response]


@dataclass
class Server:
    """``keys`` and ``owner`` are None if all that is known is its address and its key."""

    url: str
    service_key: str
    keys: Keys | None
    owner: str | None
    version: int

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/rest/v1", headers=headers(self.service_key), timeout=30, trust_env=False
        )


def headers(key: str) -> dict[str, str]:
    return {"apikey": key, "Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module", params=["real"] if REAL else [12, 13])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "real":
        secret = os.environ.get("TEST_SUPABASE_JWT_SECRET")
        key, keys = os.environ["TEST_SUPABASE_KEY"], Keys(secret) if secret else None
        real = Server(REAL.rstrip("/"), key, keys, os.environ.get("TEST_SUPABASE_DSN"), 13)
        with real.client() as client:
            real.version = 12 if client.get("/no_such_table").json()["code"] == "42P01" else 13
        yield real
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    keys, database = Keys(), postgres.create_database()
    with Served(PostgREST(database.as_authenticator, keys.secret, version=request.param)) as served:
        yield Server(served.url, keys.service, keys, database.as_owner, request.param)


@pytest.fixture(scope="module")
def scratch(server: Server) -> Iterator[psycopg.Connection]:
    """The tables and functions above, and a connection beside the server."""
    if server.owner is None:
        pytest.skip("TEST_SUPABASE_DSN is not set")
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(server.owner, autocommit=True))
        connection.execute(UNMAKE)
        stack.callback(connection.execute, UNMAKE)
        connection.execute(MAKE.encode())
        with server.client() as client:
            deadline = time.monotonic() + 30
            while client.post("/rpc/conformance_who", json={}).status_code == 404:
                assert time.monotonic() < deadline, "PostgREST does not read the schema again"
                time.sleep(0.1)
        yield connection


@pytest.fixture
def ask(server: Server) -> Iterator[Ask]:
    """With the service key, unless headers of its own are given."""
    with server.client() as client:
        yield client.request


@pytest.fixture
def call(ask: Ask, things: psycopg.Connection) -> Ask:
    """A function of this suite, by its arguments."""

    def request(name: str, arguments: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        return ask("POST", f"/rpc/conformance_{name}", json=arguments or {}, **more)

    return request


@pytest.fixture
def things(scratch: psycopg.Connection) -> psycopg.Connection:
    """Three of them: each has the one before as its parent."""
    scratch.execute("DELETE FROM conformance_things")
    scratch.execute(
        """INSERT INTO conformance_things
           VALUES (1, 10, NULL, 'one'), (2, NULL, 1, 'two, "too"'), (3, 30, 2, 'Grüße 😀 \\')"""
    )
    return scratch


@pytest.fixture
def keys(server: Server) -> Keys:
    if server.keys is None:
        pytest.skip("TEST_SUPABASE_JWT_SECRET is not set")
    return server.keys


def ids(answer: httpx.Response) -> list[int]:
    assert answer.is_success, answer.text
    return [thing["id"] for thing in answer.json()]


def assert_refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == {"code", "details", "hint", "message"}
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return body


# Reading a table


def test_a_row_is_found_by_a_column(ask: Ask, things: psycopg.Connection) -> None:
    answer = ask("GET", "/conformance_things", params={"select": "*", "id": "eq.1", "limit": 1})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["content-range"] == "0-0/*"
    assert answer.json() == [{"id": 1, "n": 10, "parent": None, "text": "one"}]


def test_nothing_found_is_an_empty_list(ask: Ask, things: psycopg.Connection) -> None:
    answer = ask("GET", "/conformance_things", params={"select": "*", "id": "eq.4", "limit": 1})
    assert (answer.status_code, answer.text, answer.headers["content-range"]) == (200, "[]", "*/*")


def test_columns_can_be_chosen(ask: Ask, things: psycopg.Connection) -> None:
    answer = ask("GET", "/conformance_things", params={"select": "text,id", "id": "eq.1"})
    assert answer.json() == [{"text": "one", "id": 1}]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [1, 2, 3]),
        ({"id": "eq.2", "parent": "eq.1"}, [2]),
        ({"id": "eq.2", "parent": "eq.2"}, []),
        ({"id": "neq.2"}, [1, 3]),
        ({"id": "gte.2"}, [2, 3]),
        ({"id": "lt.2"}, [1]),
        ({"id": "in.(1,3,9)"}, [1, 3]),
        ({"id": "in.()"}, []),
        ({"id": "not.in.(1,3)"}, [2]),
        ({"n": "is.null"}, [2]),
        ({"n": "not.is.null"}, [1, 3]),
        ({"text": 'eq.two, "too"'}, [2]),
        ({"text": "eq.Grüße 😀 \\"}, [3]),
        ({"text": r'in.(one,"two, \"too\"","Grüße 😀 \\")'}, [1, 2, 3]),
        ({"text": "eq.' OR true --"}, []),
    ],
)
def test_filters_all_hold(ask: Ask, things: psycopg.Connection, filters: dict[str, str], found: list[int]) -> None:
    assert ids(ask("GET", "/conformance_things", params={"select": "id", "order": "id", **filters})) == found


@pytest.mark.parametrize(
    ("order", "found"),
    [("id.desc", [3, 2, 1]), ("n.desc.nullslast,id", [3, 1, 2]), ("n.asc.nullsfirst", [2, 1, 3]), ("n,id", [1, 3, 2])],
)
def test_rows_come_in_the_order_asked_for(ask: Ask, things: psycopg.Connection, order: str, found: list[int]) -> None:
    assert ids(ask("GET", "/conformance_things", params={"select": "id", "order": order})) == found


def test_a_page_of_rows(ask: Ask, things: psycopg.Connection) -> None:
    page = {"select": "id", "order": "id", "offset": 1, "limit": 1}
    answer = ask("GET", "/conformance_things", params=page)
    assert (ids(answer), answer.status_code, answer.headers["content-range"]) == ([2], 200, "1-1/*")
    answer = ask("GET", "/conformance_things", params=page, headers={"Prefer": "count=exact"})
    assert (ids(answer), answer.status_code, answer.headers["content-range"]) == ([2], 206, "1-1/3")
    answer = ask("GET", "/conformance_things", params={"select": "id"}, headers={"Prefer": "count=exact"})
    assert (answer.status_code, answer.headers["content-range"]) == (200, "0-2/3")
    answer = ask("GET", "/conformance_things", params={"id": "eq.9"}, headers={"Prefer": "count=exact"})
    assert (answer.status_code, answer.headers["content-range"]) == (200, "*/0")


def test_past_the_end_is_an_empty_list_unless_it_is_counted(
    server: Server, ask: Ask, things: psycopg.Connection
) -> None:
    answer = ask("GET", "/conformance_things", params={"offset": 4})
    assert (answer.status_code, answer.text) == (200, "[]")
    answer = ask("GET", "/conformance_things", params={"offset": 4}, headers={"Prefer": "count=exact"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "*/3")
    if server.version == 12:
        body = assert_refused(answer, 416, "PGRST103")
        assert body["details"] == "An offset of 4 was requested, but there are only 3 rows."
    elif not REAL:
        assert answer.text == '{"'  # 13 declares the length of the rows; the client then makes a code of the status


def test_no_more_than_a_thousand_rows_come_at_once(ask: Ask, things: psycopg.Connection) -> None:
    things.execute("INSERT INTO conformance_things (id) SELECT generate_series(4, 1100)")
    assert ids(ask("GET", "/conformance_things", params={"order": "id"})) == list(range(1, 1001))
    assert len(ids(ask("GET", "/conformance_things", params={"limit": 1050}))) == 1000
    answer = ask("GET", "/conformance_things", params={"offset": 1000}, headers={"Prefer": "count=exact"})
    assert (len(ids(answer)), answer.headers["content-range"]) == (100, "1000-1099/1100")


def test_a_head_has_no_body(ask: Ask, things: psycopg.Connection) -> None:
    answer = ask("HEAD", "/conformance_things", headers={"Prefer": "count=exact"})
    assert (answer.status_code, answer.headers["content-range"], answer.content) == (200, "0-2/3", b"")


def test_reading_cannot_write(ask: Ask, things: psycopg.Connection) -> None:
    assert_refused(ask("GET", "/conformance_view"), 405, "25006")
    assert ids(ask("GET", "/conformance_things", params={"id": "eq.-1"})) == []


def test_an_unknown_table_is_a_404(server: Server, ask: Ask) -> None:
    body = assert_refused(ask("GET", "/no_such_table"), 404, "42P01" if server.version == 12 else "PGRST205")
    if server.version == 12:
        assert body["message"] == 'relation "public.no_such_table" does not exist'
    else:
        assert body["message"] == "Could not find the table 'public.no_such_table' in the schema cache"


def test_an_unknown_column_is_a_400(ask: Ask) -> None:
    for asked in ({"select": "no_such_column"}, {"no_such_column": "eq.1"}, {"order": "no_such_column"}):
        body = assert_refused(ask("GET", "/users", params=asked), 400, "42703")
        assert body["message"] == "column users.no_such_column does not exist"


def test_a_value_of_another_type_is_a_400(ask: Ask) -> None:
    body = assert_refused(ask("GET", "/users", params={"id": "eq.nobody"}), 400, "22P02")
    assert body["message"] == 'invalid input syntax for type uuid: "nobody"'


def test_a_filter_without_an_operator_is_a_400(ask: Ask) -> None:
    assert_refused(ask("GET", "/users", params={"id": str(uuid.uuid4())}), 400, "PGRST100")


# Deleting


def test_rows_are_deleted_by_a_filter(ask: Ask, things: psycopg.Connection) -> None:
    answer = ask("DELETE", "/conformance_things", params={"id": "eq.3"})
    assert (answer.status_code, answer.content) == (204, b"")
    answer = ask(
        "DELETE", "/conformance_things", params={"id": "not.is.null"}, headers={"Prefer": "return=representation"}
    )
    assert (answer.status_code, sorted(ids(answer))) == (200, [1, 2])
    assert ids(ask("GET", "/conformance_things")) == []


def test_what_another_row_needs_stays(ask: Ask, things: psycopg.Connection) -> None:
    assert_refused(ask("DELETE", "/conformance_things", params={"id": "eq.1"}), 409, "23503")
    assert ids(ask("GET", "/conformance_things", params={"order": "id"})) == [1, 2, 3]


# Calling a function


def test_a_function_answers_with_its_json(call: Ask) -> None:
    answer = call("add", {"p_id": 4, "p_text": "vier"})
    assert (answer.status_code, answer.json()) == (200, {"id": 4, "text": "vier"})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_what_a_function_did_is_committed_when_it_answers(call: Ask, things: psycopg.Connection) -> None:
    call("add", {"p_id": 4})
    assert things.execute("SELECT text FROM conformance_things WHERE id = 4").fetchall() == [("none",)]


def test_arguments_become_the_types_of_the_function(call: Ask) -> None:
    known = uuid.uuid4()
    given = {
        "p_at": "2026-11-24T14:00:00.000007+02:00",
        "p_id": str(known).upper(),
        "p_number": 2**63 - 1,
        "p_text": "Grüße 😀 \\ \" ' \n",
        "p_texts": ["a,b", '"', "", "{}"],
        "p_json": [{"a": None}, 1.5, "ü"],
    }
    answer = call("echo", given).json()
    assert answer.pop("at").startswith("2026-11-24T12:00:00.000007")
    assert answer.pop("epoch") == pytest.approx(1_795_521_600.000007, abs=1e-6)
    assert answer == {
        "id": str(known),
        "number": 2**63 - 1,
        "text": given["p_text"],
        "texts": given["p_texts"],
        "json": given["p_json"],
    }
    nothing = dict.fromkeys(given)
    assert set(call("echo", nothing).json().values()) == {None}


def test_a_function_of_nothing_answers_with_nothing(call: Ask) -> None:
    answer = call("nothing")
    assert (answer.status_code, answer.content) == (204, b"")
    answer = call("null")
    assert (answer.status_code, answer.text) == (200, "null")


def test_an_argument_of_another_type_is_a_400(call: Ask) -> None:
    body = assert_refused(call("add", {"p_id": "four"}), 400, "22P02")
    assert body["message"] == 'invalid input syntax for type integer: "four"'
    assert_refused(call("add", {"p_id": 2**31}), 400, "22003")
    assert_refused(call("add", {"p_id": 4, "p_text": "\0"}), 400, "22P05")


@pytest.mark.parametrize(
    ("arguments", "called"),
    [({}, " without parameters"), ({"p_text": "x"}, "(p_text)"), ({"p_id": 4, "p_else": 5}, "(p_else, p_id)")],
)
def test_wrong_names_of_arguments_are_a_404(call: Ask, arguments: dict[str, Any], called: str) -> None:
    body = assert_refused(call("add", arguments), 404, "PGRST202")
    assert body["message"] == f"Could not find the function public.conformance_add{called} in the schema cache"


def test_an_unknown_function_is_a_404(ask: Ask) -> None:
    body = assert_refused(ask("POST", "/rpc/no_such_function", json={"p_id": 4}), 404, "PGRST202")
    assert body["message"] == "Could not find the function public.no_such_function(p_id) in the schema cache"


def test_what_is_no_json_is_a_400(ask: Ask, things: psycopg.Connection) -> None:
    for content in (b'{"p_id": 4', b'{"p_id": NaN}', b"\xff"):
        answer = ask("POST", "/rpc/conformance_add", content=content, headers={"Content-Type": "application/json"})
        assert_refused(answer, 400, "PGRST102")


@pytest.mark.parametrize(
    ("arguments", "status", "code", "constraint"),
    [
        ({"p_id": 1}, 409, "23505", "conformance_things_pkey"),
        ({"p_id": 4, "p_n": 30}, 409, "23505", "conformance_n"),
        ({"p_id": 4, "p_parent": 9}, 409, "23503", "conformance_parent"),
        ({"p_id": 4, "p_n": -1}, 400, "23514", "conformance_positive"),
        ({"p_id": None}, 400, "23502", '"id"'),
    ],
)
def test_a_constraint_that_bites_says_which(
    call: Ask, arguments: dict[str, Any], status: int, code: str, constraint: str
) -> None:
    body = assert_refused(call("add", arguments), status, code)
    assert constraint in body["message"]
    assert body["details"]
    assert body["hint"] is None


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("P0001", 400),
        ("22000", 400),
        ("PT418", 418),
        ("25000", 500),
        ("40P01", 500),
        ("42883", 404),
        ("53100", 503),
        ("53400", 500),
        ("54000", 500),
        ("55P03", 500),
        ("57014", 500),
        ("P0002", 500),
        ("XX000", 500),
    ],
)
def test_an_exception_is_told_and_undoes_all_of_its_call(
    call: Ask, things: psycopg.Connection, code: str, status: int
) -> None:
    body = assert_refused(call("add_and_fail", {"p_id": 4, "p_state": code}), status, code)
    assert body == {"code": code, "message": "it fails", "details": "so it does", "hint": "do not"}
    assert things.execute("SELECT count(*) FROM conformance_things").fetchone() == (3,)


def test_what_fails_at_the_commit_is_told_too(call: Ask, things: psycopg.Connection) -> None:
    assert_refused(call("add_late", {"p_id": 4, "p_parent": 9}), 409, "23503")
    assert things.execute("SELECT count(*) FROM conformance_things").fetchone() == (3,)


def test_a_transaction_that_did_not_serialize_is_made_again(call: Ask, things: psycopg.Connection) -> None:
    things.execute("ALTER SEQUENCE conformance_attempts RESTART")
    assert call("add_at_the_third_attempt", {"p_id": 4}).status_code == 200
    assert things.execute("SELECT nextval('conformance_attempts')").fetchone() == (4,)


def test_a_stable_function_cannot_write(call: Ask, things: psycopg.Connection) -> None:
    assert_refused(call("add_by_stealth"), 405, "25006")
    assert things.execute("SELECT count(*) FROM conformance_things").fetchone() == (3,)


def test_many_calls_at_once_are_as_many_transactions(call: Ask, things: psycopg.Connection) -> None:
    with ThreadPoolExecutor(25) as threads:
        answers = list(threads.map(lambda _: call("raise", {"p_id": 3}), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert things.execute("SELECT n FROM conformance_things WHERE id = 3").fetchone() == (130,)


# Who is asking


def test_the_service_key_is_the_service_role_and_sees_every_row(call: Ask) -> None:
    answer = call("who").json()
    assert answer["role"] == answer["claims"]["role"] == "service_role"


def test_the_key_of_a_user_tells_who_it_is(call: Ask, keys: Keys) -> None:
    answer = call("who", headers=headers(keys.user("somebody"))).json()
    assert (answer["role"], answer["claims"]["sub"]) == ("authenticated", "somebody")


def test_row_level_security_without_a_policy_shows_nothing_to_anybody_else(
    ask: Ask, call: Ask, keys: Keys, things: psycopg.Connection
) -> None:
    for key in (keys.anon, keys.user("somebody")):
        answer = ask("GET", "/conformance_things", headers={"Prefer": "count=exact"} | headers(key))
        assert (answer.status_code, answer.text, answer.headers["content-range"]) == (200, "[]", "*/0")
        answer = ask("DELETE", "/conformance_things", params={"id": "not.is.null"}, headers=headers(key))
        assert answer.status_code == 204
        body = assert_refused(call("add", {"p_id": 4}, headers=headers(key)), 401 if key == keys.anon else 403, "42501")
        assert body["message"] == 'new row violates row-level security policy for table "conformance_things"'
    assert things.execute("SELECT count(*) FROM conformance_things").fetchone() == (3,)


def test_a_function_that_may_not_be_executed_is_a_401_for_anon_and_a_403_for_others(call: Ask, keys: Keys) -> None:
    assert call("closed").status_code == 200
    answer = call("closed", headers=headers(keys.anon))
    body = assert_refused(answer, 401, "42501")
    assert body["message"] == "permission denied for function conformance_closed"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert_refused(call("closed", headers=headers(keys.user("somebody"))), 403, "42501")


def test_a_table_that_may_not_be_read_is_a_401_for_anon_and_a_403_for_others(ask: Ask, keys: Keys) -> None:
    for table in ("users", "videos", "logs"):
        body = assert_refused(ask("GET", f"/{table}", headers=headers(keys.anon)), 401, "42501")
        assert body["message"] == f"permission denied for table {table}"
        assert_refused(ask("GET", f"/{table}", headers=headers(keys.user("somebody"))), 403, "42501")


@pytest.mark.skipif(bool(REAL), reason="a gateway answers before PostgREST does")
def test_without_a_key_one_is_anon(server: Server, call: Ask) -> None:
    for nobody in ({"apikey": server.service_key}, {"Authorization": f"Basic {server.service_key}"}):
        with httpx.Client(base_url=f"{server.url}/rest/v1", headers=nobody, trust_env=False) as client:
            assert client.post("/rpc/conformance_who", json={}).json()["role"] == "anon"


def test_a_key_that_another_secret_signed_is_a_401(server: Server, ask: Ask) -> None:
    forged = {"Authorization": f"Bearer {Keys().service}"}
    answer = ask("GET", "/users", headers=forged)
    assert_refused(answer, 401, "PGRST301")
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    for nonsense in ("a.b", "a.b.c", "nonsense"):
        assert_refused(ask("GET", "/users", headers={"Authorization": f"Bearer {nonsense}"}), 401, "PGRST301")


def test_a_key_that_has_expired_is_a_401_half_a_minute_later(server: Server, ask: Ask, keys: Keys) -> None:
    def authorized(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    expired = authorized(keys.sign("service_role", seconds=-60))
    answer = ask("GET", "/users", headers=expired)
    body = assert_refused(answer, 401, "PGRST301" if server.version == 12 else "PGRST303")
    assert body["message"] == "JWT expired"
    early = authorized(keys.sign("service_role", nbf=int(time.time()) + 60))
    assert assert_refused(ask("GET", "/users", headers=early), 401, body["code"])["message"] == "JWT not yet valid"
    assert ask("GET", "/users", headers=authorized(keys.sign("service_role", seconds=-10))).status_code == 200


def test_a_key_of_a_role_that_is_not_there_is_refused(server: Server, ask: Ask, keys: Keys) -> None:
    answer = ask("GET", "/users", headers={"Authorization": f"Bearer {keys.sign('no_such_role')}"})
    body = assert_refused(answer, 400 if server.version == 12 else 401, "22023")
    assert body["message"] == 'role "no_such_role" does not exist'


def test_a_key_of_a_role_that_is_for_nobody_is_refused(ask: Ask, keys: Keys) -> None:
    answer = ask("GET", "/users", headers={"Authorization": f"Bearer {keys.sign('postgres')}"})
    body = assert_refused(answer, 403, "42501")
    assert body["message"] == 'permission denied to set role "postgres"'


# And nothing else


@pytest.mark.skipif(bool(REAL), reason="a real one covers them")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/users"),
        ("PATCH", "/users?id=is.null"),
        ("PUT", "/users?id=is.null"),
        ("GET", "/rpc/conformance_who"),
        ("GET", "/"),
        ("GET", "/users?or=(id.is.null,email.is.null)"),
        ("GET", "/users?select=id,videos(id)"),
        ("GET", "/users?select=id::text"),
        ("GET", "/users?email=like.*x"),
        ("GET", "/users?email=eq(any).{x}"),
        ("GET", "/users?limit=-1"),
        ("GET", "/users?order=uploading.descending"),
        ("DELETE", "/users?id=is.null&limit=1"),
    ],
)
def test_the_stand_in_says_what_it_does_not_cover(ask: Ask, method: str, path: str) -> None:
    answer = ask(method, path)
    assert answer.status_code == 501
    assert "does not cover" in answer.json()["message"]
