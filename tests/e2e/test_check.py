"""``python -m <service> check``: one line for each thing that a service stands on, and in each what is to be done."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.engines import Cloud, Engine
from e2e.services import NAMES, Services, running
from standins import faulty
from standins.faulty import Faulty, What

LOGS = "20261125000500_logs"
PAUSED = faulty.answer("540 Project Paused", "text/html", b"<html>This project is paused</html>")


@pytest.fixture(scope="module")
def services(new_engine: Callable[[], Engine | None]) -> Iterator[Services]:
    with running(new_engine()) as services:
        yield services


@pytest.fixture(scope="module")
def cloud(another_cloud: Callable[[], Cloud]) -> Cloud:
    return another_cloud()


def check(service: str, folder: Path, **settings: str) -> tuple[int, list[str]]:
    """Its exit status and its lines; nothing else may be said."""
    environment = {"PATH": os.environ["PATH"], "JWT_SECRET": "s" * 40, "DATA_DIR": str(folder / "data")} | settings
    command = [sys.executable, "-m", f"{service}_service", "check"]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines()


def the_one_that_failed(lines: list[str], what: str) -> str:
    (line,) = [line for line in lines if line.startswith("FAIL") and f" {what} " in line]
    return line


@pytest.mark.parametrize("name", NAMES)
def test_where_everything_answers_all_is_well(services: Services, name: str) -> None:
    before = services.engine.stored()
    status, lines = check(name, services.folder, **services.environment(name))
    assert (status, [line for line in lines if not line.startswith("ok")]) == (0, [])
    told = {line.split()[2] for line in lines}
    assert {"settings", "database"} <= told
    assert ("objects" in told) == (name == "storage")
    assert services.engine.stored() == before, "the object it tried is gone again"
    assert services.secret not in "".join(lines)


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        (faulty.INVALID_KEY, "SUPABASE_URL and SUPABASE_KEY"),
        (faulty.answer("401 X", "application/json", b'{"code":"PGRST301","message":"JWSError"}'), "service_role"),
        (PAUSED, "paused"),
        (faulty.answer("404 X", "application/json", b'{"code":"PGRST205","message":"no table"}'), "supabase db push"),
        (faulty.answer("404 X", "application/json", b'{"code":"42P01","message":"no table"}'), "supabase db push"),
        (faulty.BAD_GATEWAY, "502"),
    ],
    ids=["key of another project", "wrong key", "paused", "no table, 13", "no table, 12", "gateway"],
)
def test_a_database_that_does_not_serve_us_gets_a_sentence_that_says_what_to_do(
    cloud: Cloud, tmp_path: Path, what: What, advice: str
) -> None:
    with Faulty(cloud.settings["SUPABASE_URL"]) as proxy:
        proxy.at("GET", "/", what, times=9)
        status, lines = check("logging", tmp_path, **cloud.settings | {"SUPABASE_URL": proxy.url})
    assert status == 1
    assert advice in the_one_that_failed(lines, "database")
    assert cloud.settings["SUPABASE_KEY"] not in "".join(lines)


def test_nobody_there_is_told_with_the_setting(cloud: Cloud, tmp_path: Path) -> None:
    status, lines = check("logging", tmp_path, **cloud.settings | {"SUPABASE_URL": "http://127.0.0.1:9"})
    assert status == 1
    assert "SUPABASE_URL" in the_one_that_failed(lines, "database")


def test_peers_with_another_secret_are_told_apart(services: Services) -> None:
    status, lines = check("usage", services.folder, **services.environment("usage") | {"JWT_SECRET": "x" * 40})
    assert status == 1
    assert "JWT_SECRET" in the_one_that_failed(lines, "logging-service")


def test_a_key_for_browsers_is_told_apart(cloud: Cloud, tmp_path: Path) -> None:
    status, lines = check("logging", tmp_path, **cloud.settings | {"SUPABASE_KEY": "sb_publishable_x"})
    assert status == 1
    assert "service_role or secret key" in the_one_that_failed(lines, "settings")


def test_the_migration_that_is_missing_is_named(another_cloud: Callable[[], Cloud], tmp_path: Path) -> None:
    cloud = another_cloud()
    cloud.execute("logging", "DELETE FROM short_video_migrations WHERE name = ?", LOGS)
    status, lines = check("logging", tmp_path, **cloud.settings)
    assert status == 1
    assert f"{LOGS} has not been applied: apply it with psql" in the_one_that_failed(lines, "database")


def test_a_missing_bucket_and_a_missing_peer_each_get_a_sentence(cloud: Cloud, tmp_path: Path) -> None:
    settings = cloud.settings | {"GCS_BUCKET": "nobodys-bucket", "VIDEO_SERVICE_URL": "http://127.0.0.1:9"}
    status, lines = check("storage", tmp_path, **settings)
    assert status == 1
    assert "is there such a bucket?" in the_one_that_failed(lines, "objects")
    assert "start it, or correct VIDEO_SERVICE_URL" in the_one_that_failed(lines, "video-service")
    assert not (tmp_path / "data").exists(), "nothing is kept on a disk"


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    status, lines = check("usage", tmp_path, DATA_DIR="/proc/none")
    assert status == 1
    assert "/proc/none" in the_one_that_failed(lines, "database")
