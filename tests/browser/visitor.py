"""Somebody at the page: what they do, what they see, and what the console and the network panel say meanwhile."""

import io
import json
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import ConsoleMessage, Error, Locator, Page, Request, Response, expect

PATIENCE = 30_000  # milliseconds, for whatever is waited for
PASSWORD = "correct horse battery staple"
# Chromium fetches a film as it is watched: it drops a request for more than it needs, and asks again from elsewhere.
DROPPED = "net::ERR_ABORTED"
REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d{3})")


class Journal:
    """All answers that the page got, and all that a developer would call an error."""

    def __init__(self, page: Page) -> None:
        self.answers: list[Response] = []
        self._faults: list[str] = []
        page.on("response", self._answered)
        page.on("requestfailed", self._failed)
        page.on("console", self._said)
        page.on("pageerror", self._threw)

    @property
    def ranges(self) -> list[tuple[int, str]]:
        """Status and Content-Range of each answer that a ``<video>`` got, where it was sent in the end."""
        media = [answer for answer in self.answers if answer.request.resource_type == "media" and answer.status != 302]
        return [(answer.status, answer.headers.get("content-range", "")) for answer in media]

    @property
    def refusals(self) -> list[int]:
        return sorted(answer.status for answer in self.answers if answer.status >= 400)

    @property
    def faults(self) -> list[str]:
        """Everything else: the console reports each refusal too."""
        reports = {f"console error: {status}" for status in self.refusals}
        return [fault for fault in self._faults if fault not in reports]

    def _answered(self, answer: Response) -> None:
        self.answers.append(answer)

    def _failed(self, request: Request) -> None:
        if not (request.resource_type == "media" and request.failure == DROPPED):
            self._faults.append(f"{request.method} {request.url}: {request.failure}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            refused = REFUSED.match(message.text)
            self._faults.append(f"console {message.type}: {refused[1] if refused else message.text}")

    def _threw(self, error: Error) -> None:
        self._faults.append(f"uncaught: {error}")


class Visitor:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.journal = Journal(page)

    def register(self, email: str, password: str = PASSWORD, username: str = "") -> str:
        return self._submit("register", email=email, password=password, username=username)

    def login(self, email: str, password: str = PASSWORD) -> str:
        return self._submit("login", email=email, password=password)

    def join(self) -> str:
        """Be somebody with an account, signed in; the e-mail."""
        email = f"{secrets.token_hex(6)}@example.test"
        assert self.register(email) == "done: User registered successfully"
        assert self.login(email) == "done: Login successful"
        return email

    def upload(self, file: Path, title: str) -> str:
        self.choose(file)
        return self._submit("upload", title=title)

    def choose(self, file: Path) -> None:
        self.page.set_input_files("#upload [name=file]", file)

    def press(self, button: str, on: Locator | None = None) -> str:
        """On the page, or on a card; what the page then says."""
        (on or self.page).get_by_role("button", name=button, exact=True).click()
        said = self.page.locator("#said")
        expect(said).not_to_have_text("…", timeout=PATIENCE)
        return said.inner_text()

    def reads(self, place: str) -> str:
        return self.page.inner_text(f"#{place}")

    def titles(self, place: str) -> list[str | None]:
        return [card.get_attribute("data-title") for card in self.page.locator(f"#{place} li").all()]

    def card(self, title: str, place: str = "mine") -> Locator:
        return self.page.locator(f"#{place} li[data-title={json.dumps(title, ensure_ascii=False)}]")

    def media_url(self, title: str) -> str:
        return self.card(title).get_attribute("data-filepath") or ""

    def thumbnail(self, title: str) -> tuple[int, int]:
        """Its width and height as the browser has decoded it: 0 if it could not."""
        image = self.card(title).locator("img")
        image.evaluate("(image) => image.decode().catch(() => {})")
        width, height = image.evaluate("(image) => [image.naturalWidth, image.naturalHeight]")
        return width, height

    def thumbnail_corners(self, title: str) -> list[str]:
        return _corners(self.card(title).locator("img"))

    def watch(self, title: str) -> tuple[int, int]:
        """Start it, and see it go on; the width and height that it is shown in."""
        assert self.press("Watch", on=self.card(title)) == "done: playing"
        assert self.player("video.src") == self.media_url(title)
        self._played_past(0.2)
        width, height = self.player("[video.videoWidth, video.videoHeight]")
        return width, height

    def seek(self, seconds: float) -> None:
        """Jump there, and see it go on from there."""
        self.player(
            f"""new Promise((resolve, reject) => {{
                video.addEventListener('seeked', resolve, {{ once: true }});
                video.addEventListener('error', () => reject(new Error(video.error.message)), {{ once: true }});
                video.currentTime = {seconds};
            }})"""
        )
        self._played_past(seconds)

    def screen_corners(self) -> list[str]:
        self.player("video.controls = false")
        return _corners(self.page.locator("#player"))

    def player(self, expression: str) -> Any:
        return self.page.evaluate(f"(() => {{ const video = at('player'); return {expression} }})()")

    def fetch(self, url: str, **options: str) -> int:
        """The status that a script gets there."""
        fetched = self.page.evaluate("async ([url, options]) => (await fetch(url, options)).status", [url, options])
        return int(fetched)

    def _played_past(self, seconds: float) -> None:
        self.page.wait_for_function("(past) => at('player').currentTime > past", arg=seconds)

    def _submit(self, form: str, **fields: str) -> str:
        for name, value in fields.items():
            self.page.fill(f"#{form} [name={name}]", value)
        return self.press({"register": "Register", "login": "Log in", "upload": "Upload"}[form])


Visit = Callable[..., AbstractContextManager[Visitor]]


def _corners(shown: Locator) -> list[str]:
    """The colours above left, above right, below left, below right, as they are on the screen."""
    picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
    width, height = picture.size
    places = [(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)]
    return [_colour(picture.getpixel((int(x * width), int(y * height)))) for x, y in places]


def _colour(pixel: Any) -> str:
    red, green, blue = pixel
    if max(red, blue) < 150 or green > 90 or min(red, blue) > 90:
        return f"{pixel}"
    return "red" if red > blue else "blue"
