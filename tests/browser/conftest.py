"""A real Chromium, the page on an origin of its own, and the five real services behind it."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from browser.visitor import PATIENCE, Visit, Visitor
from e2e.engines import Engine, clouds
from e2e.services import Services
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = ["chromium", "chromium-browser", "google-chrome"]
SWITCHES = [
    # Without these, Chromium looks up and calls its maker's hosts.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
]
LINES = 10


class PageHandler(SimpleHTTPRequestHandler):
    """This folder, and ``env.js``: the five URLs that the frontend's build takes from NEXT_PUBLIC_…."""

    def __init__(self, *args: Any, env: dict[str, str]) -> None:
        self.env = env
        super().__init__(*args, directory=str(Path(__file__).parent))

    def do_GET(self) -> None:
        if self.path != "/env.js":
            super().do_GET()
            return
        script = f"window.env = {json.dumps(self.env)};".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript")
        self.send_header("Content-Length", str(len(script)))
        self.end_headers()
        self.wfile.write(script)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def page_at(env: dict[str, str]) -> Iterator[str]:
    """The origin of a page that is told ``env``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(PageHandler, env=env)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not pytest's, which keeps the last ones: these are hundreds of megabytes."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else CHROMIUM
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail(f"no {' or '.join(names)}: run `apt install chromium`, or set CHROMIUM to its path", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine | None]:
    """Where the services keep things: beside them (None), or for a test that asks for it in the cloud."""
    if getattr(request, "param", "embedded") == "embedded":
        yield None
    else:
        with clouds() as another:
            yield another()


@pytest.fixture(scope="module")
def site(folder: Path, engine: Engine | None) -> Iterator[tuple[str, Services]]:
    """The page's URL, and the services, who allow its origin."""
    env: dict[str, str] = {}
    with (
        page_at(env) as origin,
        TemporaryDirectory(dir=folder) as home,
        Services(Path(home), engine, FRONTEND_URL=origin) as services,
    ):
        env.update({service.name.upper(): service.url for service in services})
        yield f"{origin}/page.html", services
        assert [service.name for service in services if "Traceback" in service.said()] == []


@pytest.fixture
def visit(chromium: Browser, site: tuple[str, Services]) -> Visit:
    """Somebody new at the page, with an empty cache. At the end nothing may have failed but what was announced."""
    url, services = site

    @contextmanager
    def visit(refusals: Sequence[int] = ()) -> Iterator[Visitor]:
        with chromium.new_context() as context:
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            visitor = Visitor(page)
            page.goto(url)
            try:
                yield visitor
                page.wait_for_timeout(50)  # for the browser's last reports
            except BaseException:
                print("The journal:", visitor.journal.refusals, *visitor.journal.faults, sep="\n")  # noqa: T201
                for service in services:
                    print(f"{service.name} printed last:", *service.said().splitlines()[-LINES:], sep="\n")  # noqa: T201
                raise
            assert visitor.journal.faults == []
            assert visitor.journal.refusals == sorted(refusals)

    return visit


@pytest.fixture(scope="module")
def save(folder: Path) -> Callable[[str, bytes], Path]:
    """Where a user has the file."""

    def save(name: str, content: bytes) -> Path:
        file = folder / name
        file.write_bytes(content)
        return file

    return save
