"""The five containers as tests/e2e knows its five processes, so that the same journeys go through both.

Here too a test may look at the data from beside the services: by a command in the container.
"""

import json
import re
import secrets
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx
from containers.engine import COMPOSE, NAMES, inside, run
from e2e.engines import DATABASES, Row
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


class House:
    """What a journey needs of ``e2e.services.Services``, over a project of Compose."""

    def __init__(self, source: Path, tag: str) -> None:
        self.source = source
        self.project = f"short-video-{tag}"
        self._ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        self._environment = {f"{name.upper()}_PORT": str(port) for name, port in self._ports.items()} | {"TAG": tag}
        self.secret = make_secret(source)
        self.engine = Volumes(self)
        self.client = httpx.Client(timeout=60, trust_env=False, follow_redirects=True)
        self.tokens = Tokens(_Tester(_env_file=None, jwt_secret=self.secret, supabase_url=None, supabase_key=None))  # type: ignore[call-arg]
        self.containers: dict[str, Container] = {}

    def compose(self, *arguments: str, seconds: float = 120) -> str:
        return run(
            COMPOSE, "--project-name", self.project, *arguments, cwd=self.source, env=self._environment, seconds=seconds
        )

    def up(self) -> None:
        self.compose("up", "--no-build", "--detach", "--wait", "--wait-timeout", "100")
        for name, port in self._ports.items():
            found = self.compose("ps", "--all", "--quiet", f"{name}-service").strip()
            self.containers[name] = Container(name, found, port)

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


def make_secret(source: Path) -> str:
    """By the line that the README has for it."""
    line = re.search(r"^\(umask 077;.*>\.env\)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line, "the README has lost the line that makes the secret"
    run("sh", "-euc", line[0], cwd=source)
    assert (source / ".env").stat().st_mode & 0o077 == 0
    return (source / ".env").read_text().strip().removeprefix("JWT_SECRET=")
