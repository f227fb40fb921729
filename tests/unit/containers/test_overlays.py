"""What the compose files for Supabase and for one origin ask for, alone and together, as Compose understands it."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jose import jwt

from shared.settings import ServiceSettings, load

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("user", "video", "storage", "usage", "logging")
COMBINATIONS = [("supabase",), ("edge",), ("supabase", "edge")]
OURS = {f"{name}-service" for name in NAMES}
ADDED = {"supabase": {"database", "migrations", "rest", "bucket", "gateway"}, "edge": {"edge"}}


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    """By the program that the README has for them."""
    said = subprocess.run([ROOT / "scripts/supabase-secrets"], capture_output=True, text=True, timeout=30, check=True)
    return {"JWT_SECRET": "x" * 32} | dict(line.split("=", 1) for line in said.stdout.splitlines())


def compose(folder: Path, overlays: tuple[str, ...], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """From an empty folder, lest it reads the .env of the one who tests."""
    files = [ROOT / "docker-compose.yml", *(ROOT / f"docker-compose.{overlay}.yml" for overlay in overlays)]
    named = [part for file in files for part in ("--file", file)]
    return subprocess.run(
        [
            Path(sys.executable).with_name("docker-compose"),
            *("--project-directory", folder, *named, "config", "--format", "json"),
        ],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def asked(folder: Path, overlays: tuple[str, ...], environment: dict[str, str]) -> Any:
    said = compose(folder, overlays, environment)
    assert (said.returncode, said.stderr) == (0, "")
    return json.loads(said.stdout)["services"]


def settings_of(name: str) -> type[ServiceSettings]:
    kind: type[ServiceSettings] = importlib.import_module(f"{name}_service.config").Settings
    return kind


def accepted(name: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    kind = settings_of(name)
    monkeypatch.chdir(folder)
    for field in kind.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    return load(kind)


every_combination = pytest.mark.parametrize("overlays", COMBINATIONS, ids="+".join)


@every_combination
def test_what_each_adds_is_there(tmp_path: Path, overlays: tuple[str, ...], secrets: dict[str, str]) -> None:
    services = asked(tmp_path, overlays, secrets)
    assert set(services) == OURS.union(*(ADDED[overlay] for overlay in overlays))


@every_combination
@pytest.mark.parametrize("name", NAMES)
def test_everything_they_set_is_a_setting_of_that_service_and_accepted(
    tmp_path: Path, overlays: tuple[str, ...], name: str, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = asked(tmp_path, overlays, secrets)[f"{name}-service"]["environment"]
    assert {variable.lower() for variable in environment} <= set(settings_of(name).model_fields)
    settings = accepted(name, environment, monkeypatch, tmp_path)
    assert settings.needs_disk == ("supabase" not in overlays)
    for peer in [field for field in settings_of(name).model_fields if field.endswith("_service_url")]:
        assert getattr(settings, peer) == f"http://{peer.removesuffix('_url').replace('_', '-')}:3000"
    if "supabase" in overlays:
        assert settings.supabase_url == "http://gateway:8000"
        assert settings.supabase_key.get_secret_value() == secrets["SUPABASE_KEY"]


@every_combination
def test_everything_is_confined_and_pinned_and_checked(
    tmp_path: Path, overlays: tuple[str, ...], secrets: dict[str, str]
) -> None:
    for name, service in asked(tmp_path, overlays, secrets).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert not service.keys() & {"privileged", "network_mode", "pid", "cap_add"}, name
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                assert mount["read_only"], name
        if name in ("database", "gateway", "edge"):
            assert service["healthcheck"]["test"], name
            assert service["user"] not in ("root", "0", "0:0"), name
        if "build" not in service:
            assert re.search(r":v?\d+(\.\d+)*$", service["image"]), f"{name} is not pinned"


@every_combination
def test_each_starts_when_what_it_needs_is_there(
    tmp_path: Path, overlays: tuple[str, ...], secrets: dict[str, str]
) -> None:
    services = asked(tmp_path, overlays, secrets)
    needed = {name: service.get("depends_on", {}) for name, service in services.items()}
    healthy = {"condition": "service_healthy", "required": True}
    for name in OURS if "supabase" in overlays else []:
        assert needed[name]["gateway"] == healthy
    if "supabase" in overlays:
        assert needed["storage-service"]["bucket"] == healthy
        assert needed["migrations"]["database"] == healthy
        assert needed["rest"]["migrations"]["condition"] == "service_completed_successfully"
        assert services["migrations"]["restart"] == "no"
        assert {"rest", "bucket"} <= set(needed["gateway"])
    if "edge" in overlays:
        assert needed["edge"] == dict.fromkeys(OURS, healthy)


@every_combination
def test_what_is_published(tmp_path: Path, overlays: tuple[str, ...], secrets: dict[str, str]) -> None:
    """Never the database, PostgREST or the emulator; behind the edge no service either."""
    services = asked(tmp_path, overlays, secrets | {"EDGE_PORT": "28080", "BUCKET_PORT": "24443"})
    found = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    expected = {"edge": "28080"} if "edge" in overlays else {f"{name}-service": "" for name in NAMES}
    expected |= {"gateway": "24443"} if "supabase" in overlays else {}
    assert set(found) == set(expected)
    for name, ports in found.items():
        (port,) = ports
        assert port["host_ip"] == "127.0.0.1"
        assert port["published"] == expected[name] or not expected[name]
    public = services["video-service"]["environment"]["STORAGE_PUBLIC_URL"]
    assert public == ("http://localhost:28080" if "edge" in overlays else "http://localhost:3003")
    if "supabase" in overlays:
        storage = services["storage-service"]["environment"]
        assert storage["STORAGE_EMULATOR_PUBLIC_URL"] == "http://localhost:24443"
        assert storage["STORAGE_EMULATOR_HOST"] == f"http://{services['bucket']['environment']['ADDRESS']}"
        assert storage["GCS_BUCKET"] == services["bucket"]["environment"]["BUCKET"]


def test_other_machines_get_in_by_the_edge_alone(tmp_path: Path, secrets: dict[str, str]) -> None:
    services = asked(tmp_path, ("edge",), secrets | {"PUBLISH_ON": "0.0.0.0"})
    open_to_others = {
        name: service["ports"][0]["host_ip"] for name, service in services.items() if service.get("ports")
    }
    assert open_to_others == {"edge": "0.0.0.0"}


def test_without_a_secret_it_refuses_and_says_what_to_do(tmp_path: Path, secrets: dict[str, str]) -> None:
    assert set(secrets) == {
        "JWT_SECRET",
        "SUPABASE_KEY",
        "PGRST_JWT_SECRET",
        "POSTGRES_PASSWORD",
        "AUTHENTICATOR_PASSWORD",
    }
    for missing in secrets:
        said = compose(tmp_path, ("supabase",), {name: value for name, value in secrets.items() if name != missing})
        assert said.returncode != 0
        assert missing in said.stderr
        assert "README.md" in said.stderr or "scripts/supabase-secrets" in said.stderr


def test_no_secret_stands_in_a_file(secrets: dict[str, str]) -> None:
    files = [*ROOT.glob("docker-compose*.yml"), *(ROOT / "containers").iterdir()]
    assert len(files) > 6
    for file in files:
        for line in file.read_text().splitlines():
            if found := re.match(r"\s*\w*(SECRET|KEY|PASSWORD)\w*[:=]\s*(.+)", line):
                assert found[2].startswith("${"), f"{file.name}: {line}"


def test_the_key_is_signed_with_postgrests_secret_and_new_each_time(secrets: dict[str, str]) -> None:
    claims = jwt.decode(secrets["SUPABASE_KEY"], secrets["PGRST_JWT_SECRET"], algorithms=["HS256"])
    assert claims == {"iss": "supabase", "role": "service_role"}
    assert len(set(secrets.values())) == len(secrets)
    for name in ("PGRST_JWT_SECRET", "POSTGRES_PASSWORD", "AUTHENTICATOR_PASSWORD"):
        assert re.fullmatch(r"[0-9a-f]{48,}", secrets[name]), "it goes into a URL"
    again = subprocess.run([ROOT / "scripts/supabase-secrets"], capture_output=True, text=True, timeout=30, check=True)
    assert not set(secrets.values()) & {line.split("=", 1)[1] for line in again.stdout.splitlines()}


def test_postgrest_is_who_the_migrations_made_it_and_uses_that_secret(tmp_path: Path, secrets: dict[str, str]) -> None:
    services = asked(tmp_path, ("supabase",), secrets)
    rest, migrations = services["rest"]["environment"], services["migrations"]["environment"]
    password = secrets["AUTHENTICATOR_PASSWORD"]
    assert rest["PGRST_DB_URI"] == f"postgres://authenticator:{password}@database:5432/postgres"
    assert rest["PGRST_JWT_SECRET"] == secrets["PGRST_JWT_SECRET"]
    assert migrations["AUTHENTICATOR_PASSWORD"] == password
    assert migrations["PGPASSWORD"] == services["database"]["environment"]["POSTGRES_PASSWORD"]


def test_nginx_has_the_videos_as_their_owner_has_them_and_may_only_read(
    tmp_path: Path, secrets: dict[str, str]
) -> None:
    services = asked(tmp_path, ("edge",), secrets)
    (mine,) = [mount for mount in services["edge"]["volumes"] if mount["type"] == "volume"]
    (theirs,) = services["storage-service"]["volumes"]
    assert (mine["source"], mine["target"]) == (theirs["source"], theirs["target"])
    assert mine["read_only"]
    dockerfile = (ROOT / "storage-service/Dockerfile").read_text()
    assert services["edge"]["user"].split(":")[0] == re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE)[-1]
