"""What a run must reach, the table of what it reached, and the plot of latency against load."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import engines
import lists
import logs
import small
import transfers
from growth import SIZES
from inspection import inspection
from measures import Bench, Figures, Rounds
from product import Product
from wrk import wrk

MOST = SIZES[-1]


def _own_logs(product: Product) -> str:
    return f"/api/logs/user/{product.people[0].id}"


FEED, DAILY, STORAGE = "/api/videos/stream", "/api/usage/daily-usage", "/api/storage/usage"
CASES: dict[str, Rounds] = {
    "download 1": transfers.downloads(1, 8),
    "download 16": transfers.downloads(16, 2),
    "ranges 1": transfers.ranges(1, 400),
    "ranges 16": transfers.ranges(16, 50),
    "edge 1": transfers.downloads(1, 8, behind_edge=True),
    "edge 16": transfers.downloads(16, 2, behind_edge=True),
    "upload 1": transfers.uploads(1, each=4),
    "upload 8": transfers.uploads(8, each=1),
    "memory 8": transfers.upload_memory(8),
    "memory 32": transfers.upload_memory(32),
    "beside": small.beside,
    "verify": small.verifying,
    # The first page, one in the middle and one at the end.
    "videos": lists.pages("video", "videos", lambda product: FEED, {"limit": 16}, [0, MOST // 2, MOST - 100]),
    "own logs": lists.pages("logging", "logs", _own_logs, {}, [0, MOST // 20, MOST // 10 - 100]),
    "daily usage": lists.usage("usage", "daily-usage", DAILY),
    "storage usage": lists.usage("storage", "storage-usage", STORAGE),
    "engines": engines.both,
    "logging": logs.logging_costs,
    "intake": logs.log_intake,
    "logins": small.logins,
    "inspection": inspection,
}
NEED_ROWS = {"videos", "daily usage", "storage usage", "own logs"}


@dataclass(frozen=True)
class Row:
    """One line: a figure of a case, divided by another where there is one, and what it should reach, if anything."""

    title: str
    case: str
    ours: str
    reach: float | None
    theirs: str | None = None
    at_most: bool = False
    unit: str = ""

    def value(self, figures: Figures) -> float:
        return figures[self.ours] / figures[self.theirs] if self.theirs else figures[self.ours]

    def reached(self, value: float) -> tuple[str, str]:
        """What it should reach, and whether it does; both are empty where nothing is asked."""
        if self.reach is None:
            return "", ""
        is_reached = value <= self.reach if self.at_most else value >= self.reach
        reach = f"{'≤' if self.at_most else '≥'} {self.reach:g} {self.unit}".strip()
        return reach, "✓" if is_reached else "not reached"


def _moving(case: str, what: str, connections: int) -> list[Row]:
    plural = "s" if connections > 1 else ""
    reach = 0.9 if case.startswith("edge") else 0.7
    return [Row(f"{what}, {connections} connection{plural} : nginx", case, "ours MB/s", reach, "nginx MB/s")]


def _uploading(at_once: int) -> list[Row]:
    case, title = f"upload {at_once}", f"upload of 50 MiB, {at_once} at once"
    return [
        Row(f"{title} : nginx PUT", case, "ours MB/s", 0.4, "nginx PUT MB/s"),
        Row(f"{title} : two hops of nginx, nothing parsed or synced", case, "ours MB/s", None, "nginx twice MB/s"),
        Row(f"{title} : Express, multer in memory", case, "ours MB/s", 1.5, "multer memory MB/s"),
        Row(f"{title} : Express, multer on disk", case, "ours MB/s", 1.5, "multer disk MB/s"),
    ]


def _listing(title: str, case: str) -> list[Row]:
    same = Row(f"{title} : Express with better-sqlite3", case, "ours requests/s", None, "express requests/s")
    return [same, _constant(title, case)]


def _constant(title: str, case: str) -> Row:
    return Row(f"{title} : Express, a constant", case, "ours requests/s", 0.5, "constant requests/s")


def _over_engines(title: str, figure: str) -> Row:
    where = "PostgreSQL and Cloud Storage" if "upload" in figure else "PostgreSQL"
    return Row(f"{title} over {where} : embedded", "engines", f"cloud {figure}", None, f"embedded {figure}")


ROWS = [
    *_moving("download 1", "whole video of 50 MiB", 1),
    *_moving("download 16", "whole video of 50 MiB", 16),
    Row("its processor time, 1 connection", "download 1", "ours CPU s/GB", 0.4, None, True, "s/GB"),
    Row("its processor time, 16 connections", "download 16", "ours CPU s/GB", 0.4, None, True, "s/GB"),
    *_moving("ranges 1", "ranges of 1 MiB", 1),
    *_moving("ranges 16", "ranges of 1 MiB", 16),
    *_moving("edge 1", "whole video through the edge", 1),
    *_moving("edge 16", "whole video through the edge", 16),
    *_uploading(1),
    *_uploading(8),
    Row("memory of all five with 8 uploads, above rest", "memory 8", "MB more", 32, None, True, "MB"),
    Row("memory of all five with 32 uploads, above rest", "memory 32", "MB more", 32, None, True, "MB"),
    Row(
        "p99 of small requests beside 16 downloads and 8 uploads, above rest", "beside", "ms more", 10, None, True, "ms"
    ),
    Row("a token verified : Express", "verify", "ours requests/s", 1.1, "express requests/s"),
    *_listing("videos, any page of a million", "videos"),
    *_listing("own logs, any page of 100,000", "own logs"),
    _constant("daily usage", "daily usage"),
    _constant("storage usage", "storage usage"),
    _over_engines("upload of 50 MiB, our processor time", "upload CPU s/GB"),
    _over_engines("a page of 16 videos, our processor time", "feed CPU µs"),
    _over_engines("a page of 16 videos", "feed requests/s"),
    Row("logging, receiver up, slow or down: p50 more", "logging", "p50 ms more", 0.2, None, True, "ms"),
    Row("logging, receiver up, slow or down: p99 more", "logging", "p99 ms more", 2, None, True, "ms"),
    Row("log intake, beside a reader", "intake", "rows/s", 50_000, None, False, "rows/s"),
    Row("logins : argon2id on all cores", "logins", "logins/s", 0.8, "argon2id/s"),
    Row("p99 of others during logins, more", "logins", "others' ms more", 5, None, True, "ms"),
    Row("inspection and thumbnail of 50 MiB", "inspection", "ms", 60, None, True, "ms"),
    Row("growth from 10^3 to 10^6 rows: largest exponent", "growth", "largest exponent", 0.1, None, True),
]


def rendered(measured: dict[str, list[Figures]]) -> list[str]:
    """The table in Markdown: medians over the rounds, with the lowest and the highest."""
    found = ["| what | ours | reference | median | spread | reach | |", "|---|--:|--:|--:|--:|--:|---|"]
    for row in ROWS:
        rounds = measured.get(row.case)
        if not rounds:
            continue
        values = sorted(row.value(figures) for figures in rounds)
        middle = median(values)
        ours = _short(median(figures[row.ours] for figures in rounds)) + _unit(row.ours)
        theirs = ""
        if row.theirs:
            theirs = _short(median(figures[row.theirs] for figures in rounds)) + _unit(row.theirs)
        value, spread = f"{_short(middle)}", f"{_short(values[0])} – {_short(values[-1])}"
        reach, reached = row.reached(middle)
        found.append(
            f"| {row.title} | {ours if row.theirs else ''} | {theirs} | {value}{' ' + row.unit if row.unit else ''} |"
            f" {spread} | {reach} | {reached} |"
        )
    return found


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _unit(figure: str) -> str:
    for unit in ("MB/s", "requests/s", "logins/s", "argon2id/s", "s/GB", "µs"):
        if figure.endswith(unit):
            return " " + unit.replace("argon2id", "hashes")
    return ""


def latency_plot(bench: Bench, path: Path) -> dict[str, list[dict[str, float]]]:
    """p50 and p99 of the first page of videos, by the requests a second that were served: ours, the peer's and Express
    with a constant.
    """
    import matplotlib  # noqa: PLC0415  slow to import, and for the plot alone

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    person, express = bench.ours.people[0], f"http://127.0.0.1:{bench.express.port}"
    urls = {
        "video-service, a page of a million videos": f"{bench.ours.services['video'].url}{FEED}?limit=16",
        "Express with better-sqlite3, the same": f"{express}{FEED}?limit=16",
        "Express, a constant": f"{express}/videos",
    }
    points: dict[str, list[dict[str, float]]] = {}
    for name, url in urls.items():
        for connections in (1, 2, 4, 8, 16, 32, 64, 128):
            flow = wrk(url, person.headers, connections=connections)
            points.setdefault(name, []).append(
                {
                    "connections": connections,
                    "requests/s": flow.rate,
                    "p50 ms": flow.p50 * 1e3,
                    "p99 ms": flow.p99 * 1e3,
                }
            )
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for (name, measured), colour in zip(points.items(), ("tab:blue", "tab:orange", "tab:grey"), strict=True):
        rates = [point["requests/s"] for point in measured]
        for percentile, style in (("p50 ms", "-o"), ("p99 ms", "--s")):
            axes.plot(
                rates, [point[percentile] for point in measured], style, color=colour, label=f"{name}, {percentile[:3]}"
            )
    axes.set_xlabel("requests a second")
    axes.set_ylabel("milliseconds")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return points
