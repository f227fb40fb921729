"""HTTP by hand: what no well-behaved client does, such as to send half, to stand still, or to hang up."""

import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

from e2e.people import Form, Person
from e2e.processes import Service


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)["message"]


class Wire:
    """One connection to a service."""

    def __init__(self, service: Service) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        self._host = f"127.0.0.1:{service.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", *(f"{name}: {headers[name]}" for name in headers)]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def send(self, body: bytes) -> None:
        self.socket.sendall(body)

    def answer(self) -> Answer:
        """The next one; "100 Continue" is one too."""
        with self.socket.makefile("rb") as lines:
            status = int(lines.readline().split()[1])
            pairs = (line.decode().split(":", 1) for line in iter(lines.readline, b"\r\n"))
            headers = {name.lower(): value.strip() for name, value in pairs}
            return Answer(status, headers, lines.read(int(headers.get("content-length", 0))))

    def end(self) -> None:
        """The length told before says it."""

    def begins(self) -> bool:
        """Whether an answer does; the rest of it is not read."""
        return self.socket.recv(1) == b"H"

    def reset(self) -> None:
        """Gone without a word, as by a crash or out of reach."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def is_closed(self) -> bool:
        """Whether the service hangs up, which it may take its time for."""
        with suppress(ConnectionError):
            return self.socket.recv(1) == b""
        return True


class OneCall(Protocol):
    """What ``Wire`` and ``http2.Http2Call`` have in common."""

    def send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None: ...
    def send(self, body: bytes) -> None: ...


def upload_head(wire: OneCall, person: Person, form: Form, **headers: str) -> None:
    """All but the body of an upload; ``headers`` win."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    usual = person.headers | {"Content-Type": form.content_type, "Origin": "http://localhost:3000"}
    if "Transfer-Encoding" not in given:
        usual["Content-Length"] = str(form.length)
    wire.send_head("POST", "/api/videos/upload", usual | given)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)
