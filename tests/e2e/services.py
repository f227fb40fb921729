"""The five real services as processes: on free ports, with data of their own, and ended whatever happens.

    with Services(folder, MAX_STORAGE_MB=5) as services:
        services["storage"].kill()      # SIGKILL; stop() is SIGTERM, pause() and resume() freeze it and let it go on
        services["storage"].start()     # again, on the same port and the same data
        services.let_leases_run_out()
        services.sweep()

With ``faulty=True`` every call between services passes a ``Faults`` proxy, where a test may strike.
"""

import os
import random
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Self

import httpx
import psutil
from e2e.faults import Faults

from shared.auth import Role, Tokens, User
from shared.clock import to_text
from shared.settings import ServiceSettings

NAMES = ("user", "video", "storage", "usage", "logging")
START_SECONDS = 60.0  # a machine may be busy; on a quiet one it takes one
DATABASES = {
    "user": "users.db",
    "video": "videos.db",
    "storage": "storage.db",
    "usage": "usage.db",
    "logging": "logs.db",
}
# Nobody sweeps behind a test's back, and nothing has to be waited for.
SETTINGS = {"SWEEP_SECONDS": "3600", "STREAMED_REPORT_SECONDS": "0.1"}

# Kills what it was told of when this process ends, in whatever way: its standard input closes then.
GUARD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
living = set()
for line in sys.stdin:
    living ^= {int(line)}
for pid in living:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class _Tester(ServiceSettings):
    """Who issues tokens in the tests' name."""

    service: ClassVar[str] = "tester"
    port: int = 0


Fresh = Callable[..., "Services"]
"""Starts a set of services for one test, with settings of its own."""


class Service:
    """One process of one service; ``output`` is what all its lives have printed."""

    def __init__(self, name: str, folder: Path, port: int, environment: dict[str, str], guard: "_Guard") -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.data = folder / name
        self.output = folder / f"{name}-{port}.out"
        self._environment = environment | {"PORT": str(port), "DATA_DIR": str(self.data)}
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start it, and do not wait for it."""
        assert self._process is None, f"{self.name} is running"
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{self.name}_service"],
                cwd=self.output.parent,  # where there is no .env
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._guard.toggle(self._process.pid)

    def wait_until_up(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            status = self._process.poll()
            assert status is None, f"{self.name} ended with {status}:\n{self.said()}"
            assert time.monotonic() < deadline, f"{self.name} does not answer:\n{self.said()}"
            time.sleep(0.02)

    def start(self) -> None:
        self.launch()
        self.wait_until_up()

    def answers(self) -> bool:
        with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", self.port, timeout=2)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def kill(self) -> None:
        self._end(signal.SIGKILL, 10)

    def stop(self, seconds: float = 30) -> float:
        """SIGTERM; how many seconds it took."""
        started = time.monotonic()
        self._end(signal.SIGTERM, seconds)
        return time.monotonic() - started

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, sign: signal.Signals, seconds: float) -> None:
        """And its children, which must not outlive it for long."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            children = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        process.send_signal(sign)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end within {seconds} s:\n{self.said()}") from None
        finally:
            self._guard.toggle(process.pid)
            deadline = time.monotonic() + 5
            while (orphans := [child for child in children if _lives(child)]) and time.monotonic() < deadline:
                time.sleep(0.01)
            for orphan in orphans:
                orphan.kill()
        assert not orphans, f"{self.name} left processes behind: {orphans}"


class Services:
    """All five. ``settings`` go to each of them; one that does not know a setting passes over it."""

    running: ClassVar[list[Self]] = []

    def __init__(self, folder: Path, *, faulty: bool = False, **settings: object) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._guard = _Guard()
        ports = dict(zip(NAMES, _free_ports(len(NAMES)), strict=True))
        self.faults = Faults(ports) if faulty else None
        self.secret = secrets.token_urlsafe(48)
        # Nothing of the tester's own settings.
        self._environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        self._environment |= SETTINGS | {
            "JWT_SECRET": self.secret,
            "STORAGE_PUBLIC_URL": f"http://127.0.0.1:{ports['storage']}",
            **{f"{name.upper()}_SERVICE_URL": self._peer_url(name, port) for name, port in ports.items()},
            **{name: str(value) for name, value in settings.items()},
        }
        self.instances = [Service(name, folder, ports[name], self._environment, self._guard) for name in NAMES]
        self.client = httpx.Client(timeout=60, trust_env=False)
        self.tokens = Tokens(_Tester(_env_file=None, jwt_secret=self.secret, supabase_url=None, supabase_key=None))  # type: ignore[call-arg]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._guard)
            stack.enter_context(self.client)
            if self.faults is not None:
                stack.enter_context(self.faults)
            stack.callback(self._kill_all)
            self.running.append(self)
            stack.callback(self.running.remove, self)
            self.folder.mkdir(parents=True, exist_ok=True)
            for service in self.instances:
                service.launch()
            for service in self.instances:
                service.wait_until_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Service:
        return next(service for service in self.instances if service.name == name)

    def __iter__(self) -> Iterator[Service]:
        return iter(self.instances)

    def twin(self, name: str) -> Service:
        """One more instance over the same data, started."""
        other = Service(name, self.folder, *_free_ports(1), self._environment, self._guard)
        self.instances.append(other)
        other.start()
        return other

    @property
    def incoming(self) -> list[Path]:
        """The videos that storage-service is writing."""
        return list((self["storage"].data / "incoming").iterdir())

    def database(self, name: str) -> "closing[sqlite3.Connection]":
        connection = sqlite3.connect(self[name].data / DATABASES[name], isolation_level=None, timeout=10)
        connection.row_factory = sqlite3.Row
        return closing(connection)

    def service_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.for_service()}"}

    def token(self, user_id: uuid.UUID, *, email: str = "someone@example.test", role: Role = "user") -> str:
        return self.tokens.for_user(User(id=user_id, email=email, role=role), 3600)

    def sweep(self) -> None:
        """One round of every sweeper."""
        for name in ("video", "storage", "usage"):
            answer = self.sweep_one(name)
            assert answer.status_code == 200, answer.text

    def sweep_one(self, name: str) -> httpx.Response:
        return self.client.post(f"{self[name].url}/internal/sweep", headers=self.service_headers())

    def let_leases_run_out(self) -> None:
        """Wait for the last of them. Only the outbox's, which is a minute, is turned back instead."""
        ends = [datetime.now(UTC)]
        for name, query in (
            ("storage", "SELECT max(expires_at) FROM objects WHERE state IN ('reserved', 'stored')"),
            ("usage", "SELECT max(expires_at) FROM reservations"),
            ("user", "SELECT max(uploading) FROM users"),
        ):
            with self.database(name) as database:
                (last,) = database.execute(query).fetchone()
            if last is not None:
                life = float(self._environment.get("UPLOAD_LOCK_SECONDS", 300)) if name == "user" else 0.0
                ends.append(datetime.fromisoformat(last) + timedelta(seconds=life))
        while (left := (max(ends) - datetime.now(UTC)).total_seconds()) >= 0:
            assert left < 10, f"a lease runs for {left} s more: this test should have set it shorter"
            time.sleep(left + 0.001)
        with self.database("video") as database:
            database.execute("UPDATE outbox SET due_at = ? WHERE due_at > ?", [to_text(datetime.now(UTC))] * 2)

    def _peer_url(self, name: str, port: int) -> str:
        return self.faults.urls[name] if self.faults is not None else f"http://127.0.0.1:{port}"

    def _kill_all(self) -> None:
        with ExitStack() as stack:  # each, even if another one makes trouble
            for service in self.instances:
                stack.callback(service.kill)


@contextmanager
def running(*, faulty: bool = False, **settings: object) -> Iterator[Services]:
    """A set in a folder that goes with it."""
    with TemporaryDirectory() as folder, Services(Path(folder), faulty=faulty, **settings) as services:
        yield services


class _Guard:
    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", GUARD], stdin=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def toggle(self, pid: int) -> None:
        """It lives; told again: it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % pid)
        self._process.stdin.flush()


def wait_for(happened: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _free_ports(count: int) -> list[int]:
    """Below those that the system gives to outgoing connections, lest one takes the port of a service that is down."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
