"""cloudbuild.yaml against Cloud Build's own description of a build, and what it sets against the code."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from google.cloud.devtools.cloudbuild_v1.types import Build
from google.protobuf import json_format
from standins.gcloud import ROOT, Project
from unit.deploy.conftest import GIVEN, NAMES, SECRETS, deployed, environment

from shared.settings import ServiceSettings, load

BUILT_IN = {"PROJECT_ID", "PROJECT_NUMBER", "BUILD_ID", "COMMIT_SHA"}
# What may differ between the five services; all else is alike.
OWN = {
    *("--image", "--service-account", "--set-env-vars", "--memory", "--concurrency", "--timeout", "--startup-probe"),
    *("--liveness-probe", "--use-http2", "--no-use-http2"),
}
LARGE_BODIES = {"video"}
MEMORY = {"Mi": 1, "Gi": 1024}


def settings_of(name: str) -> type[ServiceSettings]:
    kind: type[ServiceSettings] = importlib.import_module(f"{name}_service.config").Settings
    return kind


def url(name: str) -> str:
    return f"https://{name}-service-123456789012.europe-west3.run.app"


# ── the file ──


def test_it_is_a_build_as_cloud_build_describes_one(config: Any) -> None:
    build = Build.pb(Build())
    json_format.ParseDict(config, build)  # an unknown field, or a value of another type, is an error
    assert len(build.steps) == len(config["steps"])
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(config | {"step": []}, Build.pb(Build()))


def test_every_substitution_that_is_used_is_declared_and_every_other_way_round(config: Any) -> None:
    rest = json.dumps({key: value for key, value in config.items() if key != "substitutions"})
    used = set(re.findall(r"\$\{?(\w+)", rest))
    assert used - BUILT_IN == set(config["substitutions"])
    assert all(name.startswith("_") and isinstance(value, str) for name, value in config["substitutions"].items())


def test_the_readme_lists_every_substitution_with_its_default(config: Any) -> None:
    readme = (ROOT / "README.md").read_text()
    for name, default in config["substitutions"].items():
        row = re.search(rf"^\|[^|]*`{name}`[^|]*\|([^|]*)\|", readme, re.MULTILINE)
        assert row, name
        assert row[1].strip() == (f"`{default}`" if default else ""), name


def test_every_step_runs_a_script_that_is_there_and_waits_for_steps_before_it(config: Any) -> None:
    before: set[str] = set()
    for step in config["steps"]:
        assert step["entrypoint"] in ("bash", "sh")
        assert (ROOT / step["args"][0]).is_file()
        assert step["waitFor"] == ["-"] or set(step["waitFor"]) <= before
        before.add(step["id"])
    waiting = {step["id"]: set(step["waitFor"]) for step in config["steps"]}
    builds, deploys = ({f"{what}-{name}" for name in NAMES} for what in ("build", "deploy"))
    assert all(waiting[step] == {"-"} for step in builds), "at the same time"
    assert waiting["migrate"] == builds
    assert all(waiting[step] == {"migrate"} for step in deploys)
    assert waiting["promote"] == deploys
    assert before == builds | deploys | {"migrate", "promote"}


def test_what_the_scripts_read_is_what_the_build_gives_them(config: Any) -> None:
    """They run with ``set -u``: a variable that is not given would end them, in whatever branch."""
    given = {pair.split("=")[0] for pair in config["options"]["env"]}
    local = {"SERVICES", "SWEEPERS", "REPOSITORY", "TAG", "PGOPTIONS", "DATABASE_URL", "DOCKER_BUILDKIT", "IFS"}
    read: set[str] = set()
    for script in ("names", "build", "deploy", "promote", "migrate"):
        text = re.sub(r"^\s*#.*$", "", (ROOT / f"deploy/{script}.sh").read_text(), flags=re.MULTILINE)
        read |= set(re.findall(r"\$\{?#?([A-Z][A-Z_]+)\b", text))
    assert read - local == given


def test_shellcheck_finds_nothing() -> None:
    scripts = sorted((ROOT / "deploy").glob("*.sh"))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    said = subprocess.run(
        [shellcheck, "--external-sources", *(script.relative_to(ROOT) for script in scripts)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")
    assert len(scripts) == 6


def test_each_dockerfile_has_the_stage_whose_layers_are_kept() -> None:
    for name in NAMES:
        assert re.search(r"^FROM \S+ AS build$", (ROOT / f"{name}-service/Dockerfile").read_text(), re.MULTILINE)


# ── what it deploys ──


@pytest.mark.parametrize("name", NAMES)
def test_everything_it_sets_is_a_setting_of_that_service_and_complete(
    released: Project, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = deployed(released, name)
    set_here = environment(flags)
    secrets = dict(pair.split("=", 1) for pair in flags["--set-secrets"].split(","))
    kind = settings_of(name)
    assert {variable.lower() for variable in [*set_here, *secrets]} <= set(kind.model_fields)

    monkeypatch.chdir(tmp_path)
    for field in kind.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    values = {variable: released.state["secrets"][which.split(":")[0]][-1] for variable, which in secrets.items()}
    for variable, value in (set_here | values).items():
        monkeypatch.setenv(variable, value)
    settings = load(kind)
    assert not settings.needs_disk, "nothing of Cloud Run's lasts"
    assert settings.origins == GIVEN["_FRONTEND_URL"].split(",")
    assert settings.service_url == url(name)
    accounts = ("user", "video", "storage", "usage", "scheduler")
    assert settings.callers == {f"short-video-{one}@my-project.iam.gserviceaccount.com" for one in accounts}
    for peer in [field for field in kind.model_fields if field.endswith("_service_url")]:
        assert getattr(settings, peer) == url(peer.removesuffix("_service_url"))
    if name == "video":
        assert settings.storage_public_url == url("storage")  # type: ignore[attr-defined]
    if name == "storage":
        assert f"gs://{settings.gcs_bucket}" in released.state["buckets"]  # type: ignore[attr-defined]
    assert set_here.get("HTTP2") == ("true" if name in LARGE_BODIES else None)


def test_no_secret_is_a_variable_that_everybody_may_read(released: Project) -> None:
    said = json.dumps(released.calls)
    for values in released.state["secrets"].values():
        for value in values:
            assert value not in said.replace(json.dumps(["psql", SECRETS["DATABASE_URL"]])[1:-1], "")


def test_the_five_are_deployed_alike_but_for_what_is_stated(released: Project) -> None:
    alike = {
        json.dumps({flag: value for flag, value in deployed(released, name).items() if flag not in OWN}, sort_keys=True)
        for name in NAMES
    }
    assert len(alike) == 1
    common = json.loads(alike.pop())
    assert "--no-invoker-iam-check" in common
    assert "--no-cpu-throttling" in common, "logs, the outbox and reports go on after an answer"
    assert len({deployed(released, name)["--service-account"] for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_service_that_takes_large_bodies_speaks_http2_and_has_the_time(released: Project, name: str) -> None:
    flags = deployed(released, name)
    port = flags["--port"]
    assert ("--use-http2" in flags) == (name in LARGE_BODIES)
    assert ("--no-use-http2" in flags) == (name not in LARGE_BODIES)
    if name in LARGE_BODIES:
        assert int(flags["--timeout"]) >= 600
        # An HTTP probe speaks HTTP/1: https://docs.cloud.google.com/run/docs/configuring/healthchecks
        assert f"tcpSocket.port={port}" in flags["--startup-probe"]
        assert flags["--liveness-probe"] == ""
    else:
        for probe in (flags["--startup-probe"], flags["--liveness-probe"]):
            assert {f"httpGet.port={port}", "httpGet.path=/health"} <= set(probe.split(","))


def test_no_service_has_less_memory_than_compose_gives_it(released: Project) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in NAMES:
        given = deployed(released, name)["--memory"]
        megabytes = int(given[:-2]) * MEMORY[given[-2:]]
        assert megabytes >= int(services[f"{name}-service"]["mem_limit"].removesuffix("m"))
        assert megabytes >= 512, "less cannot be had while the CPU is not throttled"


async def test_cloud_scheduler_calls_the_sweeps_that_there_are_and_no_other(released: Project) -> None:
    targets = {job["--uri"]: job for job in released.state["jobs"].values()}
    statuses = {}
    for name in NAMES:
        app = importlib.import_module(f"{name}_service.main").create_app(
            settings_of(name)(_env_file=None, jwt_secret="x" * 32)  # type: ignore[call-arg]
        )
        app.state.context = SimpleNamespace(identity=None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            statuses[f"{url(name)}/internal/sweep"] = (await client.post("http://it/internal/sweep")).status_code
    assert set(statuses.values()) == {401, 404}
    assert set(targets) == {target for target, status in statuses.items() if status == 401}
    for target, job in targets.items():
        assert job["--http-method"] == "POST"
        assert job["--oidc-token-audience"] == target.removesuffix("/internal/sweep"), "as SERVICE_URL has it"
        caller = job["--oidc-service-account-email"]
        callers = environment(deployed(released, target.removeprefix("https://").split("-")[0]))["INTERNAL_CALLERS"]
        assert caller in callers.split(",")
