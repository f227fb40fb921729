"""The five containers as tests/e2e knows its five processes, so that the same journeys go through both.

Here too a test may look at the data from beside the services: by a command in the container.
"""

import json
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx
from containers.engine import COMPOSE, NAMES, docker, inside, run
from e2e.engines import DATABASES, Engine, Row
from e2e.processes import free_ports

from shared.auth import Role, Tokens, User
from shared.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
ROWS = """
import json, sqlite3, sys
database = sqlite3.connect("/data/" + sys.argv[1], isolation_level=None, timeout=10)
database.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in database.execute(sys.argv[2], sys.argv[3:])]))
"""
STORED = """
import json, pathlib
files = [path for path in pathlib.Path("/data").rglob("*") if path.is_file() and ".db" not in path.name]
print(json.dumps({path.name: path.stat().st_size for path in files}))
"""


OBJECTS = """
import http.client, json
bucket = http.client.HTTPConnection("bucket", 4443, timeout=10)
bucket.request("GET", "/storage/v1/b/short-videos/o")
print(json.dumps({item["name"]: int(item["size"]) for item in json.load(bucket.getresponse()).get("items") or []}))
"""


class _Tester(ServiceSettings):
    service: ClassVar[str] = "tester"
    port: int = 0


@dataclass(frozen=True)
class Container:
    name: str
    id: str
    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


class Volumes:
    """What ``e2e.engines.Engine`` promises."""

    settings: ClassVar[dict[str, str]] = {}

    def __init__(self, house: "House") -> None:
        self._house = house

    def rows(self, service: str, query: str, *values: str) -> list[Row]:
        found: list[Row] = json.loads(inside(self._house[service].id, ROWS, DATABASES[service], query, *values))
        return found

    def execute(self, service: str, statement: str, *values: str) -> None:
        self.rows(service, statement, *values)

    def stored(self) -> dict[str, int]:
        files: dict[str, int] = json.loads(inside(self._house["storage"].id, STORED))
        return files

    def is_receiving(self) -> bool:
        return inside(self._house["storage"].id, "import os; print(*os.listdir('/data/incoming'))").strip() != ""


class Project:
    """The same over docker-compose.supabase.yml: rows are read by psql, objects by the emulator's own interface."""

    settings: ClassVar[dict[str, str]] = {}

    def __init__(self, house: "House") -> None:
        self._house = house

    def rows(self, service: str, query: str, *values: str) -> list[Row]:
        return [json.loads(line) for line in self._ask(f"SELECT to_jsonb(found) FROM ({query}) AS found", values)]

    def execute(self, service: str, statement: str, *values: str) -> None:
        self._ask(statement, values)

    def stored(self) -> dict[str, int]:
        objects: dict[str, int] = json.loads(inside(self._house["storage"].id, OBJECTS))
        kinds = {".mp4": ".video", ".jpg": ".jpg"}
        return {Path(key).stem + kinds[Path(key).suffix]: size for key, size in objects.items()}

    def is_receiving(self) -> bool:
        return bool(self.rows("storage", "SELECT filename FROM storage_objects WHERE state = 'reserved'"))

    def _ask(self, statement: str, values: tuple[str, ...]) -> list[str]:
        named = [part for number, value in enumerate(values) for part in ("--set", f"v{number}={value}")]
        for number in range(len(values)):
            statement = statement.replace("?", f":'v{number}'", 1)
        command = ["psql", "-U", "postgres", "--no-psqlrc", "-qAt", "--set", "ON_ERROR_STOP=1", *named]
        return docker(
            "exec", "--interactive", self._house.everything["database"], *command, text=statement
        ).splitlines()


class House:
    """What a journey needs of ``e2e.services.Services``, over a project of Compose with these files added."""

    def __init__(self, source: Path, tag: str, overlays: Sequence[str] = ()) -> None:
        self.source = source
        self.project = f"short-video-{tag}"
        names = [*NAMES, "edge", "bucket"]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._environment = {f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()} | {"TAG": tag}
        self.overlays = overlays
        self.secret = make_secret(source)
        if "supabase" in overlays:
            make_more_secrets(source)
        self.engine: Engine = Project(self) if "supabase" in overlays else Volumes(self)
        self.client = httpx.Client(timeout=60, trust_env=False, follow_redirects=True)
        self.tokens = Tokens(_Tester(_env_file=None, jwt_secret=self.secret, supabase_url=None, supabase_key=None))  # type: ignore[call-arg]
        self.containers: dict[str, Container] = {}
        self.everything: dict[str, str] = {}
        """The ids of all that run, by their short names."""

    def compose(self, *arguments: str, seconds: float = 120) -> str:
        files = ["docker-compose.yml", *(f"docker-compose.{overlay}.yml" for overlay in self.overlays)]
        named = [part for file in files for part in ("--file", file)]
        command = [COMPOSE, "--project-name", self.project, *named, *arguments]
        return run(*command, cwd=self.source, env=self._environment, seconds=seconds)

    def up(self) -> float:
        """Until all are healthy; how many seconds it took."""
        began = time.monotonic()
        self.compose("up", "--no-build", "--detach", "--wait", "--wait-timeout", "100")
        took = time.monotonic() - began
        running = self.compose("ps", "--format", "{{.Service}} {{.ID}}", "--no-trunc").splitlines()
        self.everything = {name.removesuffix("-service"): id for name, id in sorted(map(str.split, running))}
        for name in NAMES:
            port = self.ports["edge" if "edge" in self.overlays else name]
            self.containers[name] = Container(name, self.everything[name], port)
        return took

    def down(self) -> None:
        self.client.close()
        self.compose("down", "--volumes", "--timeout", "5")

    def __getitem__(self, name: str) -> Container:
        return self.containers[name]

    def __iter__(self) -> Iterator[Container]:
        return iter(self.containers.values())

    def token(self, user_id: uuid.UUID, *, email: str = "someone@example.test", role: Role = "user") -> str:
        return self.tokens.for_user(User(id=user_id, email=email, role=role), 3600)


def copy_source(folder: Path) -> Path:
    """The repository as somebody has it who works in it: with data and secrets of his own lying about."""
    passed_over = (".venv", ".uv", ".git", "*_cache", "__pycache__", "data", ".env")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*passed_over))
    return source


def plant(source: Path) -> str:
    """Files that must not get into an image; each has what is returned in it."""
    canary = f"canary-{secrets.token_hex(16)}"
    for name in NAMES:
        service = source / f"{name}-service"
        for place in (".env", ".env.local", "data/users.db", "tests/test_it.py", f"{name}_service/.env"):
            (service / place).parent.mkdir(exist_ok=True)
            (service / place).write_text(f"JWT_SECRET={canary}\n")
    return canary


def make_more_secrets(source: Path) -> None:
    line = re.search(
        r"^\(umask 077; scripts/supabase-secrets >>\.env\)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert line, "the README has lost the line that makes what Supabase needs"
    run("sh", "-euc", line[0], cwd=source)


def make_secret(source: Path) -> str:
    """By the line that the README has for it."""
    line = re.search(r"^\(umask 077;.*>\.env\)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line, "the README has lost the line that makes the secret"
    run("sh", "-euc", line[0], cwd=source)
    assert (source / ".env").stat().st_mode & 0o077 == 0
    return (source / ".env").read_text().strip().removeprefix("JWT_SECRET=")
