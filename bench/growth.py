"""How a small request's time grows with what is stored: at 10^3 … 10^6 rows, and the exponent of it.

It fills the databases that the other cases then read: afterwards there are a million videos and a million logs.
"""

import math
import uuid

from cases import Bench, Figures, latencies, percentile

from logging_service.store.sqlite import RANKED as LOGS
from video_service.store import titles
from video_service.store.sqlite import RANKED as VIDEOS

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LEDGER = 100_000
"""Most objects in the ledger, and most people who own something."""


def fill(bench: Bench, first: int, last: int) -> None:
    """Every tenth thing is the first person's, the others' owners have ten each."""
    person = bench.people[0].id

    def owner_of(number: int) -> uuid.UUID:
        return person if number % 10 == 0 else uuid.UUID(int=number % LEDGER + 1)

    bench.house.fill_videos(owner_of, first, last)
    bench.house.fill_logs(owner_of, first, last)
    # They were written past the services, which count and index what they write.
    with bench.house.rows("video") as database:
        VIDEOS.count_anew(database)
        titles.index_anew(database)
    with bench.house.rows("logging") as database:
        LOGS.count_anew(database)
    if last <= LEDGER:
        bench.house.fill_ledger(owner_of, first, last)
        bench.house.fill_usage(owner_of, first, last)


def measure(bench: Bench) -> Figures:
    """Milliseconds at each size, and the slope of their logarithms: 0 is flat, 1 grows with the rows."""
    person = bench.people[0]
    points: dict[str, list[tuple[int, float]]] = {}
    stored = 0
    for size in SIZES:
        fill(bench, stored, size)
        stored = size
        for name, service, path in (
            ("videos, first page", "video", "/api/videos/stream?limit=16"),
            ("videos, last page", "video", f"/api/videos/stream?limit=16&start={size - 16}"),
            ("videos of one user", "video", f"/api/videos/user/{person.id}?limit=4"),
            # One film among all. What many titles have in common takes as long as there are such titles.
            ("search of videos", "video", f"/api/videos/stream?limit=16&q=film%20{size - 1}"),
            ("own logs, first page", "logging", f"/api/logs/user/{person.id}"),
            ("own logs, last page", "logging", f"/api/logs/user/{person.id}?start={size // 10 - 10}"),
            ("storage usage", "storage", "/api/storage/usage"),
            ("daily usage", "usage", "/api/usage/daily-usage"),
        ):
            port = bench.house.port(service)
            taken = latencies(port, bench.house.get(service, path, person), 120, 0)
            points.setdefault(name, []).append((size, percentile(taken[20:], 50) * 1000))
    figures: Figures = {}
    for name, measured in points.items():
        figures |= {f"{name}, ms at {size:,}": taken for size, taken in measured}
        figures[f"{name}, exponent"] = _slope([(math.log(size), math.log(taken)) for size, taken in measured])
    figures["largest exponent"] = max(value for name, value in figures.items() if name.endswith("exponent"))
    return figures


def _slope(points: list[tuple[float, float]]) -> float:
    """By least squares."""
    middle_x, middle_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    together = sum((x - middle_x) * (y - middle_y) for x, y in points)
    return float(together / sum((x - middle_x) ** 2 for x, _ in points))
