"""Cases of small requests: tokens, logins, and what others feel beside big transfers. Lists are in lists.py.

The functions without a ``Bench`` measure one product once; the cases call them beside a reference.
"""

import itertools
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import wire
from argon2 import PasswordHasher
from e2e.people import Person
from measures import Bench, Figures, cpu_seconds, in_turn, latencies, percentile
from product import Product
from wire import digest, form
from wrk import wrk

# --- one measurement of one product ---


def full_load(product: Product, service: str, target: str, *, connections: int = 32, seconds: float = 2) -> Figures:
    """As many requests as it answers; ``CPU µs`` is the processor time of all five services for one request."""
    before = cpu_seconds(product.processes())
    url = product.services[service].url + target
    flow = wrk(url, product.people[0].headers, connections=connections, seconds=seconds)
    spent = cpu_seconds(product.processes()) - before
    return {
        "requests/s": flow.rate,
        "p50 ms": flow.p50 * 1000,
        "p99 ms": flow.p99 * 1000,
        "CPU µs": spent / flow.requests * 1e6,
    }


def login_load(product: Product, count: int = 60) -> Figures:
    """Logins over 4 connections; ``CPU ms`` is the processor time of all five services for one."""
    request = login_request(product, product.people[0])
    before = cpu_seconds(product.processes())
    done = wire.drive(product.port("user"), [itertools.repeat(request, count // 4) for _ in range(4)])
    spent = cpu_seconds(product.processes()) - before
    return {"logins/s": count / wire.span(done), "CPU ms": spent / count * 1000}


def login_request(product: Product, person: Person) -> wire.Request:
    credentials = json.dumps({"email": person.email, "password": person.password}).encode()
    headers = {"Content-Type": "application/json"}
    return wire.request("POST", product.port("user"), "/api/users/login", headers, body=memoryview(credentials))


def beside_transfers(product: Product, video: bytes) -> Figures:
    """A small request to each service, at rest and during 16 downloads and 8 uploads. ``p99 ms beside`` and ``ms more``
    are those of the service where it is highest.
    """
    product.enough_people(9)
    targets = _small_requests(product)
    rest = {name: latencies(port, request) for name, (port, request) in targets.items()}
    with _transfers(product, video, downloads=16, uploads=8):
        busy = {name: latencies(port, request) for name, (port, request) in targets.items()}
    figures: Figures = {}
    for name in targets:
        figures[f"{name} p99 ms at rest"] = percentile(rest[name], 99) * 1000
        figures[f"{name} p99 ms beside"] = percentile(busy[name], 99) * 1000
        figures[f"{name} ms more"] = figures[f"{name} p99 ms beside"] - figures[f"{name} p99 ms at rest"]
    for figure in ("p99 ms beside", "ms more"):
        figures[figure] = max(figures[f"{name} {figure}"] for name in targets)
    return figures


def _small_requests(product: Product) -> dict[str, tuple[int, wire.Request]]:
    person = product.people[0]
    paths = {
        "user": "/health",
        "video": "/api/videos/stream?start=0&limit=16",
        "storage": "/api/storage/usage",
        "usage": "/api/usage/daily-usage",
        "logging": f"/api/logs/user/{person.id}",
    }
    return {name: (product.port(name), product.get(name, path, person)) for name, path in paths.items()}


@contextmanager
def _transfers(product: Product, video: bytes, downloads: int, uploads: int) -> Iterator[None]:
    """Without a pause, each kind from a process of its own."""
    body, content_type = form(video, "A video of the bench")
    people = product.people[1 : 1 + uploads]
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    port = product.port("storage")
    fetch = wire.request("GET", port, product.media, size=len(video), digest=digest(video))

    def until_stopped(request: wire.Request) -> Iterator[wire.Request]:
        while not stop.is_set():
            yield request

    def down() -> None:
        wire.drive(port, [until_stopped(fetch) for _ in range(downloads)])

    def up() -> None:
        while not stop.is_set():
            requests = [iter([product.upload(person, body, content_type)]) for person in people]
            product.remove(people, wire.drive(product.port("video"), requests))

    workers = [context.Process(target=work, daemon=True) for work in (down, up)]
    for worker in workers:
        worker.start()
    time.sleep(1)  # until all of it moves
    try:
        yield
        assert all(worker.is_alive() for worker in workers), "the transfers ended by themselves"
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
            worker.kill()


# --- cases ---


def verifying(bench: Bench) -> Generator[Figures, None, None]:
    """A request that does nothing but verify a token."""
    services = bench.ours.services
    while True:
        asked = {
            "ours": (f"{services['usage'].url}/internal/health", services.service_headers()),
            "express": (f"http://127.0.0.1:{bench.express.port}/verify", bench.ours.people[0].headers),
        }
        figures: Figures = {}
        for name, (url, headers) in in_turn(asked):
            flow = wrk(url, headers, connections=32)
            figures[f"{name} requests/s"] = flow.rate
            figures[f"{name} p99 ms"] = flow.p99 * 1000
        yield figures


def beside(bench: Bench) -> Generator[Figures, None, None]:
    while True:
        yield beside_transfers(bench.ours, bench.video)


def logins(bench: Bench) -> Generator[Figures, None, None]:
    """Beside argon2id alone, with the same parameters, on all cores; and what another request feels meanwhile."""
    person = bench.ours.people[0]
    # The parameters of user_service.passwords, without passlib around them.
    argon2 = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    hashed = argon2.hash(person.password)
    port = bench.ours.port("user")
    health = wire.request("GET", port, "/health")
    count = 60
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        while True:
            began = time.monotonic()
            assert all(pool.map(lambda _: argon2.verify(hashed, person.password), range(count)))
            bare = count / (time.monotonic() - began)
            rest = latencies(port, health, 100, 0.01)
            other: list[float] = []
            thread = threading.Thread(target=lambda o=other: o.extend(latencies(port, health, 100, 0.01)))
            thread.start()
            found = login_load(bench.ours, count)
            thread.join()
            more = (percentile(other, 99) - percentile(rest, 99)) * 1000
            yield {"logins/s": found["logins/s"], "argon2id/s": bare, "others' ms more": more}
