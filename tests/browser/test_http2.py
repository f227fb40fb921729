"""The page in Chromium over TLS, as on Cloud Run: uploads over HTTP/2, and a bucket sends what is watched.

HTTP/1 would cut both off there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import videos
from browser.conftest import page_at
from browser.visitor import PATIENCE, Visitor
from certificates import certify
from e2e.books import audit
from e2e.cloudrun import CloudRun
from e2e.engines import clouds
from e2e.services import NAMES, Services
from playwright.sync_api import Browser

MB = 1_048_576


@pytest.fixture(scope="module")
def cloud(folder: Path) -> Iterator[tuple[str, Services, CloudRun]]:
    """The page's URL; the services, who reach each other by fronts of their own; and the fronts for browsers."""
    ports = dict.fromkeys(NAMES, 0)
    with (
        clouds() as another,
        CloudRun(ports, certify(folder)) as fronts,
        page_at({name.upper(): fronts.urls[name] for name in NAMES}) as origin,
    ):
        settings = {"FRONTEND_URL": origin, "STORAGE_PUBLIC_URL": fronts.urls["storage"]}
        with Services(folder / "cloud", another(), cloud_run=True, **settings) as services:
            ports.update({service.name: service.port for service in services})
            yield f"{origin}/page.html", services, fronts
            assert [service.name for service in services if "Traceback" in service.said()] == []


@contextmanager
def visiting(chromium: Browser, url: str) -> Iterator[Visitor]:
    with chromium.new_context(ignore_https_errors=True) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        visitor = Visitor(page)
        page.goto(url)
        visitor.join()
        yield visitor
        page.wait_for_timeout(50)  # for the browser's last reports
        assert visitor.journal.faults == []


def test_50_mb_are_uploaded_watched_and_deleted_over_http_2(
    chromium: Browser, cloud: tuple[str, Services, CloudRun], save: Callable[[str, bytes], Path]
) -> None:
    url, services, fronts = cloud
    film = save("large.mp4", videos.exactly(50 * MB - 64 * 1024))
    with visiting(chromium, url) as zoe:
        assert zoe.upload(film, "Large") == "done: Video uploaded successfully"
        assert zoe.reads("storage") == "49.94 of 50.00 MB (99.88%)"
        assert zoe.thumbnail("Large") == (128, 96)
        assert zoe.watch("Large") == (128, 96)
        assert {status for status, _ in zoe.journal.ranges} == {206}
        assert zoe.press("Delete", on=zoe.card("Large")) == "done: Video deleted successfully"
        assert zoe.journal.refusals == []
    assert (fronts.cut, fronts.spoken["video"]) == (0, {"HTTP/2"})
    assert audit(services) == []


def test_what_is_refused_before_its_body_is_told_over_http_2(
    chromium: Browser, cloud: tuple[str, Services, CloudRun], save: Callable[[str, bytes], Path]
) -> None:
    url, services, _ = cloud
    film, text = save("film.mp4", videos.exactly(60 * MB)), save("notes.mp4", b"Dear diary,\n" * 1_000_000)
    with visiting(chromium, url) as zoe:
        for _ in range(3):
            assert zoe.upload(film, "large").endswith("larger than the 50 MB that one upload may have.")
        assert zoe.upload(text, "diary").startswith("refused: This is not a video that can be played")
        zoe.page.evaluate("token = null")
        assert zoe.upload(film, "large") == "refused: Sign in first: this call needs a valid token."
        assert zoe.journal.refusals == [401, 413, 413, 413, 415]
    assert audit(services) == []
