"""A start that cannot succeed ends with one line that says what to do, and never shows a secret."""

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

SECRET = "s" * 40
SERVICES = ["user", "video", "storage", "usage", "logging"]
DATABASES = {"user": "users", "video": "videos", "storage": "storage", "usage": "usage", "logging": "logs"}


def start(service: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "JWT_SECRET": SECRET, "DATA_DIR": "data", "PORT": "0"} | settings
    return subprocess.run(
        [sys.executable, "-m", f"{service}_service"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("service", SERVICES)
def test_a_missing_secret_is_one_line(service: str, tmp_path: Path) -> None:
    ended = start(service, tmp_path, JWT_SECRET="")
    assert ended.returncode == 2
    assert ended.stderr == f"{service}-service: JWT_SECRET is missing (see {service}-service/.env.example)\n"


@pytest.mark.parametrize(
    ("service", "setting", "value"),
    [
        ("user", "JWT_SECRET", "hunter2-is-too-short"),
        ("user", "TOKEN_SECONDS", "-1"),
        ("video", "PORT", "eighty"),
        ("video", "HTTP2", "h2c"),
        ("video", "MAX_UPLOAD_MB", "nan"),
        ("video", "STORAGE_PUBLIC_URL", "localhost:3003"),
        ("video", "STORAGE_PUBLIC_URL", "http://x.mp4/"),
        ("storage", "FRONTEND_URL", "localhost"),
        ("storage", "GCS_BUCKET", "gs://films"),
        ("usage", "DAILY_BANDWIDTH_MB", "0"),
        ("logging", "SUPABASE_URL", "https://example.supabase.co"),
        ("logging", "DATA_DIR", "/proc/none"),
    ],
)
def test_an_unusable_setting_is_one_line_that_names_it(service: str, setting: str, value: str, tmp_path: Path) -> None:
    ended = start(service, tmp_path, **{setting: value})
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert setting in ended.stderr
    assert "hunter2" not in ended.stderr
    assert SECRET not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(("service", "http2"), [("user", "false"), ("video", "true")])
def test_a_port_in_use_is_one_line(service: str, http2: str, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = start(service, tmp_path, PORT=str(port), HTTP2=http2)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert str(port) in ended.stderr


@pytest.mark.parametrize(("service", "http2"), [*((service, "false") for service in SERVICES), ("video", "true")])
def test_a_database_of_a_newer_version_is_left_alone(service: str, http2: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    database = sqlite3.connect(tmp_path / "data" / f"{DATABASES[service]}.db")
    database.execute("PRAGMA user_version = 1000")
    database.close()
    ended = start(service, tmp_path, HTTP2=http2)
    assert ended.returncode == 3
    assert "newer version" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
