"""The product under measurement: the five services of one checkout as processes, its users and one uploaded video.

Everything here goes through HTTP and the list of processes, so that a checkout of another commit can be measured too.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from e2e.engines import Engine
from e2e.people import Person
from e2e.processes import wait_for
from e2e.services import NAMES, Services
from wire import Exchange, Request, one, request

# In tests the services sweep only when a test asks for it; here they sweep as by default, which an empty value means.
# As with `make run`, video-service can write into storage-service's files.
DEFAULTS: dict[str, Any] = {"SWEEP_SECONDS": "", "STREAMED_REPORT_SECONDS": "", "OFFER_UPLOAD_FILES": "true"}
# A user of the bench moves more than the default quotas allow.
QUOTAS: dict[str, Any] = {"MAX_STORAGE_MB": "100000", "DAILY_BANDWIDTH_MB": "1000000"}


class Product:
    """``media`` is the path of the capability URL of the video that ``put_video`` uploaded."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.people: list[Person] = []
        self.media = ""

    def port(self, service: str) -> int:
        return self.services[service].port

    def enough_people(self, count: int) -> list[Person]:
        """The first ``count`` users; those that are missing are registered."""
        while len(self.people) < count:
            self.people.append(Person(self.services))
        return self.people[:count]

    def get(self, service: str, target: str, person: Person, **more: Any) -> Request:
        return request("GET", self.port(service), target, person.headers, **more)

    def upload(self, person: Person, body: bytes, content_type: str) -> Request:
        headers = person.headers | {"Content-Type": content_type}
        return request("POST", self.port("video"), "/api/videos/upload", headers, body=memoryview(body))

    def put_video(self, person: Person, content: bytes) -> None:
        """Upload it and set ``media``; returns when the activity log has the upload, so that no page of it is empty."""
        answer = person.upload(content, "A video of the bench")
        assert answer.status_code == 200, answer.text
        self.media = self.media_path(answer.json()["file"]["filepath"])
        wait_for(lambda: person.get("logging", f"/api/logs/user/{person.id}").json()["logs"])

    def media_path(self, url: str) -> str:
        return url.partition(f":{self.port('storage')}")[2]

    def remove(self, people: list[Person], uploaded: list[Exchange]) -> None:
        """Delete these uploads, one for each of ``people``, and nothing else of theirs."""
        port = self.port("video")
        for person, exchange in zip(people, uploaded, strict=True):
            filename = json.loads(exchange.body)["file"]["filename"]
            one(port, request("DELETE", port, f"/api/videos/delete/{filename}", person.headers))

    def processes(self, *names: str) -> list[psutil.Process]:
        """Of these services, or of all five: each with its child processes."""
        roots = [psutil.Process(self.services[name].pid) for name in names or NAMES]
        return [process for root in roots for process in [root, *root.children(recursive=True)]]


@contextmanager
def running(
    folder: Path, *, checkout: Path | None = None, engine: Engine | None = None, **settings: Any
) -> Iterator[Product]:
    """The services of this checkout, or of another one with the Python of its own environment."""
    services = Services(folder, engine, faulty=False, **(DEFAULTS | QUOTAS | settings))
    if checkout is not None:
        for service in services:
            service.command = [str(python_of(checkout)), "-m", f"{service.name}_service"]
    with services:
        yield Product(services)


def python_of(checkout: Path) -> Path:
    return checkout.resolve() / ".venv" / "bin" / "python"
