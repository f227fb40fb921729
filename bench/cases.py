"""The cases. Each measures ours and its yardstick in turn, round after round.

A case is a generator: what stands before its loop is set up once, and each ``yield`` is one round's figures by name.
"""

import asyncio
import itertools
import json
import multiprocessing
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import harmonic_mean, quantiles
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import psutil
import wire
import yardsticks
from argon2 import PasswordHasher
from e2e.people import Person
from e2e.processes import Guard, Service, free_ports
from house import House, cpu_seconds, memory
from wire import digest, form
from wrk import wrk
from yardsticks import Yardstick

from shared.clock import utc_now
from shared.contracts import LogBatch, LogEntry
from shared.ids import time_ordered_id
from shared.settings import MIB
from storage_service.inspection import Inspector

T = TypeVar("T")

GB = 1e9
FILM = 50 * MIB

Figures = dict[str, float]


@dataclass
class Bench:
    """What the cases share: everything runs from the first to the last of them."""

    folder: Path
    house: House
    nginx: Yardstick
    express: Yardstick
    film: bytes
    film_path: Path
    people: list[Person]
    media: str  # the path of the film's capability URL


Rounds = Callable[[Bench], Generator[Figures, None, None]]


# --- moving bytes ---


def downloads(connections: int, each: int, *, behind_edge: bool = False) -> Rounds:
    """The whole film by its capability URL, from storage-service itself or through the edge of compose."""

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        with ExitStack() as stack:
            ours, processes = bench.house.port("storage"), bench.house.processes("storage")
            if behind_edge:
                ours, processes = stack.enter_context(_edge(bench))
            theirs = bench.nginx.port
            expected: dict[str, Any] = {"size": len(bench.film), "digest": digest(bench.film)}
            asked = {
                "ours": (ours, wire.request("GET", ours, bench.media, None, **expected), processes),
                "nginx": (theirs, wire.request("GET", theirs, "/film.mp4", None, **expected), bench.nginx.processes),
            }
            while True:
                figures: Figures = {}
                for name, (port, request, working) in _in_turn(asked):
                    before = cpu_seconds(working)
                    done = wire.drive(port, [itertools.repeat(request, each) for _ in range(connections)])
                    moved = sum(exchange.received for exchange in done) / GB
                    figures[f"{name} MB/s"] = moved * 1000 / wire.span(done)
                    figures[f"{name} CPU s/GB"] = (cpu_seconds(working) - before) / moved
                yield figures

    return rounds


@contextmanager
def _edge(bench: Bench) -> Iterator[tuple[int, list[psutil.Process]]]:
    """Its port, and what works there: an nginx, and one more storage-service over the same data that lets it send."""
    services = bench.house.services
    (port,) = free_ports(1)
    environment = services.environment("storage") | {"ACCEL_REDIRECT": "/sent-by-nginx/"}
    with ExitStack() as stack:
        guard = stack.enter_context(Guard())
        storage = Service("storage", services.folder, port, environment, guard)
        stack.callback(storage.kill)
        storage.start()
        folder = Path(stack.enter_context(TemporaryDirectory(dir=bench.folder)))
        edge = stack.enter_context(yardsticks.edge(folder / "edge", port, storage.data / "objects"))
        yield edge.port, [psutil.Process(storage.pid), *edge.processes]


def ranges(connections: int, each: int) -> Rounds:
    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        ours, theirs = bench.house.port("storage"), bench.nginx.port
        starts = range(0, len(bench.film) - MIB, MIB)
        asked: dict[str, tuple[int, list[wire.Request]]] = {}
        for name, port, path in (("ours", ours, bench.media), ("nginx", theirs, "/film.mp4")):
            asked[name] = (
                port,
                [
                    wire.request(
                        "GET",
                        port,
                        path,
                        {"Range": f"bytes={start}-{start + MIB - 1}"},
                        size=MIB,
                        digest=digest(bench.film[start : start + MIB]),
                        statuses=(206,),
                    )
                    for start in starts
                ],
            )
        chance = random.Random(1)
        while True:
            order = [[chance.randrange(len(starts)) for _ in range(each)] for _ in range(connections)]
            figures: Figures = {}
            for name, (port, requests) in _in_turn(asked):
                done = wire.drive(port, [iter([requests[number] for number in one]) for one in order])
                figures[f"{name} MB/s"] = sum(exchange.received for exchange in done) / 1e6 / wire.span(done)
            yield figures

    return rounds


def uploads(at_once: int, each: int) -> Rounds:
    """The same film; ours and Express take the page's form, nginx a bare PUT, by one hop and by two. What was stored is
    removed between.
    """

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        people = bench.people[:at_once]
        owners = [person for person in people for _ in range(each)]
        body, content_type = form(bench.film, "A film of the bench")
        video = bench.house.port("video")
        signed = {"Authorization": people[0].headers["Authorization"], "Content-Type": content_type}
        asked = {"ours": (video, [bench.house.upload(person, body, content_type) for person in owners])}
        for name, path in (("nginx PUT", "put"), ("nginx twice", "twice")):
            puts = [
                wire.request("PUT", bench.nginx.port, f"/{path}/{number}.mp4", body=memoryview(bench.film))
                for number in range(len(owners))
            ]
            asked[name] = (bench.nginx.port, puts)
        for kind in ("memory", "disk"):
            target = wire.request("POST", bench.express.port, f"/{kind}", signed, body=memoryview(body))
            asked[f"multer {kind}"] = (bench.express.port, [target] * len(owners))
        while True:
            figures: Figures = {}
            for name, (port, requests) in _in_turn(asked):
                os.sync()  # or who syncs what he takes would wait for what the one before has left
                done = wire.drive(port, [iter(requests[start : start + each]) for start in range(0, len(owners), each)])
                figures[f"{name} MB/s"] = len(bench.film) * len(owners) / 1e6 / wire.span(done)
                if name == "ours":
                    _check_stored(bench, [json.loads(exchange.body)["file"]["filepath"] for exchange in done])
                    _remove(bench, owners, done)
                elif name.startswith("nginx"):
                    for file in (bench.nginx.folder / "files" / "put").iterdir():
                        assert digest(file.read_bytes()) == digest(bench.film)
                        file.unlink()
                else:
                    assert all(json.loads(exchange.body)["size"] == len(bench.film) for exchange in done)
            yield figures

    return rounds


def _check_stored(bench: Bench, urls: list[str]) -> None:
    port = bench.house.port("storage")
    for url in urls:
        path = url.partition(f":{port}")[2]
        wire.one(port, wire.request("GET", port, path, size=len(bench.film), digest=digest(bench.film)))


def _remove(bench: Bench, people: list[Person], uploaded: list[wire.Exchange]) -> None:
    """The first person has a hundred thousand other videos, which stay."""
    port = bench.house.port("video")
    for person, exchange in zip(people, uploaded, strict=True):
        filename = json.loads(exchange.body)["file"]["filename"]
        wire.one(port, wire.request("DELETE", port, f"/api/videos/delete/{filename}", person.headers))


def upload_memory(at_once: int) -> Rounds:
    """The most that the five keep while so many films come, above what they keep at rest."""

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        people = _enough_people(bench, at_once)
        body, content_type = form(bench.film, "A film of the bench")
        requests = [bench.house.upload(person, body, content_type) for person in people]
        while True:
            processes = bench.house.processes()
            time.sleep(1)
            rest = memory(processes)
            with _Highest(lambda: memory(bench.house.processes())) as highest:
                done = wire.drive(bench.house.port("video"), [iter([request]) for request in requests])
            _remove(bench, people, done)
            yield {"MB at rest": rest / MIB, "MB more": (highest.value - rest) / MIB}

    return rounds


# --- small requests ---


def lists(service: str, constant: str, targets: Callable[[Bench], list[str]]) -> Rounds:
    """Requests a second over 32 connections, against Express that verifies the token and answers a constant.

    Ours is what one gets who asks for each of the targets as often: one that is slow counts for what it takes.
    """

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        person = bench.people[0]
        asked = {"express": f"http://127.0.0.1:{bench.express.port}/{constant}"}
        for number, path in enumerate(targets(bench)):
            assert wire.one(bench.house.port(service), bench.house.get(service, path, person)).received
            asked[f"ours {number}"] = bench.house.services[service].url + path
        while True:
            figures: Figures = {}
            for who, url in _in_turn(asked):
                # Long enough that the first request of each connection is not the 99th percentile.
                flow = wrk(url, person.headers, connections=32, seconds=3)
                figures[f"{who} requests/s"], figures[f"{who} p99 ms"] = flow.rate, flow.p99 * 1000
            ours = [
                name.removesuffix(" requests/s") for name in figures if name.startswith("ours") and "requests" in name
            ]
            figures["ours requests/s"] = harmonic_mean([figures[f"{name} requests/s"] for name in ours])
            figures["ours p99 ms"] = max(figures[f"{name} p99 ms"] for name in ours)
            yield figures

    return rounds


def verifying(bench: Bench) -> Generator[Figures, None, None]:
    """A request that does nothing but verify a token."""
    services = bench.house.services
    while True:
        asked = {
            "ours": (f"{services['usage'].url}/internal/health", services.service_headers()),
            "express": (f"http://127.0.0.1:{bench.express.port}/verify", bench.people[0].headers),
        }
        figures: Figures = {}
        for name, (url, headers) in _in_turn(asked):
            flow = wrk(url, headers, connections=32)
            figures[f"{name} requests/s"] = flow.rate
            figures[f"{name} p99 ms"] = flow.p99 * 1000
        yield figures


def beside_traffic(bench: Bench) -> Generator[Figures, None, None]:
    """A small request to each service, at rest and while 16 films go out and 8 come in: the worst service's p99."""
    targets = _small_requests(bench)
    while True:
        rest = {name: latencies(port, request) for name, (port, request) in targets.items()}
        with _traffic(bench, downloads=16, uploads=8):
            busy = {name: latencies(port, request) for name, (port, request) in targets.items()}
        figures: Figures = {}
        for name in targets:
            figures[f"{name} p99 ms at rest"] = percentile(rest[name], 99) * 1000
            figures[f"{name} p99 ms beside"] = percentile(busy[name], 99) * 1000
            figures[f"{name} ms more"] = figures[f"{name} p99 ms beside"] - figures[f"{name} p99 ms at rest"]
        figures["ms more"] = max(figures[f"{name} ms more"] for name in targets)
        yield figures


def _small_requests(bench: Bench) -> dict[str, tuple[int, wire.Request]]:
    person = bench.people[0]
    paths = {
        "user": "/health",
        "video": "/api/videos/stream?start=0&limit=16",
        "storage": "/api/storage/usage",
        "usage": "/api/usage/daily-usage",
        "logging": f"/api/logs/user/{person.id}",
    }
    return {name: (bench.house.port(name), bench.house.get(name, path, person)) for name, path in paths.items()}


def latencies(port: int, request: wire.Request, count: int = 200, pause: float = 0.005) -> list[float]:
    """One after the other with a pause between: what one person feels."""

    def paced() -> Iterator[wire.Request]:
        for _ in range(count):
            time.sleep(pause)
            yield request

    return [exchange.seconds for exchange in wire.drive(port, [paced()])]


def percentile(values: list[float], number: int) -> float:
    return quantiles(values, n=100, method="inclusive")[number - 1]


@contextmanager
def _traffic(bench: Bench, downloads: int, uploads: int) -> Iterator[None]:
    """Without a pause, from a process of its own."""
    body, content_type = form(bench.film, "A film of the bench")
    people = bench.people[1 : 1 + uploads]
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    port = bench.house.port("storage")
    fetch = wire.request("GET", port, bench.media, size=len(bench.film), digest=digest(bench.film))

    def until_stopped(request: wire.Request) -> Iterator[wire.Request]:
        while not stop.is_set():
            yield request

    def down() -> None:
        wire.drive(port, [until_stopped(fetch) for _ in range(downloads)])

    def up() -> None:
        video = bench.house.port("video")
        while not stop.is_set():
            done = wire.drive(video, [iter([bench.house.upload(person, body, content_type)]) for person in people])
            _remove(bench, people, done)

    workers = [context.Process(target=work, daemon=True) for work in (down, up)]
    for worker in workers:
        worker.start()
    time.sleep(1)  # until all of it moves
    try:
        yield
        assert all(worker.is_alive() for worker in workers), "the traffic ended by itself"
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
            worker.kill()


def logging_costs(bench: Bench) -> Generator[Figures, None, None]:
    """A request that logs, with a receiver that is up, slow or gone, against the same service that logs nothing."""
    with ExitStack() as stack:
        slow = stack.enter_context(_slow_receiver(1.0))
        receivers = {
            "silent": None,
            "up": bench.house.services["logging"].url,
            "slow": f"http://127.0.0.1:{slow}",
            "down": "http://127.0.0.1:9",
        }
        asked: dict[str, tuple[int, wire.Request]] = {}
        for name, url in receivers.items():
            folder = Path(stack.enter_context(TemporaryDirectory()))
            port = stack.enter_context(_video_service(bench, folder, url))
            path = f"/api/videos/user/{bench.people[0].id}"
            asked[name] = port, wire.request("GET", port, path, bench.people[0].headers)
        for port, request in asked.values():
            latencies(port, request, 100, 0)
        while True:
            figures: Figures = {}
            for name, (port, request) in _in_turn(asked):
                taken = latencies(port, request, 1500, 0.0005)
                figures[f"{name} p50 ms"], figures[f"{name} p99 ms"] = (
                    percentile(taken, 50) * 1000,
                    percentile(taken, 99) * 1000,
                )
            figures["p50 ms more"] = (
                max(figures[f"{n} p50 ms"] for n in ("up", "slow", "down")) - figures["silent p50 ms"]
            )
            figures["p99 ms more"] = (
                max(figures[f"{n} p99 ms"] for n in ("up", "slow", "down")) - figures["silent p99 ms"]
            )
            yield figures


@contextmanager
def _video_service(bench: Bench, folder: Path, receiver: str | None) -> Iterator[int]:
    """One more of them on an empty database; without a receiver it is one that logs nothing (see silent.py)."""
    (port,) = free_ports(1)
    environment = bench.house.services.environment("video") | {"LOGGING_SERVICE_URL": receiver or "http://127.0.0.1:9"}
    with Guard() as guard:
        service = Service("video", folder, port, environment, guard)
        if receiver is None:
            service.command = [sys.executable, str(Path(__file__).with_name("silent.py"))]
        try:
            service.start()
            yield port
        finally:
            service.kill()


@contextmanager
def _slow_receiver(seconds: float) -> Iterator[int]:
    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def log_intake(bench: Bench) -> Generator[Figures, None, None]:
    """Batches of 400 over 4 connections, as the services send them, while somebody reads."""
    port = bench.house.port("logging")
    person = bench.people[0]
    read = bench.house.get("logging", f"/api/logs/user/{person.id}", person)
    batches, rows = 40, 400
    while True:
        # Anew in each round: a service's token lives for five minutes.
        headers = bench.house.services.service_headers() | {"Content-Type": "application/json"}
        bodies = [[_batch(person.id, rows) for _ in range(batches)] for _ in range(4)]
        requests = [
            [wire.request("POST", port, "/api/logs/batch", headers, body=memoryview(body)) for body in some]
            for some in bodies
        ]
        stop = threading.Event()
        reads: list[float] = []

        def reader(stop: threading.Event = stop, reads: list[float] = reads) -> None:
            while not stop.is_set():
                reads.append(wire.one(port, read).seconds)
                time.sleep(0.02)

        thread = threading.Thread(target=reader)
        thread.start()
        try:
            done = wire.drive(port, [iter(some) for some in requests])
        finally:
            stop.set()
            thread.join()
        yield {"rows/s": 4 * batches * rows / wire.span(done), "read p99 ms": percentile(reads, 99) * 1000}


def _batch(user: uuid.UUID, rows: int) -> bytes:
    entries = [
        LogEntry(
            id=time_ordered_id(),
            user_id=user,
            action="WATCH_VIDEO",
            description="Watched a film of the bench",
            service="video-service",
            created_at=utc_now(),
        )
        for _ in range(rows)
    ]
    return LogBatch(logs=entries).model_dump_json().encode()


def logins(bench: Bench) -> Generator[Figures, None, None]:
    """Against argon2id alone, with the same parameters, on all cores; and what another request feels meanwhile."""
    person = bench.people[0]
    cores = os.cpu_count() or 1
    # The parameters of user_service.passwords, without passlib around them.
    argon2 = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    hashed = argon2.hash(person.password)
    port = bench.house.port("user")
    credentials = json.dumps({"email": person.email, "password": person.password}).encode()
    headers = {"Content-Type": "application/json"}
    request = wire.request("POST", port, "/api/users/login", headers, body=memoryview(credentials))
    health = wire.request("GET", port, "/health")
    count = 60
    with ThreadPoolExecutor(cores) as pool:
        while True:
            began = time.monotonic()
            assert all(pool.map(lambda _: argon2.verify(hashed, person.password), range(count)))
            bare = count / (time.monotonic() - began)
            rest = latencies(port, health, 100, 0.01)
            other: list[float] = []
            thread = threading.Thread(target=lambda o=other: o.extend(latencies(port, health, 100, 0.01)))
            thread.start()
            done = wire.drive(port, [itertools.repeat(request, count // 4) for _ in range(4)])
            thread.join()
            yield {
                "logins/s": count / wire.span(done),
                "argon2id/s": bare,
                "others' ms more": (percentile(other, 99) - percentile(rest, 99)) * 1000,
            }


def inspection(bench: Bench) -> Generator[Figures, None, None]:
    """Container, codecs, duration and thumbnail of a film of 50 MB, by a warm judge."""

    async def measure(inspector: Inspector) -> float:
        began = time.monotonic()
        probe = await inspector.inspect(bench.film_path)
        assert probe.thumbnail
        return time.monotonic() - began

    loop = asyncio.new_event_loop()
    inspector = Inspector()
    loop.run_until_complete(inspector.__aenter__())
    try:
        loop.run_until_complete(measure(inspector))
        while True:
            taken = []
            for _ in range(5):
                loop.run_until_complete(asyncio.sleep(0.1))
                taken.append(loop.run_until_complete(measure(inspector)))
            yield {"ms": sorted(taken)[2] * 1000}
    finally:
        loop.run_until_complete(inspector.__aexit__(None, None, None))
        loop.close()


def _in_turn(asked: dict[str, T]) -> Iterator[tuple[str, T]]:
    """Who is first changes, so that none has the warm machine always."""
    names = list(asked)
    random.shuffle(names)
    for name in names:
        yield name, asked[name]


def _enough_people(bench: Bench, count: int) -> list[Person]:
    while len(bench.people) < count:
        bench.people.append(bench.house.person())
    return bench.people[:count]


class _Highest:
    """Of a figure that is looked at every 50 ms."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.value = 0

    def __enter__(self) -> "_Highest":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.value = max(self.value, self._look())
