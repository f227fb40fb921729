"""As on Cloud Run: five processes, each with an account of its own, and nobody else calls what is internal."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import videos
from e2e.books import audit
from e2e.people import Person
from e2e.processes import wait_for
from e2e.services import NAMES, Services, running
from standins.google import Google, account

from shared.auth import HEADER
from shared.identity import SERVERLESS_HEADER

SCHEDULER = account("scheduler")
CALLERS = [*(account(name) for name in NAMES if name != "logging"), SCHEDULER]
# No setting says where Google's certificates are. Python runs sitecustomize.py at its start, and so this can.
ELSEWHERE = "import os, shared.identity\nshared.identity.CERTS_URL = os.environ['CERTS_OF_THE_TEST']\n"


@pytest.fixture(scope="module")
def google() -> Google:
    return Google()


@pytest.fixture(scope="module")
def hosts(google: Google) -> Iterator[dict[str, str]]:
    """The metadata server of each service, which knows it by its account."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(google.serving(name)) for name in (*NAMES, "stranger")}


@pytest.fixture(scope="module")
def services(hosts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "sitecustomize.py").write_text(ELSEWHERE)

    def own(name: str, port: int) -> dict[str, str]:
        return {"GCE_METADATA_HOST": hosts[name], "SERVICE_URL": f"http://127.0.0.1:{port}"}

    settings = {
        "INTERNAL_CALLERS": ",".join(CALLERS),
        "PYTHONPATH": str(folder),
        "CERTS_OF_THE_TEST": f"http://{hosts['logging']}/certs",
    }
    with running(own=own, **settings) as services:
        yield services


def test_everything_works_and_each_is_ready(services: Services) -> None:
    ada = Person(services, "Ada")
    uploaded = ada.upload(videos.mp4()).json()["file"]
    assert services.client.get(uploaded["filepath"]).status_code == 200
    wait_for(lambda: ada.get("logging", f"/api/logs/user/{ada.id}").json()["total"] >= 2)
    assert ada.delete(uploaded["filename"]).status_code == 200
    for service in services:
        answer = services.client.get(f"{service.url}/ready")
        assert answer.status_code == 200, answer.text


def test_what_is_internal_needs_our_token_and_a_callers_identity(services: Services, google: Google) -> None:
    for service in services:
        url = f"{service.url}/internal/health"
        ours = services.service_headers()

        def status(url: str = url, **headers: str) -> int:
            return services.client.get(url, headers=headers).status_code

        for name in NAMES:
            token = google.token(service.url, account(name))
            allowed = account(name) in CALLERS
            assert status(**ours, **{HEADER: f"Bearer {token}"}) == (200 if allowed else 403)
            assert status(**{HEADER: f"Bearer {token}"}) == 401
        token = google.token(service.url, account("video"))
        assert status(**ours) == 401
        assert status(**ours, **{SERVERLESS_HEADER: f"Bearer {token}"}) == 401
        assert status(**ours, **{HEADER: f"Bearer {google.token('http://127.0.0.1:1', account('video'))}"}) == 401
        assert status(Authorization=f"Bearer {token}") == 401


def test_cloud_scheduler_sweeps(services: Services, google: Google) -> None:
    for name in ("video", "storage", "usage"):
        url = services[name].url
        for who, status in ((SCHEDULER, 200), (account("stranger"), 403)):
            headers = {"Authorization": f"Bearer {google.token(url, who)}"}
            assert services.client.post(f"{url}/internal/sweep", headers=headers).status_code == status


def test_a_service_that_is_somebody_else_is_told_so_by_its_own_check(
    services: Services, hosts: dict[str, str], tmp_path: Path
) -> None:
    def check(**other: str) -> str:
        own = {"SERVICE_URL": services["video"].url, "GCE_METADATA_HOST": hosts["video"], "DATA_DIR": str(tmp_path)}
        ended = subprocess.run(
            [sys.executable, "-m", "video_service", "check"],
            cwd=tmp_path,
            env=services.environment("video") | own | other,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.stdout

    assert re.search(rf"^ok .* identity +{re.escape(account('video'))}$", check(), re.MULTILINE)
    stranger = check(GCE_METADATA_HOST=hosts["stranger"])
    assert re.search(r"^FAIL .* storage-service .* does not take our identity", stranger, re.MULTILINE)
    nowhere = check(GCE_METADATA_HOST="127.0.0.1:1")
    assert re.search(r"^FAIL .* identity +the metadata server does not answer", nowhere, re.MULTILINE)


def test_no_token_is_ever_printed_and_the_books_are_in_order(services: Services) -> None:
    assert audit(services) == []
    marks = ("eyJ", HEADER.lower(), SERVERLESS_HEADER.lower())
    for service in services:
        said = service.said().lower()
        assert not any(mark.lower() in said for mark in marks), service.name


def test_certificates_are_googles_own_whatever_the_environment_says(hosts: dict[str, str], tmp_path: Path) -> None:
    """Whatever controls this URL could forge any caller."""
    environment = {"PATH": os.environ["PATH"], "CERTS_OF_THE_TEST": "http://x", "CERTS_URL": "http://x"}
    told = subprocess.run(
        [sys.executable, "-c", "import json, shared.identity as i; print(json.dumps(i.CERTS_URL))"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    assert json.loads(told) == "https://www.googleapis.com/oauth2/v1/certs"
