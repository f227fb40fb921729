"""The faults before PostgREST are what they are called, the gateway says no in its own way, and no process is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from standins.faulty import (
    BAD_GATEWAY,
    EMPTY_LIST,
    INVALID_KEY,
    NULL,
    RESET,
    SILENCE,
    TEXT,
    UNAVAILABLE,
    Answer,
    Faulty,
    cut_clean,
    cut_short,
)
from standins.keys import Keys
from standins.postgres import Database, Postgres
from standins.postgrest import PostgREST
from standins.serving import Served, ServedApart

ADD = "/rest/v1/rpc/add"
MAKE = """
CREATE TABLE added (n integer);
CREATE FUNCTION add(p_n integer) RETURNS jsonb LANGUAGE sql AS $$
    INSERT INTO added VALUES (p_n);
    SELECT jsonb_build_object('added', p_n);
$$;
"""

Add = Callable[[], httpx.Response]


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Database:
    database = postgres.create_database(migrated=False)
    with psycopg.connect(database.as_owner, autocommit=True) as connection:
        connection.execute(MAKE.encode())
    return database


@pytest.fixture(scope="module")
def served(database: Database, keys: Keys) -> Iterator[Served]:
    app = PostgREST(database.as_authenticator, keys.secret, gateway={keys.anon, keys.service})
    with Served(app) as served:
        yield served


@pytest.fixture
def faulty(served: Served, database: Database) -> Iterator[Faulty]:
    database.clear()
    with Faulty(served.url) as faulty:
        yield faulty


@pytest.fixture
def client(faulty: Faulty, keys: Keys) -> Iterator[httpx.Client]:
    headers = {"apikey": keys.service, "Authorization": f"Bearer {keys.service}"}
    with httpx.Client(base_url=faulty.url, headers=headers, timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def add(client: httpx.Client) -> Add:
    return lambda: client.post(ADD, json={"p_n": 1})


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it has not happened within 20 s"
        time.sleep(0.02)


def count(database: Database) -> int:
    with psycopg.connect(database.as_owner) as connection:
        return len(connection.execute("SELECT FROM added").fetchall())


def test_what_is_not_struck_passes(faulty: Faulty, add: Add, database: Database) -> None:
    other = faulty.at("GET", ADD, RESET), faulty.at("POST", "/rest/v1/added", RESET)
    assert [add().json() for _ in range(3)] == [{"added": 1}] * 3
    assert count(database) == 3
    assert faulty.calls == [("POST", ADD)] * 3
    assert [strike.times_left for strike in other] == [1, 1]


def test_the_call_that_was_meant_is_struck_and_the_next_one_is_not(faulty: Faulty, add: Add) -> None:
    strike = faulty.at("POST", ADD, UNAVAILABLE, nth=2, times=3)
    assert [add().status_code for _ in range(6)] == [200, 503, 503, 503, 200, 200]
    assert strike.times_left == 0


@pytest.mark.parametrize(("after", "added"), [(False, 0), (True, 1)])
def test_a_connection_is_reset_before_or_after_the_call_is_done(
    faulty: Faulty, add: Add, database: Database, after: bool, added: int
) -> None:
    faulty.at("POST", ADD, RESET, after=after)
    with pytest.raises(httpx.ReadError, match="reset"):
        add()
    assert count(database) == added
    assert add().is_success


@pytest.mark.parametrize(("after", "added"), [(False, 0), (True, 1)])
def test_silence_lasts_until_the_caller_gives_up(
    faulty: Faulty, client: httpx.Client, database: Database, after: bool, added: int
) -> None:
    strike = faulty.at("POST", ADD, SILENCE, after=after)
    with pytest.raises(httpx.ReadTimeout):
        client.post(ADD, json={"p_n": 1}, timeout=0.3)
    wait_for(lambda: strike.times_left == 0)
    wait_for(lambda: count(database) == added)
    assert client.post(ADD, json={"p_n": 1}).is_success


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (BAD_GATEWAY, 502, "<html><body><h1>502 Bad Gateway</h1></body></html>"),
        (UNAVAILABLE, 503, "upstream connect error"),
        (INVALID_KEY, 401, '{"message":"Invalid API key"}'),
        (NULL, 200, "null"),
        (EMPTY_LIST, 200, "[]"),
        (TEXT, 200, '"text"'),
    ],
)
def test_another_answer_comes_in_place_of_the_real_one(
    faulty: Faulty, add: Add, database: Database, answer: Answer, status: int, body: str
) -> None:
    faulty.at("POST", ADD, answer)
    faulty.at("POST", ADD, answer, after=True)
    for added in (0, 1):
        struck = add()
        assert (struck.status_code, struck.text) == (status, body)
        assert count(database) == added


def test_an_answer_that_is_cut_short_is_seen_by_its_length(faulty: Faulty, add: Add, database: Database) -> None:
    faulty.at("POST", ADD, cut_short)
    with pytest.raises(httpx.RemoteProtocolError):
        add()
    assert count(database) == 1


def test_an_answer_that_is_cut_clean_is_seen_by_its_json_alone(faulty: Faulty, add: Add, database: Database) -> None:
    faulty.at("POST", ADD, cut_clean)
    answer = add()
    assert (answer.status_code, answer.text) == (200, '{"adde')
    assert count(database) == 1


def test_nobody_listens_for_a_while(faulty: Faulty, add: Add) -> None:
    assert add().is_success
    with faulty.refusing(), pytest.raises(httpx.ConnectError):
        add()
    assert add().is_success


@pytest.mark.parametrize(("key", "message"), [(None, "No API key found in request"), ("unknown", "Invalid API key")])
def test_the_gateway_refuses_an_unknown_key_without_a_code(
    served: Served, keys: Keys, key: str | None, message: str
) -> None:
    headers = {"Authorization": f"Bearer {keys.service}"} | ({} if key is None else {"apikey": key})
    answer = httpx.post(served.url + ADD, json={"p_n": 1}, headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["message"] == message
    assert "code" not in answer.json()


def test_it_can_be_a_process_that_is_killed_and_started_again(database: Database, keys: Keys) -> None:
    headers = {"apikey": keys.service, "Authorization": f"Bearer {keys.service}"}
    with ServedApart(database.as_authenticator, keys.secret) as standin:
        url = standin.url + ADD
        assert httpx.post(url, json={"p_n": 1}, headers=headers, trust_env=False).is_success
        standin.kill()
        with pytest.raises(httpx.ConnectError):
            httpx.post(url, json={"p_n": 1}, headers=headers, trust_env=False)
        standin.start()
        assert httpx.post(url, json={"p_n": 1}, headers=headers, trust_env=False).is_success
        standin.stop()


TESTER = """
import signal, sys, time
from standins.keys import Keys
from standins.postgres import Postgres
from standins.serving import ServedApart

# As in a terminal: what is started in the background inherits that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Postgres() as postgres, ServedApart(postgres.create_database().as_authenticator, Keys().secret):
    print(postgres.folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_tests(sign: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", TESTER], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tester:
        assert tester.stdout is not None
        folder = Path(tester.stdout.readline().decode().strip())
        started = psutil.Process(tester.pid).children(recursive=True)
        assert "postgres" in {process.name() for process in started}
        assert (folder / "data").is_dir()
        tester.send_signal(sign)
    wait_for(lambda: not folder.exists() and not any(_lives(process) for process in started))


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "20260101000000_wrong.sql").write_text("create table fine (id uuid);\nselect wrong;")
    postgres = Postgres(tmp_path)
    with pytest.raises(psycopg.errors.UndefinedColumn, match="wrong"), postgres:
        pass
    assert not postgres.folder.exists()


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
