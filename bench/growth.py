"""How the time of a small request grows with what is stored: at 10^3 to 10^6 rows, and the exponent of it.

It fills the databases that the other cases then read: afterwards there are a million videos and a million logs.
"""

import math
import uuid

import rows
from lists import Query, page_url
from measures import Bench, Figures, latencies, percentile
from product import Product

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LEDGER = 100_000
"""Most objects in the ledger of storage-service, and most users that own something."""


def fill(product: Product, first: int, last: int) -> None:
    """Every tenth row is the first user's; the other owners have ten each."""
    person, services = product.people[0].id, product.services

    def owner_of(number: int) -> uuid.UUID:
        return person if number % 10 == 0 else uuid.UUID(int=number % LEDGER + 1)

    rows.fill_videos(services, owner_of, first, last)
    rows.fill_logs(services, owner_of, first, last)
    rows.count_and_index(services)
    if last <= LEDGER:
        rows.fill_ledger(services, owner_of, first, last)
        rows.fill_usage(services, owner_of, first, last)


def measure(bench: Bench) -> Figures:
    """Milliseconds at each size, and the slope of their logarithms: 0 is flat, 1 grows with the rows."""
    product = bench.ours
    person = product.people[0]
    points: dict[str, list[tuple[int, float]]] = {}
    stored = 0
    for size in SIZES:
        fill(product, stored, size)
        stored = size
        logs, feed = f"/api/logs/user/{person.id}", "/api/videos/stream"
        for name, service, path in (
            ("videos, first page", "video", f"{feed}?limit=16"),
            ("videos, last page", "video", _page(product, "video", feed, {"limit": 16}, size - 16)),
            ("videos of one user", "video", f"/api/videos/user/{person.id}?limit=4"),
            # One video among all. A part that many titles have takes longer, as long as there are such titles.
            ("search of videos", "video", f"{feed}?limit=16&q=video%20{size - 1}"),
            ("own logs, first page", "logging", logs),
            ("own logs, last page", "logging", _page(product, "logging", logs, {}, size // 10 - 10)),
            ("storage usage", "storage", "/api/storage/usage"),
            ("daily usage", "usage", "/api/usage/daily-usage"),
        ):
            taken = latencies(product.port(service), product.get(service, path, person), 120, 0)
            points.setdefault(name, []).append((size, percentile(taken[20:], 50) * 1000))
    figures: Figures = {}
    for name, measured in points.items():
        figures |= {f"{name}, ms at {size:,}": taken for size, taken in measured}
        figures[f"{name}, exponent"] = _slope([(math.log(size), math.log(taken)) for size, taken in measured])
    figures["largest exponent"] = max(value for name, value in figures.items() if name.endswith("exponent"))
    return figures


def _page(product: Product, service: str, path: str, query: Query, start: int) -> str:
    url = product.services[service].url
    return page_url(product, url + path, query, start).removeprefix(url)


def _slope(points: list[tuple[float, float]]) -> float:
    """By least squares."""
    middle_x, middle_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    together = sum((x - middle_x) * (y - middle_y) for x, y in points)
    return float(together / sum((x - middle_x) ** 2 for x, _ in points))
