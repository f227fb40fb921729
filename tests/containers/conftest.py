"""Five images, built once from a copy of the repository, and Compose over them. Figures are printed at the end."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from containers.engine import NAMES, Failed, build, docker, logs, network
from containers.house import House, copy_source, plant

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in config.stash[FIGURES]:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    return pytestconfig.stash[FIGURES]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_source(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def canary(source: Path) -> str:
    return plant(source)


@pytest.fixture(scope="session")
def tag() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def images(source: Path, canary: str, tag: str) -> Iterator[dict[str, str]]:
    """Their names, by the service's. The canary is laid before they are built."""
    built = {name: f"{name}-service:{tag}" for name in NAMES}
    try:
        for name, image in built.items():
            build(source / f"{name}-service", image)
        built["emulator"] = f"storage-emulator:{tag}"
        build(source, built["emulator"], "containers/storage-emulator.Dockerfile", ".")
        yield built
    finally:
        for image in built.values():
            with suppress(Failed):
                docker("image", "rm", "--force", image)


@pytest.fixture(scope="session")
def own_network() -> Iterator[str]:
    with network() as name:
        yield name


@pytest.fixture(scope="module")
def services(
    source: Path, images: dict[str, str], tag: str, figures: list[str], request: pytest.FixtureRequest
) -> Iterator[House]:
    """The project that a file of tests is about: its OVERLAYS are the compose files beside the first."""
    overlays = getattr(request.module, "OVERLAYS", ())
    house = House(source, tag, overlays)
    try:
        took = house.up()
        figures.append(" + ".join(["compose", *overlays]) + f": {took:.1f} s until all are healthy")
        yield house
    finally:
        house.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    house = getattr(item, "funcargs", {}).get("services")
    if report.failed and report.when == "call" and isinstance(house, House):
        for name, container in house.everything.items():
            report.sections.append((f"{name} printed last", logs(container)[-4000:]))
    return report
