"""The five real services as processes: on free ports, with data of their own, and ended whatever happens.

    with Services(folder, MAX_STORAGE_MB=5) as services:
        services["storage"].kill()      # SIGKILL; stop() is SIGTERM
        services["storage"].start()     # again, on the same port and the same data
        services.let_leases_run_out()
        services.sweep()

With ``faulty=True`` every call between services passes a ``Faults`` proxy, where a test may strike.
With ``cloud_run=True`` all five have HTTP2 set, which video-service alone heeds; each stands behind a ``CloudRun``
front, and ``client`` speaks HTTP/2 to that of video-service.
"""

import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import httpx
from e2e.cloudrun import NO_TLS, CloudRun
from e2e.engines import Embedded, Engine
from e2e.faults import Faults
from e2e.processes import Guard, Service
from ports import HeldPort

from shared.auth import Role, Tokens, User
from shared.clock import to_text
from shared.settings import ServiceSettings

NAMES = ("user", "video", "storage", "usage", "logging")
# Nobody sweeps behind a test's back, and nothing has to be waited for.
SETTINGS = {"SWEEP_SECONDS": "3600", "STREAMED_REPORT_SECONDS": "0.1"}


class _Tester(ServiceSettings):
    """Who issues tokens in the tests' name."""

    service: ClassVar[str] = "tester"
    port: int = 0


Fresh = Callable[..., "Services"]
"""Starts a set of services for one test, with settings of its own."""


class Services:
    """All five. ``settings`` go to each of them; one that does not know a setting passes over it.

    ``own`` gives those that each has for itself.
    """

    running: ClassVar[list[Self]] = []

    def __init__(
        self,
        folder: Path,
        engine: Engine | None = None,
        *,
        faulty: bool = False,
        cloud_run: bool = False,
        own: Callable[[str, int], dict[str, str]] = lambda name, port: {},
        **settings: object,
    ) -> None:
        self.folder = folder
        self.engine = engine or Embedded(folder)
        self._stack = ExitStack()
        self._guard = Guard()
        self._held = [HeldPort() for _ in NAMES]
        ports = dict(zip(NAMES, (port.number for port in self._held), strict=True))
        self.faults = Faults(ports) if faulty else None
        self.cloud_run = CloudRun(ports) if cloud_run else None
        urls = (
            self.cloud_run.urls
            if self.cloud_run
            else {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        )
        self.secret = secrets.token_urlsafe(48)
        # Nothing of the tester's own settings.
        self._environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        self._environment |= SETTINGS | {
            "JWT_SECRET": self.secret,
            "STORAGE_PUBLIC_URL": urls["storage"],
            "HTTP2": str(cloud_run),
            **{f"{name.upper()}_SERVICE_URL": url for name, url in (self.faults.urls if self.faults else urls).items()},
            **self.engine.settings,
            **{name: str(value) for name, value in settings.items()},
        }
        self.instances = [
            Service(name, folder, port, self._environment | own(name, port), self._guard)
            for name, port in ports.items()
        ]
        for service in self.instances:
            service.url = urls[service.name]
        mounts = {urls["video"]: _http2()} if cloud_run else {}
        self.client = httpx.Client(timeout=60, trust_env=False, follow_redirects=True, mounts=mounts)
        self.tokens = Tokens(_Tester(_env_file=None, jwt_secret=self.secret, supabase_url=None, supabase_key=None))  # type: ignore[call-arg]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for port in self._held:
                stack.callback(port.close)
            stack.enter_context(self._guard)
            stack.enter_context(self.client)
            for proxies in (self.faults, self.cloud_run):
                if proxies is not None:
                    stack.enter_context(proxies)
            stack.callback(self._kill_all)
            self.running.append(self)
            stack.callback(self.running.remove, self)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.start(*self.instances)
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
        port = HeldPort()
        self._stack.callback(port.close)
        other = Service(name, self.folder, port.number, self._environment, self._guard)
        self.instances.append(other)
        other.start()
        return other

    def environment(self, name: str) -> dict[str, str]:
        """What that service was started with."""
        return self._environment | {"DATA_DIR": str(self[name].data)}

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
        """Wait for the last of them. The outbox's minute and the second removal's day are turned back instead."""
        ends = [datetime.now(UTC)]
        for name, query in (
            ("storage", "SELECT max(expires_at) AS last FROM storage_objects WHERE state IN ('reserved', 'stored')"),
            ("usage", "SELECT max(expires_at) AS last FROM usage_reservations"),
            ("user", "SELECT max(uploading) AS last FROM users"),
        ):
            (row,) = self.engine.rows(name, query)
            if row["last"] is not None:
                life = float(self._environment.get("UPLOAD_LOCK_SECONDS", 300)) if name == "user" else 0.0
                ends.append(datetime.fromisoformat(row["last"]) + timedelta(seconds=life))
        while (left := (max(ends) - datetime.now(UTC)).total_seconds()) >= 0:
            assert left < 10, f"a lease runs for {left} s more: this test should have set it shorter"
            time.sleep(left + 0.001)
        now = to_text(datetime.now(UTC))
        self.engine.execute("video", "UPDATE videos_outbox SET due_at = ? WHERE due_at > ?", now, now)
        # What a killed writer's last words still put into a bucket is what files are removed a second time for.
        self.engine.execute("storage", "UPDATE storage_objects SET remove_at = ? WHERE remove_at > ?", now, now)

    def start(self, *services: Service) -> None:
        """Start them at the same time."""
        for service in services:
            service.launch()
        for service in services:
            service.wait_until_up()

    def _kill_all(self) -> None:
        with ExitStack() as stack:  # each, even if another one makes trouble
            for service in self.instances:
                stack.callback(service.kill)


def _http2() -> httpx.HTTPTransport:
    # httpx does not see that an idle connection of HTTP/2 has ended.
    limits = httpx.Limits(keepalive_expiry=0)
    return httpx.HTTPTransport(http1=False, http2=True, limits=limits, trust_env=False, verify=NO_TLS)


@contextmanager
def running(engine: Engine | None = None, *, faulty: bool = False, **more: Any) -> Iterator[Services]:
    """A set in a folder that goes with it."""
    with TemporaryDirectory() as folder, Services(Path(folder), engine, faulty=faulty, **more) as services:
        yield services
