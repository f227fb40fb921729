"""What can be said of the five Dockerfiles without an engine; tests/containers builds them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("user", "video", "storage", "usage", "logging")
DOCKERFILES = [
    *(ROOT / f"{name}-service" / "Dockerfile" for name in NAMES),
    *(ROOT / "containers").glob("*.Dockerfile"),
]


def dockerfile(name: str) -> str:
    return (ROOT / f"{name}-service" / "Dockerfile").read_text()


def test_the_five_dockerfiles_are_one_text_but_for_the_name() -> None:
    texts = {re.sub(rf"\b{name}([-_])service\b", r"NAME\1service", dockerfile(name)) for name in NAMES}
    assert len(texts) == 1
    assert not re.search(rf"({'|'.join(NAMES)})[-_]service", texts.pop()), "one names another service"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run(
        [hadolint, "--no-color", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_no_dockerfile_fetches_its_own_frontend() -> None:
    """A `# syntax=` line is one more image from a registry, at every build."""
    assert not [path for path in DOCKERFILES if re.search(r"(?im)^#\s*syntax\s*=", path.read_text())]


def test_the_uv_of_the_images_is_one_that_the_services_accept() -> None:
    found = re.search(r"uv==(\d+)\.(\d+)\.\d+", dockerfile("user"))
    assert found
    (required,) = tomllib.loads((ROOT / "user-service/pyproject.toml").read_text())["build-system"]["requires"]
    assert set(re.findall(r"uv==[\d.]+", "".join(path.read_text() for path in DOCKERFILES))) == {found[0]}
    lowest, below = re.findall(r"(\d+)\.(\d+)", required)
    assert tuple(map(int, lowest)) <= tuple(map(int, found.groups())) < tuple(map(int, below))


def test_nothing_goes_to_the_engine_but_what_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert "**/.env*" in lines[lines.index("!*-service/*_service") :], "after what lets files in again"
