"""`make bench`: every case in turn, round after round, in one run on loopback; a table, a JSON file and a plot.

python bench                                 everything, about 15 minutes
python bench --only download --rounds 3      some cases
python bench --beside ../before              this checkout beside another one, before and after
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

import before_after
import growth
import references
import sample
from e2e.people import Person
from measures import VIDEO_BYTES, Bench, Figures, Rounds
from product import running
from table import CASES, NEED_ROWS, latency_plot, rendered
from wire import page_cache

OUT = Path(__file__).resolve().parent / "out"
LONGEST = 20 * 60  # seconds; no further round is begun after them


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", metavar="TEXT", default="", help="the cases whose names contain this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", metavar="CHECKOUT", type=Path, help="another checkout, with its own .venv: before")
    options = parser.parse_args()
    beside: Path | None = options.beside
    lines = references.missing() + (before_after.missing(beside) if beside else [])
    if lines:
        sys.stderr.write("".join(f"bench: {line}\n" for line in lines))
        return 2
    names = before_after.names() if beside else list(CASES)
    chosen = [name for name in names if options.only in name]
    if not chosen:
        sys.stderr.write(f"bench: no case is called {options.only!r}; there are:\n")
        sys.stderr.write("".join(f"  {name}\n" for name in names))
        return 2
    OUT.mkdir(exist_ok=True)
    if beside:
        return compare(beside, chosen, options.rounds)
    return run(chosen, options.rounds, whole=not options.only)


def run(chosen: list[str], rounds: int, *, whole: bool) -> int:
    references.install_express()
    with ExitStack() as stack:
        bench = prepare(stack)
        measured: dict[str, list[Figures]] = {}
        if whole or NEED_ROWS & set(chosen):
            say("growth: up to a million rows")
            measured["growth"] = [growth.measure(bench)]
        measured |= measure(bench, {name: CASES[name] for name in chosen}, rounds)
        plot = latency_plot(bench, OUT / "latency.png") if whole else None
    report("figures.json", {"cases": measured, "latency": plot}, rendered(measured))
    return 0


def compare(other: Path, chosen: list[str], rounds: int) -> int:
    with TemporaryDirectory(prefix="bench-", dir=OUT) as folder:
        say("the video")
        video = sample.make(VIDEO_BYTES)
        measured = before_after.measure(other, Path(folder), video, chosen, rounds, say, LONGEST)
    report("before-after.json", {"cases": measured}, before_after.rendered(measured))
    return 0


def report(name: str, figures: dict[str, object], table: list[str]) -> None:
    machine = f"{os.cpu_count()} cores, {memory_of_machine():.0f} GB, Python {platform.python_version()}"
    date = datetime.now(UTC).date().isoformat()
    (OUT / name).write_text(json.dumps({"date": date, "machine": machine} | figures, indent=1))
    print(f"\n{date}, {machine}, medians of the rounds:\n")
    print("\n".join(table))
    print(f"\nThe raw figures are in {OUT / name}")


def prepare(stack: ExitStack) -> Bench:
    """The services, the references and a video that has been uploaded."""
    say("the video")
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=OUT)))
    content = sample.make(VIDEO_BYTES)
    path = folder / "video.mp4"
    path.write_bytes(content)
    say("our five services, nginx, Express")
    ours = stack.enter_context(running(folder / "services"))
    ours.enough_people(9)
    ours.put_video(ours.people[0], content)
    nginx = stack.enter_context(references.nginx(folder / "nginx", path))
    answers = constants(ours.people[0])
    express = stack.enter_context(references.express(folder / "express", ours.services, answers))
    page_cache(path)
    return Bench(folder, ours, nginx, express, content, path)


def constants(person: Person) -> dict[str, object]:
    """What Express answers without a database: as much as ours, of the same form."""
    videos = person.get("video", "/api/videos/stream").json()
    logs = person.get("logging", f"/api/logs/user/{person.id}").json()
    return {
        "/videos": videos | {"videos": videos["videos"][:1] * 16, "total": 1_000_000},
        "/logs": logs | {"logs": logs["logs"][:1] * 100, "total": 100_000},
        "/daily-usage": person.get("usage", "/api/usage/daily-usage").json(),
        "/storage-usage": person.get("storage", "/api/storage/usage").json(),
    }


def measure(bench: Bench, chosen: dict[str, Rounds], rounds: int) -> dict[str, list[Figures]]:
    """Figures of every round of every case. The cases take turns, so that a slow minute touches all of them."""
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
