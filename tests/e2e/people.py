"""People as the page serves them: they register, sign in and upload a form whose video part comes first."""

import base64
import json
import secrets
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from e2e.processes import wait_for
from e2e.services import Services

PASSWORD = "correct horse battery staple"
PIECE = 256 * 1024

T = TypeVar("T")


class Person:
    """Registered and signed in. Methods answer what the service answered."""

    def __init__(self, services: Services, name: str = "somebody") -> None:
        self.services = services
        self.username = name
        self.email = f"{name}-{secrets.token_hex(6)}@example.test"
        self.password = f"{PASSWORD} {secrets.token_hex(4)}"
        account = {"email": self.email, "password": self.password, "username": name}
        self.registered = self._post("user", "/api/users/register", account)
        assert self.registered.status_code == 201, self.registered.text
        self.token = self.login().json()["token"]
        self.id = uuid.UUID(json.loads(base64.b64decode(self.token.split(".")[1] + "=="))["id"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def login(self, password: str | None = None) -> httpx.Response:
        return self._post("user", "/api/users/login", {"email": self.email, "password": password or self.password})

    def get(self, service: str, path: str, **more: Any) -> httpx.Response:
        return self.services.client.get(self.services[service].url + path, headers=self.headers, **more)

    def delete(self, filename: str) -> httpx.Response:
        return self._delete(f"/api/videos/delete/{filename}")

    def delete_all(self) -> httpx.Response:
        return self._delete("/api/videos/delete-all")

    def upload(
        self,
        video: bytes,
        title: str = "A film",
        *,
        chunked: bool = False,
        title_first: bool = False,
        halfway: Callable[[], object] | None = None,
    ) -> httpx.Response:
        """``halfway`` is called when half of the video has been sent, and the first of it has been written."""
        form = Form(video, title, title_first)
        headers = self.headers | {"Content-Type": form.content_type}
        if not chunked:
            headers["Content-Length"] = str(form.length)

        def pause() -> None:
            if halfway is not None:
                wait_for(self.services.engine.is_receiving)
                halfway()

        return self.services.client.post(
            f"{self.services['video'].url}/api/videos/upload", headers=headers, content=form.pieces(pause)
        )

    def videos(self, **query: int) -> Any:
        return self._json(self.get("video", f"/api/videos/user/{self.id}", params=query))

    def storage(self) -> Any:
        return self._json(self.get("storage", "/api/storage/usage"))

    def usage(self) -> Any:
        return self._json(self.get("usage", "/api/usage/daily-usage"))

    def actions(self) -> set[str]:
        """What is in the own logs."""
        return {log["action_type"] for log in self._json(self.get("logging", f"/api/logs/user/{self.id}"))["logs"]}

    def _json(self, answer: httpx.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _post(self, service: str, path: str, body: object) -> httpx.Response:
        return self.services.client.post(self.services[service].url + path, json=body)

    def _delete(self, path: str) -> httpx.Response:
        return self.services.client.delete(self.services["video"].url + path, headers=self.headers)


@dataclass(frozen=True)
class Form:
    """The page's form; ``head`` and ``tail`` are what stands around the video."""

    video: bytes
    title: str = "A film"
    title_first: bool = False
    filename: str = "film.mp4"
    boundary: str = "----WebKitFormBoundary7MA4YWxkTrZu0gW"

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def head(self) -> bytes:
        video = f'name="video"; filename="{self.filename}"\r\nContent-Type: video/mp4'
        return (self._title() if self.title_first else b"") + self._part(video)

    @property
    def tail(self) -> bytes:
        return b"\r\n" + (b"" if self.title_first else self._title()) + f"--{self.boundary}--\r\n".encode()

    @property
    def length(self) -> int:
        return len(self.head) + len(self.video) + len(self.tail)

    def pieces(self, halfway: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        yield self.head
        middle = len(self.video) // 2
        yield from _sliced(self.video[:middle])
        halfway()
        yield from _sliced(self.video[middle:])
        yield self.tail

    def _title(self) -> bytes:
        return self._part('name="title"') + self.title.encode() + b"\r\n"

    def _part(self, disposition: str) -> bytes:
        return f"--{self.boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()


def _sliced(text: bytes) -> Iterator[bytes]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def at_once(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all calls, made at the same time."""
    calls = list(calls)
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
