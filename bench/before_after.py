"""Two checkouts in one run: the commit before, started from its own checkout and environment, and this one.

Both run the same cases in turn, on the same machine and in the same minutes. They hold the same few videos, uploaded
through HTTP. The other checkout is used only by `python -m <service>`, its Supabase migrations, HTTP and its processes,
so it may be of any commit with the same settings and routes.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import engines
from measures import Figures, in_turn
from product import Product, python_of, running
from small import beside_transfers, full_load, login_load
from transfers import fetch_videos, memory_rise, send_videos

HERE = Path(__file__).resolve().parent.parent
Case = Callable[[Product, bytes], Figures]
Measured = dict[str, dict[str, list[Figures]]]
"""Rounds by case, then by ``before`` and ``after``."""


def _full_load(service: str, target: str) -> Case:
    return lambda product, video: full_load(product, service, target)


CASES: dict[str, Case] = {
    "upload 1": partial(send_videos, at_once=1, each=4),
    "upload 8": partial(send_videos, at_once=8, each=1),
    "download 1": partial(fetch_videos, connections=1, each=8),
    "download 16": partial(fetch_videos, connections=16, each=2),
    "feed": _full_load("video", engines.FEED),
    "daily usage": _full_load("usage", "/api/usage/daily-usage"),
    "storage usage": _full_load("storage", "/api/storage/usage"),
    "login": lambda product, video: login_load(product),
    "beside": beside_transfers,
    "memory 8": partial(memory_rise, at_once=8),
    "memory 32": partial(memory_rise, at_once=32),
}
BY_HTTP: dict[str, Case] = {
    "upload 1 by HTTP": CASES["upload 1"],
    "upload 8 by HTTP": CASES["upload 8"],
}
"""The same where the services cannot reach each other's files, as in containers."""
CLOUD = ("cloud upload", "cloud feed")
"""The same over PostgreSQL and a storage emulator, by our processor time; see engines.py."""

ROWS: list[tuple[str, str, str]] = []
"""Title, case, figure."""
for _case, _title in (
    ("upload 1", "upload of 50 MiB, 1 at once"),
    ("upload 8", "upload of 50 MiB, 8 at once"),
    ("upload 1 by HTTP", "upload of 50 MiB to storage-service by HTTP, 1 at once"),
    ("upload 8 by HTTP", "upload of 50 MiB to storage-service by HTTP, 8 at once"),
    ("download 1", "whole video of 50 MiB, 1 connection"),
    ("download 16", "whole video of 50 MiB, 16 connections"),
):
    ROWS += [(f"{_title}: throughput", _case, "MB/s"), (f"{_title}: processor time", _case, "CPU s/GB")]
for _case, _title in (
    ("feed", "a page of 16 videos"),
    ("daily usage", "daily usage"),
    ("storage usage", "storage usage"),
):
    ROWS += [(f"{_title}: rate", _case, "requests/s"), (f"{_title}: processor time", _case, "CPU µs")]
ROWS += [
    ("login: rate", "login", "logins/s"),
    ("login: processor time", "login", "CPU ms"),
    ("p99 of small requests beside 16 downloads and 8 uploads", "beside", "p99 ms beside"),
    ("the same, above rest", "beside", "ms more"),
    ("memory of all five with 8 uploads, above rest", "memory 8", "MB more"),
    ("memory of all five with 32 uploads, above rest", "memory 32", "MB more"),
    ("upload of 50 MiB over PostgreSQL and Cloud Storage: processor time", "cloud upload", "CPU s/GB"),
    ("a page of 16 videos over PostgreSQL: processor time", "cloud feed", "CPU µs"),
]


def names() -> list[str]:
    return [*CASES, *BY_HTTP, *CLOUD]


def missing(other: Path) -> list[str]:
    """What the other checkout lacks, with the command that makes it."""
    if not (other / "Makefile").is_file():
        return [f"{other} is no checkout of this repository"]
    if not python_of(other).exists():
        return [f"{other} has no environment: run `make .venv/.synced` there"]
    return []


def measure(
    other: Path, folder: Path, video: bytes, chosen: list[str], rounds: int, say: Callable[[str], None], longest: float
) -> Measured:
    began = time.monotonic()
    measured: Measured = {name: {"before": [], "after": []} for name in chosen}
    with ExitStack() as stack:
        cases: dict[str, tuple[dict[str, Product], Case]] = {}
        checkouts = {"before": other, "after": HERE}
        for kind, offer in ((CASES, "true"), (BY_HTTP, "false")):
            if not any(name in kind for name in chosen):
                continue
            say(f"the five services of both checkouts, OFFER_UPLOAD_FILES={offer}")
            products: dict[str, Product] = {}
            for name, path in checkouts.items():
                own = folder / f"{name}-{offer}"
                products[name] = stack.enter_context(running(own, checkout=path, OFFER_UPLOAD_FILES=offer))
                _fill(products[name], video)
            cases |= {name: (products, kind[name]) for name in chosen if name in kind}
        if any(name in CLOUD for name in chosen):
            say("and again over PostgreSQL and a storage emulator")
            cases |= _cloud_cases(stack, checkouts, folder)
        for number in range(rounds):
            for name in chosen:
                if number and time.monotonic() - began > longest:
                    say("the time is up: fewer rounds than were asked for")
                    return measured
                say(f"round {number + 1} of {rounds}: {name}")
                where, case = cases[name]
                for which, product in in_turn(where):
                    measured[name][which].append(case(product, video))
    return measured


def _fill(product: Product, video: bytes) -> None:
    engines.fill(product)
    product.put_video(product.people[0], video)
    product.enough_people(32)


def _cloud_cases(
    stack: ExitStack, checkouts: dict[str, Path], folder: Path
) -> dict[str, tuple[dict[str, Product], Case]]:
    products: dict[str, Product] = {}
    forget: dict[int, engines.Forget] = {}
    for name, path in checkouts.items():
        engine, forgotten = stack.enter_context(engines.cloud(path / "supabase" / "migrations"))
        product = stack.enter_context(running(folder / f"cloud-{name}", checkout=path, engine=engine))
        engines.fill(product)
        products[name], forget[id(product)] = product, forgotten

    def upload(product: Product, video: bytes) -> Figures:
        return engines.send_to_cloud(product, video, forget[id(product)])

    def feed(product: Product, video: bytes) -> Figures:
        return full_load(product, "video", engines.FEED, connections=engines.CONNECTIONS)

    return {"cloud upload": (products, upload), "cloud feed": (products, feed)}


def rendered(measured: Measured) -> list[str]:
    """The table in Markdown: medians over the rounds, their ratio, and the ratio's range over the single rounds."""
    lines = ["| what | before | after | after : before | single rounds |", "|---|--:|--:|--:|--:|"]
    for title, case, figure in ROWS:
        if case not in measured:
            continue
        before, after = ([figures[figure] for figures in measured[case][which]] for which in ("before", "after"))
        unit = figure.removeprefix("CPU ").removeprefix("p99 ").removesuffix(" more").removesuffix(" beside")
        line = f"| {title} | {_short(median(before))} {unit} | {_short(median(after))} {unit} |"
        ratios = sorted(new / old for old, new in zip(before, after, strict=True) if old > 0)
        if median(before) > 0 and ratios:
            ratio = median(after) / median(before)
            lines.append(f"{line} {_short(ratio)} | {_short(ratios[0])} – {_short(ratios[-1])} |")
        else:
            lines.append(f"{line} | |")
    return lines


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
