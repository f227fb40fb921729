"""Cases that move bytes: whole videos, ranges, uploads, and the memory that uploads take.

The functions without a ``Bench`` measure one product once; the cases call them beside a reference.
"""

import itertools
import json
import os
import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import references
import wire
from e2e.processes import Guard, Service, free_ports
from measures import GB, Bench, Figures, Highest, Rounds, cpu_seconds, in_turn, memory
from product import Product
from wire import digest, form

from shared.settings import MIB

Check = Callable[[list[str]], bool]
"""Whether the videos at these URLs are stored whole."""

# --- one measurement of one server ---


def fetch(port: int, path: str, video: bytes, processes: list[psutil.Process], connections: int, each: int) -> Figures:
    """The whole video, ``each`` times over each connection: MB/s, and processor seconds per GB of ``processes``."""
    request = wire.request("GET", port, path, None, size=len(video), digest=digest(video))
    before = cpu_seconds(processes)
    done = wire.drive(port, [itertools.repeat(request, each) for _ in range(connections)])
    moved = sum(exchange.received for exchange in done) / GB
    return {"MB/s": moved * 1000 / wire.span(done), "CPU s/GB": (cpu_seconds(processes) - before) / moved}


def fetch_videos(product: Product, video: bytes, connections: int, each: int) -> Figures:
    return fetch(product.port("storage"), product.media, video, product.processes("storage"), connections, each)


def send_videos(product: Product, video: bytes, at_once: int, each: int, check: Check | None = None) -> Figures:
    """Uploads of ``at_once`` users, ``each`` one after the other: MB/s, and processor seconds per GB of all five
    services. Outside the measurement the videos are then checked (by default read back whole) and deleted.
    """
    owners = [person for person in product.enough_people(at_once) for _ in range(each)]
    body, content_type = form(video, "A video of the bench")
    requests = [product.upload(person, body, content_type) for person in owners]
    os.sync()  # or an fsync of this measurement would wait for what the one before has left
    before = cpu_seconds(product.processes())
    done = wire.drive(product.port("video"), _per_connection(requests, each))
    spent = cpu_seconds(product.processes()) - before
    moved = len(video) * len(owners) / GB
    urls = [json.loads(exchange.body)["file"]["filepath"] for exchange in done]
    assert check(urls) if check else _is_stored(product, video, urls), "an upload was not stored whole"
    product.remove(owners, done)
    return {"MB/s": moved * 1000 / wire.span(done), "CPU s/GB": spent / moved}


def memory_rise(product: Product, video: bytes, at_once: int) -> Figures:
    """The most that the five services hold during so many uploads, above what they hold at rest."""
    people = product.enough_people(at_once)
    body, content_type = form(video, "A video of the bench")
    requests = [product.upload(person, body, content_type) for person in people]
    time.sleep(1)
    rest = memory(product.processes())
    with Highest(lambda: memory(product.processes())) as highest:
        done = wire.drive(product.port("video"), [iter([request]) for request in requests])
    product.remove(people, done)
    return {"MB at rest": rest / MIB, "MB more": (highest.value - rest) / MIB}


def _per_connection(requests: list[wire.Request], each: int) -> list[Iterator[wire.Request]]:
    return [iter(requests[start : start + each]) for start in range(0, len(requests), each)]


def _is_stored(product: Product, video: bytes, urls: list[str]) -> bool:
    """Raises ``Wrong`` where an answer is not the video."""
    port = product.port("storage")
    expected: dict[str, Any] = {"size": len(video), "digest": digest(video)}
    answers = [wire.one(port, wire.request("GET", port, product.media_path(url), **expected)) for url in urls]
    return len(answers) == len(urls)


# --- cases ---


def downloads(connections: int, each: int, *, behind_edge: bool = False) -> Rounds:
    """The whole video by its capability URL, from storage-service itself or through the edge of compose."""

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        with ExitStack() as stack:
            port, processes = bench.ours.port("storage"), bench.ours.processes("storage")
            if behind_edge:
                port, processes = stack.enter_context(_edge(bench))
            servers = {
                "ours": (port, bench.ours.media, processes),
                "nginx": (bench.nginx.port, "/video.mp4", bench.nginx.processes),
            }
            while True:
                figures: Figures = {}
                for name, (at, path, working) in in_turn(servers):
                    found = fetch(at, path, bench.video, working, connections, each)
                    figures |= {f"{name} {figure}": value for figure, value in found.items()}
                yield figures

    return rounds


@contextmanager
def _edge(bench: Bench) -> Iterator[tuple[int, list[psutil.Process]]]:
    """The edge's port and the processes behind it: nginx, and one more storage-service over the same data that lets
    nginx send the files.
    """
    services = bench.ours.services
    (port,) = free_ports(1)
    environment = services.environment("storage") | {"ACCEL_REDIRECT": "/sent-by-nginx/"}
    with ExitStack() as stack:
        guard = stack.enter_context(Guard())
        storage = Service("storage", services.folder, port, environment, guard)
        stack.callback(storage.kill)
        storage.start()
        folder = Path(stack.enter_context(TemporaryDirectory(dir=bench.folder)))
        edge = stack.enter_context(references.edge(folder / "edge", port, storage.data / "objects"))
        yield edge.port, [psutil.Process(storage.pid), *edge.processes]


def ranges(connections: int, each: int) -> Rounds:
    """Ranges of 1 MiB at random places, in the same order for both servers."""

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        starts = range(0, len(bench.video) - MIB, MIB)
        servers: dict[str, tuple[int, list[wire.Request]]] = {}
        for name, port, path in (
            ("ours", bench.ours.port("storage"), bench.ours.media),
            ("nginx", bench.nginx.port, "/video.mp4"),
        ):
            servers[name] = (port, [_range(port, path, bench.video, start) for start in starts])
        chance = random.Random(1)
        while True:
            order = [[chance.randrange(len(starts)) for _ in range(each)] for _ in range(connections)]
            figures: Figures = {}
            for name, (port, requests) in in_turn(servers):
                done = wire.drive(port, [iter([requests[number] for number in one]) for one in order])
                figures[f"{name} MB/s"] = sum(exchange.received for exchange in done) / 1e6 / wire.span(done)
            yield figures

    return rounds


def _range(port: int, path: str, video: bytes, start: int) -> wire.Request:
    expected: dict[str, Any] = {"size": MIB, "digest": digest(video[start : start + MIB]), "statuses": (206,)}
    return wire.request("GET", port, path, {"Range": f"bytes={start}-{start + MIB - 1}"}, **expected)


def uploads(at_once: int, each: int) -> Rounds:
    """The same video: to ours and to Express as a form, to nginx as a bare PUT, by one hop and by two."""

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        count = at_once * each
        body, content_type = form(bench.video, "A video of the bench")
        signed = bench.ours.people[0].headers | {"Content-Type": content_type}
        others: dict[str, tuple[references.Reference, list[wire.Request]]] = {}
        for name, path in (("nginx PUT", "put"), ("nginx twice", "twice")):
            targets = [f"/{path}/{number}.mp4" for number in range(count)]
            port, content = bench.nginx.port, memoryview(bench.video)
            others[name] = (bench.nginx, [wire.request("PUT", port, target, body=content) for target in targets])
        for kind in ("memory", "disk"):
            request = wire.request("POST", bench.express.port, f"/{kind}", signed, body=memoryview(body))
            others[f"multer {kind}"] = (bench.express, [request] * count)
        while True:
            figures: Figures = {}
            for name, other in in_turn({"ours": None, **others}):
                if other is None:
                    found = send_videos(bench.ours, bench.video, at_once, each)
                    figures |= {f"{name} {figure}": value for figure, value in found.items()}
                    continue
                os.sync()
                done = wire.drive(other[0].port, _per_connection(other[1], each))
                figures[f"{name} MB/s"] = len(bench.video) * count / 1e6 / wire.span(done)
                _check_reference(bench, name, done)
            yield figures

    return rounds


def _check_reference(bench: Bench, name: str, done: list[wire.Exchange]) -> None:
    """Whether nginx stored the video, and removes it; whether Express received all of it."""
    if name.startswith("nginx"):
        for file in (bench.nginx.folder / "files" / "put").iterdir():
            assert digest(file.read_bytes()) == digest(bench.video)
            file.unlink()
    else:
        assert all(json.loads(exchange.body)["size"] == len(bench.video) for exchange in done)


def upload_memory(at_once: int) -> Rounds:
    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        while True:
            yield memory_rise(bench.ours, bench.video, at_once)

    return rounds
