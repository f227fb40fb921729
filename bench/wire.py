"""The client of the bench: whole bodies over plain sockets, as cheap as Python can, and each checked by its hash.

It runs on the same cores as the servers, so its cost is the same for all that are compared. One thread drives all
connections of a measurement, each of which has one request in flight.

The hash is XXH3, which reads 20 GB/s: a cryptographic one would be slower than what it checks.
"""

import os
import random
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

BUFFER = 1_048_576
PATIENCE = 120.0  # seconds that nothing moves


class Wrong(Exception):
    """An answer was not what it must be: the figures would mean nothing."""


@dataclass
class Request:
    """``head`` ends with an empty line. ``size`` and ``digest`` are those of the answer's body, where it matters."""

    head: bytes
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    size: int | None = None
    digest: int | None = None
    statuses: tuple[int, ...] = (200, 201, 204, 206)


def request(method: str, port: int, target: str, headers: Mapping[str, str] | None = None, **more: Any) -> Request:
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    body = more.get("body")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return Request("\r\n".join([*lines, "", ""]).encode(), **more)


def digest(content: bytes | memoryview) -> int:
    return int(xxhash.xxh3_64_intdigest(content))


@dataclass
class Exchange:
    """What came of one request: when it began and ended by the monotonic clock, in seconds."""

    began: float
    ended: float
    status: int
    received: int
    sent: int
    body: bytes = b""  # of short answers

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class _Connection:
    def __init__(self, port: int, requests: Iterator[Request], selector: selectors.BaseSelector) -> None:
        self.requests = requests
        self.selector = selector
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = memoryview(bytearray(BUFFER))
        self.done: list[Exchange] = []
        selector.register(self.socket, selectors.EVENT_READ, self)
        self.alive = True
        self.next()

    def next(self) -> None:
        found = next(self.requests, None)
        if found is None:
            self.close()
            return
        self.request = found
        self.outgoing = [memoryview(found.head), found.body] if found.body else [memoryview(found.head)]
        self.head = bytearray()
        self.in_head = True
        self.status = 0
        self.left: int | None = None  # of the body; None: chunked
        self.received = 0
        self.short = bytearray()
        self.hash = xxhash.xxh3_64() if found.digest is not None else None
        self.began = time.monotonic()
        self.write()

    def close(self) -> None:
        if self.alive:
            self.alive = False
            self.selector.unregister(self.socket)
            self.socket.close()

    def write(self) -> None:
        try:
            while self.outgoing:
                sent = self.socket.send(self.outgoing[0])
                self.outgoing[0] = self.outgoing[0][sent:]
                if not self.outgoing[0]:
                    self.outgoing.pop(0)
        except BlockingIOError:
            self.selector.modify(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
            return
        self.selector.modify(self.socket, selectors.EVENT_READ, self)

    def read(self) -> None:
        for _ in range(4):  # then the others' turn
            try:
                count = self.socket.recv_into(self.buffer)
            except BlockingIOError:
                return
            if count == 0:
                raise Wrong(f"the connection was closed in the middle: {bytes(self.head + self.short)[:500]!r}")
            self.take(self.buffer[:count])
            if not self.alive:
                return

    def take(self, data: memoryview) -> None:
        if self.in_head:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = memoryview(bytes(self.head[end + 4 :]))
            lines = bytes(self.head[:end]).decode("latin-1").split("\r\n")
            self.status = int(lines[0].split()[1])
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            if "content-length" in headers:
                self.left = int(headers["content-length"])
            elif self.status == 204:
                self.left = 0
            else:
                raise Wrong(f"an answer without a length: {lines}")
            self.in_head = False
        assert self.left is not None
        if self.hash is not None:
            self.hash.update(data)
        self.received += len(data)
        if self.received <= 65_536:
            self.short += data
        self.left -= len(data)
        if self.left < 0:
            raise Wrong("more came than was announced")
        if self.left == 0:
            self.finish()

    def finish(self) -> None:
        ended = time.monotonic()
        asked = self.request
        if self.status not in asked.statuses:
            raise Wrong(f"{asked.head.split(b' HTTP')[0]!r} was answered {self.status}: {bytes(self.short)[:300]!r}")
        if asked.size is not None and self.received != asked.size:
            raise Wrong(f"{self.received} bytes came instead of {asked.size}")
        if self.hash is not None and self.hash.intdigest() != asked.digest:
            raise Wrong("the bytes are not those that were asked for")
        sent = len(asked.head) + len(asked.body)
        self.done.append(Exchange(self.began, ended, self.status, self.received, sent, bytes(self.short)))
        if self.outgoing:  # answered before the whole body was taken
            raise Wrong(f"answered {self.status} in the middle of the body: {bytes(self.short)[:300]!r}")
        self.next()


def drive(port: int, per_connection: list[Iterator[Request]]) -> list[Exchange]:
    """Send every connection its requests, one after the other; all connections at once. Raises ``Wrong``."""
    with selectors.DefaultSelector() as selector:
        connections = [_Connection(port, requests, selector) for requests in per_connection]
        try:
            while any(connection.alive for connection in connections):
                ready = selector.select(PATIENCE)
                if not ready:
                    raise Wrong(f"nothing moved for {PATIENCE:.0f} s")
                for key, events in ready:
                    connection: _Connection = key.data
                    if events & selectors.EVENT_WRITE:
                        connection.write()
                    if events & selectors.EVENT_READ and connection.alive:
                        connection.read()
        finally:
            for connection in connections:
                connection.close()
        return [exchange for connection in connections for exchange in connection.done]


def one(port: int, asked: Request) -> Exchange:
    (exchange,) = drive(port, [iter([asked])])
    return exchange


def span(exchanges: list[Exchange]) -> float:
    """Seconds from the first byte out to the last byte in."""
    return max(exchange.ended for exchange in exchanges) - min(exchange.began for exchange in exchanges)


def form(video: bytes, title: str) -> tuple[bytes, str]:
    """A multipart body as the frontend sends it, and its content type."""
    boundary = f"----{random.getrandbits(64):016x}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="video"; filename="video.mp4"\r\n'
        f"Content-Type: video/mp4\r\n\r\n"
    ).encode()
    tail = (
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="title"\r\n\r\n{title}\r\n--{boundary}--\r\n'
    ).encode()
    return b"".join((head, video, tail)), f"multipart/form-data; boundary={boundary}"


def page_cache(path: str | os.PathLike[str]) -> None:
    """Read it once: what is measured is moving bytes, not a disk."""
    with open(path, "rb", buffering=0) as file:
        while file.read(BUFFER):
            pass
