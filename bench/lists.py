"""Cases of lists and of the usage figures at full load, beside Express."""

import time
from collections.abc import Callable, Generator
from statistics import harmonic_mean
from typing import Any
from urllib.parse import urlencode

from e2e.processes import wait_for
from measures import Bench, Figures, Rounds, in_turn
from product import Product
from wire import Wrong
from wrk import wrk

Query = dict[str, str | int]


def usage(service: str, constant: str, path: str) -> Rounds:
    """Requests a second over 32 connections, beside Express that verifies the token and answers a constant."""

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        asked = {
            "ours": bench.ours.services[service].url + path,
            "constant": f"http://127.0.0.1:{bench.express.port}/{constant}",
        }
        while True:
            yield _flows(bench, asked)

    return rounds


def pages(service: str, constant: str, path: Callable[[Product], str], query: Query, starts: list[int]) -> Rounds:
    """The pages that begin at ``starts``, as requests a second over 32 connections. Beside ours: Express that does the
    same work over the same rows, and Express that answers a constant.

    Each server's figure is that of a client that asks for each of the pages as often: a slow page counts for its time.
    """

    def rounds(bench: Bench) -> Generator[Figures, None, None]:
        bases = {"ours": bench.ours.services[service].url, "express": f"http://127.0.0.1:{bench.express.port}"}
        where = path(bench.ours)
        asked = {"constant": f"http://127.0.0.1:{bench.express.port}/{constant}"}
        _wait_until_quiet(bench.ours, bases["ours"] + where)
        urls = {name: [page_url(bench.ours, base + where, query, at) for at in starts] for name, base in bases.items()}
        wait_for(lambda: all(_is_same(bench.ours, *same) for same in zip(*urls.values(), strict=True)))
        for name, own in urls.items():
            asked |= {f"{name} {number}": url for number, url in enumerate(own)}
        while True:
            figures = _flows(bench, asked)
            for name, own in urls.items():
                each = [f"{name} {number}" for number in range(len(own))]
                figures[f"{name} requests/s"] = harmonic_mean([figures[f"{one} requests/s"] for one in each])
                figures[f"{name} p99 ms"] = max(figures[f"{one} p99 ms"] for one in each)
            yield figures

    return rounds


def page_url(product: Product, url: str, query: Query, start: int) -> str:
    """The URL of the page of a list that begins at ``start``: by the cursor (``next``) of the page before where the
    server gives one, by ``start`` otherwise.
    """
    page_length = int(query.get("limit", 100))
    if start >= page_length:
        before = _get(product, f"{url}?{urlencode(query | {'start': start - page_length})}")
        if before.get("next"):
            return f"{url}?{urlencode(query | {'after': before['next']})}"
    return f"{url}?{urlencode(query | {'start': start})}"


def _get(product: Product, url: str) -> dict[str, Any]:
    answer = product.services.client.get(url, headers=product.people[0].headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _wait_until_quiet(product: Product, url: str) -> None:
    """Until the list does not grow for a second: the services deliver log entries of the case before for a while."""
    total = -1
    for _ in range(60):
        if (now := _get(product, url)["total"]) == total:
            return
        total = now
        time.sleep(1)
    raise Wrong(f"{url} grows without end")


def _is_same(product: Product, *urls: str) -> bool:
    first, *others = (_content(product, url) for url in urls)
    return all(other == first for other in others)


def _content(product: Product, url: str) -> dict[str, Any]:
    """A page without its cursor, which each server writes in its own way."""
    return {name: value for name, value in _get(product, url).items() if name != "next"}


def _flows(bench: Bench, asked: dict[str, str]) -> Figures:
    figures: Figures = {}
    for name, url in in_turn(asked):
        # Long enough that the first request of each connection is not the 99th percentile.
        flow = wrk(url, bench.ours.people[0].headers, connections=32, seconds=3)
        figures[f"{name} requests/s"], figures[f"{name} p99 ms"] = flow.rate, flow.p99 * 1000
    return figures
