"""Cases of the activity log: what it costs a request that logs, and how many rows a second the receiver takes."""

import sys
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import wire
from e2e.processes import Guard, Service, free_ports
from measures import Bench, Figures, in_turn, latencies, percentile

from shared.clock import utc_now
from shared.contracts import LogBatch, LogEntry
from shared.ids import time_ordered_id


def logging_costs(bench: Bench) -> Generator[Figures, None, None]:
    """A request that logs, with a receiver that is up, slow or down, beside the same service that logs nothing."""
    with ExitStack() as stack:
        slow = stack.enter_context(_slow_receiver(1.0))
        receivers = {
            "silent": None,
            "up": bench.ours.services["logging"].url,
            "slow": f"http://127.0.0.1:{slow}",
            "down": "http://127.0.0.1:9",
        }
        asked: dict[str, tuple[int, wire.Request]] = {}
        for name, url in receivers.items():
            folder = Path(stack.enter_context(TemporaryDirectory()))
            port = stack.enter_context(_video_service(bench, folder, url))
            path = f"/api/videos/user/{bench.ours.people[0].id}"
            asked[name] = port, wire.request("GET", port, path, bench.ours.people[0].headers)
        for port, request in asked.values():
            latencies(port, request, 100, 0)
        while True:
            figures: Figures = {}
            for name, (port, request) in in_turn(asked):
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
    environment = bench.ours.services.environment("video") | {"LOGGING_SERVICE_URL": receiver or "http://127.0.0.1:9"}
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
    """Batches of 400 over 4 connections, as the services send them, while one user reads."""
    port = bench.ours.port("logging")
    person = bench.ours.people[0]
    read = bench.ours.get("logging", f"/api/logs/user/{person.id}", person)
    batches, rows = 40, 400
    while True:
        # New in each round: a token of a service is valid for five minutes.
        headers = bench.ours.services.service_headers() | {"Content-Type": "application/json"}
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
            description="Watched a video of the bench",
            service="video-service",
            created_at=utc_now(),
        )
        for _ in range(rows)
    ]
    return LogBatch(logs=entries).model_dump_json().encode()
