"""What the cases share: what runs, and how time, processor time and memory are taken."""

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TypeVar

import psutil
import wire
from product import Product
from references import Reference

from shared.settings import MIB

T = TypeVar("T")

GB = 1e9
VIDEO_BYTES = 50 * MIB

Figures = dict[str, float]


@dataclass
class Bench:
    """What runs from the first case to the last. ``video`` is stored in ``ours``, and is the file at ``video_path``."""

    folder: Path
    ours: Product
    nginx: Reference
    express: Reference
    video: bytes
    video_path: Path


Rounds = Callable[[Bench], Generator[Figures, None, None]]
"""A case: what stands before its loop is set up once, and each ``yield`` is one round's figures by name."""


def in_turn(choices: dict[str, T]) -> Iterator[tuple[str, T]]:
    """In an order that changes, so that none is always the first or always the last."""
    names = list(choices)
    random.shuffle(names)
    for name in names:
        yield name, choices[name]


def latencies(port: int, request: wire.Request, count: int = 200, pause: float = 0.005) -> list[float]:
    """Seconds of ``count`` requests, one after the other with a pause between: what one user feels."""

    def paced() -> Iterator[wire.Request]:
        for _ in range(count):
            time.sleep(pause)
            yield request

    return [exchange.seconds for exchange in wire.drive(port, [paced()])]


def percentile(values: list[float], number: int) -> float:
    return quantiles(values, n=100, method="inclusive")[number - 1]


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of these processes so far; also of their children that have ended, so that none is lost."""
    times = [process.cpu_times() for process in processes if process.is_running()]
    return sum(time.user + time.system + time.children_user + time.children_system for time in times)


def memory(processes: list[psutil.Process]) -> int:
    """Bytes that only these processes hold. Pages mapped from files belong to the page cache and are not counted."""
    total = 0
    for process in processes:
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("Pss_Anon", "Pss_Shmem"):
                    total += int(value.split()[0]) * 1024
        except OSError:  # it has just ended
            continue
    return total


class Highest:
    """The highest value of a figure that is read every 50 ms."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.value = 0

    def __enter__(self) -> "Highest":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.value = max(self.value, self._read())
