"""What `make run` promises, in a copy of the tree that has no `.env` yet: first with the five real services, and at
the end, where only starting and stopping matters, with two fakes in their place.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from dotenv import dotenv_values
from ports import HeldPort

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["user-service", "video-service", "storage-service", "usage-service", "logging-service"]


class House:
    """A fresh clone, as far as the runner sees it, on ports that are free here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.output = root / "output.txt"
        for name in ["scripts", *FOLDERS]:
            ignored = shutil.ignore_patterns(".env", "data", "__pycache__")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        shutil.copy(ROOT / "Procfile", root)
        (root / ".venv").symlink_to(sys.prefix)
        self.held = {name: HeldPort() for name in FOLDERS}
        self.ports = {name: port.number for name, port in self.held.items()}
        for name, port in self.ports.items():
            example = root / name / ".env.example"
            example.write_text(re.sub(r"(?m)^PORT=.*$", f"PORT={port}", example.read_text()))

    def use_fakes(self, **programs: str) -> None:
        """Let the Procfile name these services only, each a Python program that is told its PORT."""
        lines = []
        for name, program in programs.items():
            (self.root / f"{name}.py").write_text(program)
            lines.append(f"{name}: exec .venv/bin/python {name}.py\n")
        (self.root / "Procfile").write_text("".join(lines))

    @contextmanager
    def running(self, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """What it prints goes into a file, or to ``stdout``."""
        # Nothing of the tester's own settings; in a session of its own, like a terminal's.
        env = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        with self.output.open("wb") as output:
            run = subprocess.Popen(
                [self.root / ".venv/bin/python", self.root / "scripts/run.py"],
                stdout=output if stdout is None else stdout,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        try:
            yield run
        finally:
            if run.poll() is None:  # only when the test has failed
                runner = psutil.Process(run.pid)
                for process in [*runner.children(recursive=True), runner]:
                    process.kill()
                run.wait()

    def doctor(self) -> subprocess.CompletedProcess[str]:
        env = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        command = [self.root / ".venv/bin/python", self.root / "scripts/doctor.py"]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    def wait_until_ready(self, run: subprocess.Popen[bytes]) -> None:
        while "Ctrl-C stops all" not in self.said():
            assert run.poll() is None, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        return self.output.read_text()

    def env_files(self) -> dict[str, dict[str, str | None]]:
        return {name: dotenv_values(self.root / name / ".env") for name in FOLDERS}

    def listening(self) -> list[str]:
        return [name for name, port in self.ports.items() if answers(port)]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    for port in house.held.values():
        port.close()


def test_five_services_start_with_one_secret_stop_on_ctrl_c_and_start_again(house: House) -> None:
    with house.running() as run:
        house.wait_until_ready(run)
        for name, port in house.ports.items():
            url = f"http://localhost:{port}"
            assert re.search(rf"{name} +{url} +{url}/docs", house.said()), house.said()
            assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        asked_the_doctor = house.doctor()
        assert (asked_the_doctor.returncode, asked_the_doctor.stderr) == (0, ""), asked_the_doctor.stdout
        assert asked_the_doctor.stdout.endswith("All is well.\n")
        family = psutil.Process(run.pid).children(recursive=True)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(30) == 0, house.said()
        assert "killed" not in house.said(), "each stopped by itself within the limit"
    assert house.listening() == []
    assert not living(family)

    first = house.env_files()
    secrets = {values["JWT_SECRET"] or "" for values in first.values()}
    assert len(secrets) == 1
    assert len(secrets.pop().encode()) >= 32
    for name in FOLDERS:
        assert (house.root / name / ".env").stat().st_mode & 0o777 == 0o600

    with house.running() as run:
        house.wait_until_ready(run)
        assert house.env_files() == first
        usage = next(p for p in psutil.Process(run.pid).children(recursive=True) if "usage_service" in p.cmdline())
        usage.kill()
        assert run.wait(30) == 1, "when one service dies, the run has failed"
    assert "usage-service ended by itself (signal 9)" in house.said()
    ill = house.doctor()
    assert (ill.returncode, ill.stdout.endswith("Something is to be done.\n")) == (1, True), ill.stdout
    assert "start it, or correct LOGGING_SERVICE_URL" in ill.stdout
    assert house.listening() == []


def test_a_port_in_use_is_one_clear_line(house: House) -> None:
    port = house.ports["storage-service"]
    with socket.create_server(("127.0.0.1", port)), house.running() as run:
        assert run.wait(30) == 1
    told = [line for line in house.said().splitlines() if not line.startswith("Wrote ")]
    assert len(told) == 1, told
    assert f"port {port} of storage-service" in told[0]
    assert "storage-service/.env" in told[0]


def test_two_services_on_one_port_are_refused(house: House) -> None:
    example = house.root / "usage-service/.env.example"
    example.write_text(re.sub(r"(?m)^PORT=.*$", f"PORT={house.ports['user-service']}", example.read_text()))
    with house.running() as run:
        assert run.wait(30) == 1
    assert "usage-service and user-service have the same PORT" in house.said()


def test_a_service_that_lost_its_env_file_gets_the_secret_of_the_others(house: House) -> None:
    secret = "s" * 40
    (house.root / "user-service/.env").write_text(f"JWT_SECRET={secret}\nPORT={house.ports['user-service']}\n")
    with socket.create_server(("127.0.0.1", house.ports["user-service"])), house.running() as run:
        assert run.wait(30) == 1  # the busy port ends it after the files are written
    assert {values["JWT_SECRET"] for values in house.env_files().values()} == {secret}


def test_two_different_secrets_are_refused(house: House) -> None:
    for name, letter in (("user-service", "a"), ("video-service", "b")):
        (house.root / name / ".env").write_text(f"JWT_SECRET={letter * 40}\n")
    with house.running() as run:
        assert run.wait(30) == 1
    assert house.said().count("\n") == 1
    assert "JWT_SECRET differs between user-service/.env and video-service/.env" in house.said()


# Starting and stopping

FAKE = """
import http.server, os

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Healthy).serve_forever()
"""
STUBBORN = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
{FAKE}
"""
CHATTY = """
while True:
    print("x" * 1000)
"""


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all(house: House, sign: signal.Signals) -> None:
    house.use_fakes(storage=FAKE, user=FAKE)
    with house.running() as run:
        house.wait_until_ready(run)
        family = psutil.Process(run.pid).children(recursive=True)
        assert len(family) == 2
        run.send_signal(sign)
        assert run.wait(30) == 0, house.said()
    assert re.search(r"(?m)^storage \| .*GET /health", house.said()), "each line has its service's name in front"
    assert not living(family)


def test_a_service_that_does_not_stop_is_killed_with_what_it_has_started(house: House) -> None:
    house.use_fakes(storage=STUBBORN, user=FAKE)
    with house.running() as run:
        house.wait_until_ready(run)
        family = psutil.Process(run.pid).children(recursive=True)
        assert len(family) == 3
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 0, house.said()
    assert "storage-service did not stop within 5 s: killed" in house.said()
    assert "user-service did not" not in house.said()
    assert not living(family)


def test_a_service_that_does_not_even_start_stops_all(house: House) -> None:
    house.use_fakes(storage=FAKE, user="raise SystemExit(3)")
    with house.running() as run:
        assert run.wait(30) == 1
    assert "user-service ended by itself (exit status 3), so all were stopped" in house.said()
    assert house.listening() == []


def test_when_the_reader_of_its_output_goes_all_end(house: House) -> None:
    house.use_fakes(storage=FAKE, user=FAKE)
    with house.running(subprocess.PIPE) as run:
        assert run.stdout is not None
        while b"Ctrl-C stops all" not in (line := run.stdout.readline()):
            assert line, "it ended"
        family = psutil.Process(run.pid).children(recursive=True)
        run.stdout.close()
        with suppress(httpx.HTTPError):  # it is told to stop as soon as its line cannot be printed
            httpx.get(f"http://127.0.0.1:{house.ports['user-service']}/health")
        assert run.wait(30) == 0
    assert not living(family)


def test_a_terminal_that_stands_still_delays_no_stop(house: House) -> None:
    house.use_fakes(storage=CHATTY, user=CHATTY)
    with house.running(subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.read(100_000)  # more than fits into a pipe: from here on its reader stands still
        family = psutil.Process(run.pid).children(recursive=True)
        assert len(family) == 2
        run.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=30)
        assert not left
        run.stdout.close()
        assert run.wait(30) == 0


def living(family: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
