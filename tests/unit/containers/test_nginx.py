"""What the two nginx configurations say, where no nginx is at hand; tests/containers runs them."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared.settings import MIB

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("user", "video", "storage", "usage", "logging")
TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | ("(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [{};] | (?:\$\{\w+\}|[^\s{};'"])+)""", re.VERBOSE
)
STATUS = {"/health", "/ready"}


@dataclass
class Directive:
    words: list[str]
    inside: list["Directive"] = field(default_factory=list)

    def all(self, *words: str) -> list["Directive"]:
        return [one for one in self.inside if one.words[: len(words)] == list(words)]

    def one(self, *words: str) -> "Directive":
        (found,) = self.all(*words)
        return found

    def value(self, name: str) -> str:
        return self.one(name).words[1]


def parsed(name: str) -> Directive:
    text = (ROOT / "containers" / name).read_text()
    stack, words, at = [Directive([])], list[str](), 0
    while at < len(text):
        found = TOKEN.match(text, at)
        assert found, f"{name}: {text[at : at + 30]!r}"
        at = found.end()
        match found[1]:
            case None:
                pass
            case ";" | "{" as end:
                assert words, f"{name}: nothing before {end}"
                directive = Directive(words)
                stack[-1].inside.append(directive)
                if end == "{":
                    stack.append(directive)
                words = []
            case "}":
                assert not words, f"{name}: a ; is missing after {words}"
                stack.pop()
                assert stack, f"{name}: a }} too many"
            case word:
                words.append(word.strip("\"'"))
    assert len(stack) == 1, f"{name}: a }} is missing"
    return stack[0]


@pytest.fixture(scope="module")
def http() -> Directive:
    return parsed("edge.conf").one("http")


@pytest.fixture(scope="module")
def server(http: Directive) -> Directive:
    return http.one("server")


def services_by_path(http: Directive) -> list[tuple[str, str]]:
    return [(one.words[0].removeprefix("~"), one.words[1]) for one in http.one("map", "$uri", "$service").inside]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_route_is_published_and_goes_to_its_service(http: Directive, tmp_path: Path, name: str) -> None:
    kind = importlib.import_module(f"{name}_service.config").Settings
    settings = kind(_env_file=None, jwt_secret="x" * 32, data_dir=tmp_path, supabase_url=None, supabase_key=None)
    paths: set[str] = set(importlib.import_module(f"{name}_service.main").create_app(settings).openapi()["paths"])
    assert paths > STATUS
    for path in paths - STATUS:
        assert {service for prefix, service in services_by_path(http) if re.match(prefix, path)} == {f"{name}-service"}


def test_nothing_else_is_published(http: Directive, server: Directive) -> None:
    assert {prefix for prefix, _ in services_by_path(http)} == {
        "^/api/users/",
        "^/api/videos/",
        "^/api/storage/",
        "^/api/usage/",
        "^/api/logs/",
        "^/media/",
    }
    passing = [" ".join(one.words[1:]) for one in server.all("location") if one.all("proxy_pass")]
    assert passing == ["~ ^/api/", "~ ^/media/"]
    assert server.one("location", "~", "^/api/").one("if").words[1:] == ["($service", "=", "", ")"]
    assert server.one("location", "/").value("return") == "404"


@pytest.mark.parametrize(
    ("path", "crooked"),
    [
        ("/api/users/login", False),
        ("/media/ABC-_/film-_1.mp4", False),
        ("/api/videos/stream?start=4&q=%2e%2e//x", False),
        ("/api/users/../../internal/sweep", True),
        ("/internal/../api/users/login", True),
        ("/api/users/%2e%2e/x", True),
        ("/api/users/..%2fx", True),
        ("//internal", True),
        ("/api/users/.", True),
        ("/api/users/..", True),
        ("/media/x/..?a", True),
        ("/api/a\\b", True),
        ("http://elsewhere/api/users/login", True),
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_nobodys(
    http: Directive, server: Directive, path: str, crooked: bool
) -> None:
    patterns = [one.words[0].removeprefix("~") for one in http.one("map", "$request_uri", "$crooked").inside]
    assert any(re.search(pattern, path) for pattern in patterns if pattern != "default") == crooked
    assert server.one("if").words == ["if", "($crooked)"]
    assert server.one("if").value("return") == "404"


def test_uploads_pass_through_as_they_come(http: Directive) -> None:
    assert http.value("proxy_request_buffering") == "off"
    assert http.value("proxy_http_version") == "1.1"
    assert http.one("proxy_set_header", "Connection").words[2] == "", "or a refusal before the end would be lost"
    assert http.value("proxy_max_temp_file_size") == "0"
    # 0 is no limit of its own; a service has the right one, whatever MAX_UPLOAD_MB is.
    most = http.value("client_max_body_size")
    assert most == "0" or int(most) > 50 * MIB + 65_536
    video = importlib.import_module("video_service.config").Settings.model_fields
    assert int(http.value("client_body_timeout").rstrip("s")) > video["upload_idle_seconds"].default


def test_what_the_services_leave_to_their_front_has_an_end(http: Directive, server: Directive) -> None:
    """Heads, how slowly they come, how slowly a body comes and an answer is taken."""
    count, size = http.one("large_client_header_buffers").words[1:]
    assert int(count) * int(size.rstrip("k")) * 1024 == 64 * 1024, "as much as Cloud Run lets through"
    assert int(http.value("client_header_timeout").rstrip("s")) <= 30
    assert int(http.value("send_timeout").rstrip("s")) <= 120
    assert int(http.value("keepalive_timeout").rstrip("s")) <= 75
    assert http.value("reset_timedout_connection") == "on"
    assert server.one("error_page", "400").words[-1] == "/refused/400"
    assert server.one("error_page", "414", "494").words[-2:] == ["=431", "/refused/431"]
    for status in ("400", "431"):
        location = server.one("location", "=", f"/refused/{status}")
        assert location.all("internal")
        _, answered, body = location.one("return").words
        assert answered == status
        assert json.loads(body.replace("\\'", "'"))["message"]


def test_the_videos_are_sent_from_their_folder_by_the_location_that_storage_service_names(
    server: Directive, tmp_path: Path
) -> None:
    said = subprocess.run(
        [
            *(Path(sys.executable).with_name("docker-compose"), "--project-directory", tmp_path),
            *("--file", ROOT / "docker-compose.yml", "--file", ROOT / "docker-compose.edge.yml"),
            *("config", "--format", "json"),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "JWT_SECRET": "x" * 32},
        capture_output=True,
        timeout=60,
        check=True,
    )
    services: Any = json.loads(said.stdout)["services"]
    location = server.one("location", services["storage-service"]["environment"]["ACCEL_REDIRECT"])
    assert location.all("internal")
    assert location.value("alias") == "/data/objects/", "not the databases beside it"
    assert (location.value("max_ranges"), location.value("etag")) == ("1", "off")
    assert location.value("if_modified_since") == "off"
    assert location.value("disable_symlinks") == "on"
    assert services["edge"]["ports"][0]["target"] == int(server.value("listen"))
    # Nobody but storage-service's media may name a file.
    assert "X-Accel-Redirect" in server.one("location", "~", "^/api/").one("proxy_ignore_headers").words


def test_of_the_emulator_a_browser_may_read_objects_and_no_more() -> None:
    project, bucket = parsed("gateway.conf").one("http").all("server")
    assert (project.value("listen"), bucket.value("listen")) == ("8000", "4443")
    (passing,) = [one for one in bucket.all("location") if one.all("proxy_pass")]
    assert passing.words[1:] == ["~", "^/[^/]+/(videos|thumbnails)/"]
    assert passing.one("limit_except", "GET").value("deny") == "all"
    assert bucket.one("location", "/").value("return") == "404"


@pytest.mark.parametrize("name", ["edge.conf", "gateway.conf"])
def test_they_write_where_they_may_and_log_no_address(name: str) -> None:
    """An address opens a video for whoever has it."""
    conf = parsed(name)
    assert conf.value("pid").startswith("/tmp/")
    http = conf.one("http")
    assert http.value("access_log") == "off"
    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        assert http.value(f"{kind}_temp_path").startswith("/tmp/")


@pytest.mark.parametrize("name", ["edge.conf", "gateway.conf"])
def test_an_nginx_that_is_here_takes_them_too(name: str, tmp_path: Path) -> None:
    """It is a second opinion: without one, everything above stands, and tests/containers starts both."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        assert parsed(name).inside
        return
    said = subprocess.run(
        [nginx, "-t", "-q", "-e", "stderr", "-c", ROOT / "containers" / name, "-p", tmp_path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
