"""`make bench`: every case in turn, round after round, in one run on loopback; a table, a JSON file and a plot.

python bench                          all, about 15 minutes
python bench --only download --rounds 3
"""

import argparse
import json
import os
import platform
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import film
import growth
import yardsticks
from cases import FILM, Bench, Figures, Rounds
from e2e.people import Person
from e2e.processes import wait_for
from house import house
from table import CASES, NEED_ROWS, latency_plot, rendered
from wire import page_cache

OUT = Path(__file__).resolve().parent / "out"
LONGEST = 20 * 60  # seconds; then no further round is begun


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", metavar="TEXT", default="", help="the cases whose names contain this")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if lines := yardsticks.missing():
        sys.stderr.write("".join(f"bench: {line}\n" for line in lines))
        return 2
    yardsticks.install_express()
    chosen = {name: rounds for name, rounds in CASES.items() if options.only in name}
    if not chosen:
        sys.stderr.write(f"bench: no case is called {options.only!r}; there are:\n")
        sys.stderr.write("".join(f"  {name}\n" for name in CASES))
        return 2
    OUT.mkdir(exist_ok=True)
    with ExitStack() as stack:
        bench = prepare(stack)
        measured: dict[str, list[Figures]] = {}
        if not options.only or NEED_ROWS & chosen.keys():
            say("growth: up to a million rows")
            measured["growth"] = [growth.measure(bench)]
        measured |= measure(bench, chosen, options.rounds)
        plot = latency_plot(bench, OUT / "latency.png") if not options.only else None
    machine = f"{os.cpu_count()} cores, {memory_of_machine():.0f} GB, Python {platform.python_version()}"
    raw = {"date": datetime.now(UTC).date().isoformat(), "machine": machine, "cases": measured, "latency": plot}
    (OUT / "figures.json").write_text(json.dumps(raw, indent=1))
    print(f"\n{raw['date']}, {machine}, medians of the rounds:\n")
    print("\n".join(rendered(measured)))
    print(f"\nThe raw figures are in {OUT / 'figures.json'}")
    return 0


def prepare(stack: ExitStack) -> Bench:
    """Services, yardsticks and a film that has been uploaded."""
    say("the film")
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=OUT)))
    content = film.make(FILM)
    path = folder / "film.mp4"
    path.write_bytes(content)
    say("our five services, nginx, Express")
    ours = stack.enter_context(house(folder / "services"))
    people = [ours.person() for _ in range(9)]
    media = ours.put_film(people[0], content)
    nginx = stack.enter_context(yardsticks.nginx(folder / "nginx", path))
    express = stack.enter_context(yardsticks.express(folder / "express", ours.services.secret, constants(people[0])))
    page_cache(path)
    return Bench(folder, ours, nginx, express, content, path, people, media)


def constants(person: Person) -> dict[str, object]:
    """What Express answers: as much as ours do, of the same form."""
    (video,) = person.get("video", "/api/videos/stream").json()["videos"]
    wait_for(lambda: person.get("logging", f"/api/logs/user/{person.id}").json()["logs"])
    log = person.get("logging", f"/api/logs/user/{person.id}").json()["logs"][0]
    return {
        "/videos": {"videos": [video] * 16, "total": 1_000_000},
        "/logs": {"logs": [log] * 100, "total": 100_000},
        "/daily-usage": person.get("usage", "/api/usage/daily-usage").json(),
        "/storage-usage": person.get("storage", "/api/storage/usage").json(),
    }


def measure(bench: Bench, chosen: dict[str, Rounds], rounds: int) -> dict[str, list[Figures]]:
    """Figures of every round of every case. The cases take turns, so that a slow minute is nobody's alone."""
    began = time.monotonic()
    measured: dict[str, list[Figures]] = {name: [] for name in chosen}
    running = {name: case(bench) for name, case in chosen.items()}
    try:
        for number in range(rounds):
            for name in chosen:
                if number and time.monotonic() - began > LONGEST:
                    say("the time is up: fewer rounds than were asked for")
                    return measured
                say(f"round {number + 1} of {rounds}: {name}")
                measured[name].append(next(running[name]))
    finally:
        for generator in running.values():
            generator.close()
    return measured


def memory_of_machine() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def say(text: str) -> None:
    print(f"bench: {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
