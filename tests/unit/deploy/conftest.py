"""The build as it stands in the repository, and a project of Google Cloud to run it in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from standins.gcloud import ROOT, Project, Ran

NAMES = ("user", "video", "storage", "usage", "logging")
SECRETS = {"SUPABASE_KEY": "sb_secret_of-the-tests", "DATABASE_URL": "postgresql://me:word-of-the-tests@db/postgres"}
GIVEN = {"_SUPABASE_URL": "https://abc.supabase.co", "_FRONTEND_URL": "https://app.example,https://www.app.example"}


@pytest.fixture(scope="session")
def config() -> Any:
    return yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A new one."""
    with Project(tmp_path) as project:
        yield project


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was prepared; tests only look at it, or go on from its state."""
    with Project(tmp_path_factory.mktemp("ready")) as project:
        ran = prepare(project)
    assert ran.status == 0, ran.said
    return project


@pytest.fixture(scope="session")
def released(config: Any, ready: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """And then built, once."""
    with Project(tmp_path_factory.mktemp("released"), ready.state) as project:
        ran = project.build(config, **GIVEN, COMMIT_SHA="before")
    assert ran.status == 0, ran.said
    return project


def prepare(project: Project, **environment: str) -> Ran:
    given = {"PROJECT": "my-project", "RETRY_SECONDS": "0"} | SECRETS | environment
    return project.run("bash", "deploy/prepare.sh", **given)


def options(call: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in call if word.startswith("--"))


def deployed(project: Project, name: str) -> dict[str, str]:
    """The options that a service was deployed with at last."""
    revision: dict[str, str] = project.state["services"][f"{name}-service"]["revisions"][-1]
    return revision


def environment(flags: dict[str, str]) -> dict[str, str]:
    assert flags["--set-env-vars"].startswith("^|^")
    pairs = [tuple(pair.split("=", 1)) for pair in flags["--set-env-vars"].removeprefix("^|^").split("|")]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)
