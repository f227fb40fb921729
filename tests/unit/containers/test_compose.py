"""What docker-compose.yml asks for, as Compose itself understands it; no engine is needed for that."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.settings import ServiceSettings, load

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("user", "video", "storage", "usage", "logging")
SECRET = "x" * 32
# Of the interpreter and of the image, not of a service.
VARIABLES = {"PATH": os.environ["PATH"]}


def compose(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """From an empty folder, lest it reads the .env of the one who tests."""
    return subprocess.run(
        [
            Path(sys.executable).with_name("docker-compose"),
            *("--project-directory", folder, "--file", ROOT / "docker-compose.yml", "config", "--format", "json"),
        ],
        cwd=folder,
        env=VARIABLES | {"HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    said = compose(tmp_path_factory.mktemp("empty"), JWT_SECRET=SECRET)
    assert (said.returncode, said.stderr) == (0, "")
    return json.loads(said.stdout)["services"]


def settings_of(name: str) -> type[ServiceSettings]:
    kind: type[ServiceSettings] = importlib.import_module(f"{name}_service.config").Settings
    return kind


def test_without_a_secret_it_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    for given in ({}, {"JWT_SECRET": ""}):
        said = compose(tmp_path, **given)
        assert said.returncode != 0
        assert "JWT_SECRET" in said.stderr
        assert "README.md" in said.stderr


def test_the_five_services_are_there(asked: Any) -> None:
    assert set(asked) == {f"{name}-service" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_everything_it_sets_is_a_setting_of_that_service_and_accepted(
    asked: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = asked[f"{name}-service"]["environment"]
    kind = settings_of(name)
    assert {variable.lower() for variable in environment} <= set(kind.model_fields)
    monkeypatch.chdir(tmp_path)
    for field in kind.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load(kind)
    assert settings.needs_disk, "the embedded backends"
    peers = {field for field in kind.model_fields if field.endswith("_service_url")}
    for peer in peers:
        assert getattr(settings, peer) == f"http://{peer.removesuffix('_url').replace('_', '-')}:3000"


def test_a_browser_on_the_host_reaches_the_media_where_the_port_is_published(tmp_path: Path) -> None:
    for given, port in (({}, "3003"), ({"STORAGE_PORT": "23003"}, "23003")):
        services = json.loads(compose(tmp_path, JWT_SECRET=SECRET, **given).stdout)["services"]
        assert services["video-service"]["environment"]["STORAGE_PUBLIC_URL"] == f"http://localhost:{port}"
        assert [published["published"] for published in services["storage-service"]["ports"]] == [port]


def test_each_is_published_where_the_frontend_looks_for_it_and_on_this_machine_alone(tmp_path: Path) -> None:
    """Whatever PUBLISH_ON is: it is the edge that other machines may reach."""
    said = compose(tmp_path, JWT_SECRET=SECRET, PUBLISH_ON="0.0.0.0")
    ports = {name: json.loads(said.stdout)["services"][f"{name}-service"]["ports"] for name in NAMES}
    assert {name: [port["published"] for port in found] for name, found in ports.items()} == {
        name: [str(3001 + number)] for number, name in enumerate(NAMES)
    }
    assert {(port["host_ip"], port["target"]) for found in ports.values() for port in found} == {("127.0.0.1", 3000)}


def test_each_is_confined(asked: Any) -> None:
    for name, service in asked.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert [volume["type"] for volume in service["volumes"]] == ["volume"], name
        assert not service.keys() & {"privileged", "network_mode", "pid", "cap_add", "user"}, name
    volumes = [volume["source"] for service in asked.values() for volume in service["volumes"]]
    assert len(set(volumes)) == len(NAMES), "none shares its data"


def test_a_service_starts_after_those_it_asks_unless_they_ask_it(asked: Any) -> None:
    needed = {name: set(service.get("depends_on", {})) for name, service in asked.items()}
    for name in NAMES:
        service = f"{name}-service"
        peers = {
            field.removesuffix("_url").replace("_", "-")
            for field in settings_of(name).model_fields
            if field.endswith("_service_url")
        }
        assert needed[service] == {peer for peer in peers if service not in needed[peer]}
        conditions = {after["condition"] for after in asked[service].get("depends_on", {}).values()}
        assert conditions <= {"service_healthy"}
