"""Start what the Procfile names, tell when all of it answers, and stop it together. `make run` calls this.

A service's `.env` is made from its `.env.example`, with a JWT_SECRET that all of them share; what is there is kept.
"""

import http.client
import multiprocessing
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dotenv import dotenv_values
from honcho.environ import parse_procfile  # type: ignore[import-untyped]
from honcho.manager import Manager  # type: ignore[import-untyped]
from honcho.printer import Message, Printer  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 60.0  # seconds: a small machine starts five Pythons at once
STOP_TIMEOUT = 5.0
SECRET_LINE = re.compile(r"^JWT_SECRET=.*$", re.MULTILINE)


@dataclass
class Service:
    name: str
    command: str
    port: int
    chosen: frozenset[str]  # what its .env sets otherwise than its .env.example

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


def refuse(*lines: str) -> NoReturn:
    sys.exit("\n".join(f"make run: {line}" for line in lines))


def folder(name: str) -> str:
    return f"{name}-service"


def read_env(path: Path) -> dict[str, str]:
    """What a service would read there; a setting without a value is none."""
    return {key.upper(): value for key, value in dotenv_values(path).items() if value}


def complete_env_files(names: list[str]) -> None:
    """Give every service a .env, and one secret to all that have none yet."""
    found: dict[str, str] = {}
    for name in names:
        if secret := read_env(ROOT / folder(name) / ".env").get("JWT_SECRET"):
            found.setdefault(secret, f"{folder(name)}/.env")
    if len(found) > 1:
        refuse(f"JWT_SECRET differs between {' and '.join(found.values())}: give all services the same one")
    secret = next(iter(found), None) or secrets.token_urlsafe(48)
    for name in names:
        env_file = ROOT / folder(name) / ".env"
        if env_file.exists() and ("JWT_SECRET" in read_env(env_file) or os.environ.get("JWT_SECRET")):
            continue
        source = env_file if env_file.exists() else env_file.with_name(".env.example")
        if not source.exists():
            refuse(f"{folder(name)}/.env.example is missing, and so is .env: bring one of them back")
        text, lines = SECRET_LINE.subn(f"JWT_SECRET={secret}", source.read_text(encoding="utf-8"))
        if not lines:
            text = f"{text.rstrip()}\nJWT_SECRET={secret}\n".lstrip()
        replace_private(env_file, text)
        print(f"Wrote {folder(name)}/.env", flush=True)


def replace_private(path: Path, text: str) -> None:
    """At no moment can another user read it, or a crash leave half of it."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def read_services(commands: dict[str, str]) -> list[Service]:
    services = []
    for name, command in commands.items():
        set_here = read_env(ROOT / folder(name) / ".env")
        example = read_env(ROOT / folder(name) / ".env.example")
        port = set_here.get("PORT") or example.get("PORT") or ""
        if not (port.isdecimal() and 0 < int(port) < 65536):
            refuse(f"{folder(name)}/.env needs PORT=<1 to 65535>, not {port!r}")
        chosen = {key for key, value in set_here.items() if value != example.get(key)}
        services.append(Service(name, command, int(port), frozenset(chosen)))
    return services


def refuse_busy_ports(services: list[Service]) -> None:
    lines = []
    owners: dict[int, str] = {}
    for service in services:
        this = folder(service.name)
        if service.port in owners:
            lines.append(f"{this} and {owners[service.port]} have the same PORT {service.port}: change one .env")
        elif reason := why_not_listen(service.port):
            lines.append(f"port {service.port} of {this}: {reason}; stop what uses it or set PORT in {this}/.env")
        owners.setdefault(service.port, this)
    if lines:
        refuse(*lines)


def why_not_listen(port: int) -> str | None:
    # Both addresses, as macOS grants the one while the other is taken.
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - it is let go at once
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                return error.strerror or str(error)
    return None


def environment(service: Service, services: list[Service]) -> dict[str, str]:
    """A PORT that changed reaches the peers too; a URL that somebody chose stays."""
    derived = {f"{peer.name.upper()}_SERVICE_URL": f"http://127.0.0.1:{peer.port}" for peer in services}
    derived["STORAGE_PUBLIC_URL"] = next(peer.url for peer in services if peer.name == "storage")
    if sys.stdout.isatty():  # the services themselves see a pipe
        derived["LOG_FORMAT"] = "text"
    chosen = service.chosen | {key for key, value in os.environ.items() if value}
    derived = {key: value for key, value in derived.items() if key not in chosen}
    # One PORT from outside cannot be meant for five.
    return {**os.environ, **derived, "PORT": str(service.port), "PYTHONUNBUFFERED": "1"}


class Screen(Printer):  # type: ignore[misc]
    """honcho's lines with their prefix, and our own without one."""

    def write(self, message: Message) -> None:
        try:
            if message.name is None:
                print(message.data, file=self.output, flush=True)
            else:
                super().write(message)
        except OSError:
            # The terminal is closed, or the reader of the pipe is gone: nobody could stop the services later.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.kill(os.getpid(), signal.SIGTERM)


class Runner(Manager):  # type: ignore[misc]
    """honcho, with the stopping moved out of its signal handlers.

    There it would print in the middle of a print, trip over a service that is just starting, and wait for ever when
    none of them heeds SIGTERM. Here a handler leaves a note, and a thread acts on it.
    """

    def __init__(self, services: list[Service]) -> None:
        super().__init__(Screen(sys.stdout, time_format=""))  # the services tell the time themselves
        self.services = services
        self.stopping = False
        self.failures: list[str] = []
        for service in services:
            self.add_process(service.name, service.command, env=environment(service, services), cwd=ROOT)

    def terminate(self) -> None:
        """Called when a signal comes, and when one process has ended, which without a signal nobody wanted."""
        if self.stopping:
            return
        for name, process in self._processes.items():
            if (status := process.get("returncode")) is not None:
                how = f"signal {-status}" if status < 0 else f"exit status {status}"
                self.failures.append(f"{folder(name)} ended by itself ({how}), so all were stopped")
        self.stopping = True

    def say(self, text: str) -> None:
        self.events.put(Message("line", text, None, None, None))

    def _start(self) -> None:
        super()._start()
        # Only now: a process that has threads should not fork.
        threading.Thread(target=self._watch, daemon=True).start()

    def _system_print(self, data: str) -> None:
        pass

    def _watch(self) -> None:
        late = self._wait_for_health()
        if late and not self.stopping:
            self.failures.append(f"no answer within {START_TIMEOUT:.0f} s from {', '.join(late)}")
            self.stopping = True
        elif not late:
            self.say(table(self.services))
        while not (self.stopping and self._all_started()):
            time.sleep(0.05)
        super().terminate()
        time.sleep(STOP_TIMEOUT)
        for name, process in self._processes.items():
            if "returncode" not in process:
                self.say(f"{folder(name)} did not stop within {STOP_TIMEOUT:.0f} s: killed")
        self.kill()

    def _wait_for_health(self) -> list[str]:
        """The health URLs that have not answered when the time is up, or when all is being stopped."""
        waiting = [f"http://127.0.0.1:{service.port}/health" for service in self.services]
        deadline = time.monotonic() + START_TIMEOUT
        while waiting and not self.stopping and time.monotonic() < deadline:
            waiting = [url for url in waiting if not healthy(url)]
            time.sleep(0.05)
        return waiting


def healthy(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def table(services: list[Service]) -> str:
    rows = [("service", "URL", "docs")]
    rows += [(folder(service.name), service.url, f"{service.url}/docs") for service in services]
    lines = [f"  {name:<18} {url:<24} {docs}" for name, url, docs in rows]
    return "\n".join(["", *lines, "", "  Ctrl-C stops all.", ""])


def main() -> int:
    # A service may log any character, whatever the terminal's encoding.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    # macOS would spawn, and a spawned watcher of honcho's dies with the terminal.
    multiprocessing.set_start_method("fork")
    commands = parse_procfile((ROOT / "Procfile").read_text(encoding="utf-8")).processes
    complete_env_files(list(commands))
    services = read_services(commands)
    refuse_busy_ports(services)
    runner = Runner(services)
    signal.signal(signal.SIGHUP, lambda *_: runner.terminate())
    runner.loop()
    for failure in runner.failures:
        print(f"make run: {failure}", flush=True)
    return 1 if runner.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # before anything was started
