"""The services that the Procfile names: their `.env` files, their ports, and the environment they run in.

A service's `.env` is made from its `.env.example`, with a JWT_SECRET that all of them share; what is there is kept.
"""

import os
import re
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
PROCFILE_LINE = re.compile(r"^([\w-]+):\s*(.+)$", re.MULTILINE)
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


def read_procfile() -> dict[str, str]:
    """The command of each service, by the service's name."""
    return dict(PROCFILE_LINE.findall((ROOT / "Procfile").read_text(encoding="utf-8")))


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
    """A PORT that changed reaches the peers too; a URL that is set otherwise than in the example stays."""
    derived = {f"{peer.name.upper()}_SERVICE_URL": f"http://127.0.0.1:{peer.port}" for peer in services}
    derived["STORAGE_PUBLIC_URL"] = next(peer.url for peer in services if peer.name == "storage")
    derived["OFFER_UPLOAD_FILES"] = "true"  # they run on one machine, as one user
    if sys.stdout.isatty():  # the services themselves see a pipe
        derived["LOG_FORMAT"] = "text"
    chosen = service.chosen | {key for key, value in os.environ.items() if value}
    derived = {key: value for key, value in derived.items() if key not in chosen}
    # One PORT from outside cannot be meant for five.
    return {**os.environ, **derived, "PORT": str(service.port), "PYTHONUNBUFFERED": "1"}
