"""The build as it stands in the repository, and a project of Google Cloud to run it in."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from standins.gcloud import ROOT, Project

NAMES = ("user", "video", "storage", "usage", "logging")
SECRETS = {"SUPABASE_KEY": "sb_secret_of-the-tests", "DATABASE_URL": "postgresql://me:word-of-the-tests@db/postgres"}
GIVEN = {"_SUPABASE_URL": "https://abc.supabase.co", "_FRONTEND_URL": "https://app.example,https://www.app.example"}


@pytest.fixture(scope="session")
def config() -> Any:
    return yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new one."""
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def released(config: Any, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was prepared and built once; tests only look at it."""
    project = Project(tmp_path_factory.mktemp("released") / "project")
    prepared = prepare(project)
    assert prepared.status == 0, prepared.said
    built = project.build(config, **GIVEN)
    assert built.status == 0, built.said
    return project


def prepare(project: Project, **environment: str) -> Any:
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
