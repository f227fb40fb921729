"""Running services for the tests of this folder, and what they printed under each test that fails."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest
import videos
from e2e.engines import Engine, clouds
from e2e.services import Fresh, Services, running

LINES = 60


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """One set with the limits of the specification and little patience, for tests that stop nobody."""
    with running(UPLOAD_IDLE_SECONDS=1) as services:
        yield services


@pytest.fixture(scope="session")
def another_cloud() -> Iterator[Callable[[], Engine]]:
    with clouds() as another:
        yield another


@pytest.fixture(scope="module", params=["embedded", "cloud"])
def new_engine(request: pytest.FixtureRequest) -> Callable[[], Engine | None]:
    """For the promises that hold wherever data is kept; None is the embedded one."""
    if request.param == "embedded":
        return lambda: None
    another: Callable[[], Engine] = request.getfixturevalue("another_cloud")
    return another


@pytest.fixture
def fresh() -> Iterator[Fresh]:
    """Starts sets for one test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(**settings))


@pytest.fixture(scope="session")
def film() -> bytes:
    """A small video, yet large enough that something can happen in the middle of it."""
    return videos.exactly(200_000)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when == "call":
        for service in [service for services in Services.running for service in services]:
            last = "\n".join(service.said().splitlines()[-LINES:])
            report.sections.append((f"{service.name}-service printed last", last))
    return report
