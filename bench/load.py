"""`make load`: many people use the five services for a while, and at the end every figure must agree to the byte.

    python bench/load.py --users 200 --minutes 10

Against `make run` by default; USER_SERVICE_URL … LOGGING_SERVICE_URL name any other five. Each person registers, signs
in, then browses, watches ranges, uploads, deletes and looks at his figures, with a pause between. What he was told is
kept in a ledger of the client's own, and afterwards the catalogue, both usages, the log and the bytes themselves are
compared with it. A refusal that the contract states (a full quota, a busy service with Retry-After) is counted, and
is no error.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import aiohttp
import psutil
import videos
from wire import digest, form

from shared.settings import MIB

PORTS = {"user": 3001, "video": 3002, "storage": 3003, "usage": 3004, "logging": 3005}
SIZES = [60_000, 200_000, 700_000, 2_000_000]
REFUSALS = {409, 413, 429, 503}
WATCH = "URL of a video"
SETTLE_SECONDS = 60.0  # what is owed between services is delivered every few seconds


@dataclass
class Report:
    """What was answered, by route."""

    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def requests(self) -> int:
        return sum(map(len, self.taken.values()))


@dataclass
class Person:
    """``kept`` are the sizes and digests of the videos that are there, ``uploaded`` the bytes of all that ever were."""

    email: str
    password: str
    token: str = ""
    id: str = ""
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    uploaded: int = 0
    unsure: bool = False  # of a change he was never told the outcome


class Refused(Exception):
    pass


class Failed(Exception):
    pass


class Client:
    def __init__(self, session: aiohttp.ClientSession, urls: dict[str, str], report: Report) -> None:
        self._session = session
        self._urls = urls
        self._report = report

    async def call(self, route: str, method: str, service: str, path: str, person: Person | None, **more: Any) -> Any:
        """The answer as JSON; raises ``Refused`` or ``Failed``."""
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {person.token}"} if person else {})
        async with (
            self._timed(route),
            self._session.request(method, self._urls[service] + path, headers=headers, **more) as answer,
        ):
            body = await answer.json(content_type=None)
            if answer.status in REFUSALS:
                raise Refused(f"{answer.status} {body.get('code')}")
            if answer.status == 404 and route == WATCH:
                raise Refused("404, it was deleted meanwhile")
            if answer.status >= 400:
                raise Failed(f"{answer.status} {body.get('message')}")
            return body

    async def fetch(self, route: str, url: str, span: tuple[int, int] | None = None) -> bytes:
        headers = {"Range": f"bytes={span[0]}-{span[1]}"} if span else {}
        async with self._timed(route), self._session.get(url, headers=headers) as answer:
            if answer.status in REFUSALS:
                raise Refused(str(answer.status))
            if answer.status not in (200, 206, 404):
                raise Failed(f"{answer.status}")
            body = await answer.read()
            self._report.moved += len(body)
            return body if answer.status != 404 else b""

    @asynccontextmanager
    async def _timed(self, route: str) -> AsyncIterator[None]:
        began = time.monotonic()
        try:
            yield
        except Refused as refusal:
            self._report.refused[f"{route}: {refusal}"] += 1
            raise
        except Failed as failure:
            self._report.errors[f"{route}: {failure}"] += 1
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._report.errors[f"{route}: {type(error).__name__}"] += 1
            raise Failed(str(error)) from error
        finally:
            self._report.taken[route].append(time.monotonic() - began)


async def arrive(client: Client, number: int) -> Person:
    person = Person(f"load-{number}-{secrets.token_hex(6)}@example.test", f"load {secrets.token_hex(8)}")
    account = {"email": person.email, "password": person.password}
    while True:
        try:
            await client.call(
                "register", "POST", "user", "/api/users/register", None, json=account | {"username": f"Load {number}"}
            )
            break
        except Refused:
            await asyncio.sleep(1)
    await login(client, person)
    return person


async def login(client: Client, person: Person) -> None:
    answer = await client.call(
        "login", "POST", "user", "/api/users/login", None, json={"email": person.email, "password": person.password}
    )
    person.token = answer["token"]
    payload = person.token.split(".")[1]
    person.id = json.loads(base64.b64decode(payload + "=" * (-len(payload) % 4)))["id"]


async def browse(client: Client, person: Person) -> None:
    page = await client.call("list of videos", "GET", "video", "/api/videos/stream?start=0", person)
    if not page["videos"]:
        return
    video = random.choice(page["videos"])
    size = round(video["size_mb"] * MIB)
    url = (await client.call(WATCH, "GET", "video", f"/api/videos/stream/{video['filename']}", person))["url"]
    for _ in range(random.randint(1, 3)):
        start = random.randrange(size)
        await client.fetch("range of a video", url, (start, min(start + 262_143, size - 1)))
    await client.fetch("thumbnail", url.replace(".mp4", ".jpg"))


async def upload(client: Client, person: Person) -> None:
    film = videos.exactly(random.choice(SIZES) + random.randrange(50_000))
    body, content_type = form(film, f"Film of {person.email}")
    try:
        answer = await client.call(
            "upload", "POST", "video", "/api/videos/upload", person, data=body, headers={"Content-Type": content_type}
        )
    except Failed:
        person.unsure = True
        raise
    person.kept[answer["file"]["filename"]] = (len(film), digest(film))
    person.uploaded += len(film)


async def delete(client: Client, person: Person) -> None:
    if not person.kept:
        return
    filename = random.choice(list(person.kept))
    try:
        await client.call("delete", "DELETE", "video", f"/api/videos/delete/{filename}", person)
    except Failed:
        person.unsure = True
        raise
    del person.kept[filename]


async def look(client: Client, person: Person) -> None:
    await client.call("own videos", "GET", "video", f"/api/videos/user/{person.id}", person)
    await client.call("storage usage", "GET", "storage", "/api/storage/usage", person)
    await client.call("daily usage", "GET", "usage", "/api/usage/daily-usage", person)
    await client.call("own logs", "GET", "logging", f"/api/logs/user/{person.id}", person)


ACTIONS = [(browse, 50), (look, 20), (upload, 15), (delete, 10), (login, 5)]


async def live(client: Client, person: Person, until: float, pause: float) -> None:
    names, weights = zip(*ACTIONS, strict=True)
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(random.expovariate(1 / pause), left))
        (action,) = random.choices(names, weights)
        try:
            await action(client, person)
        except (Refused, Failed):
            continue


async def settle(client: Client, person: Person) -> list[str]:
    """What does not agree with what this person was told; waits a while for what services still owe each other."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while wrong := await differences(client, person):
        if time.monotonic() > deadline:
            return wrong
        await asyncio.sleep(1)
    return []


async def differences(client: Client, person: Person) -> list[str]:
    listed: dict[str, Any] = {}
    total = 1
    while len(listed) < total:
        page = await client.call(
            "own videos", "GET", "video", f"/api/videos/user/{person.id}?limit=100&start={len(listed)}", person
        )
        total = page["total"]
        listed |= {video["filename"]: video for video in page["videos"]}
        if not page["videos"]:
            break
    wrong = []
    sizes = {name: round(video["size_mb"] * MIB) for name, video in listed.items()}
    if not person.unsure and sizes != {name: size for name, (size, _) in person.kept.items()}:
        wrong.append(f"{len(sizes)} videos are listed, {len(person.kept)} were uploaded and not deleted")
    storage = await client.call("storage usage", "GET", "storage", "/api/storage/usage", person)
    if storage["totalSizeMb"] * MIB != sum(sizes.values()):
        wrong.append(
            f"the storage figure is {storage['totalSizeMb'] * MIB:.0f} bytes, the videos {sum(sizes.values())}"
        )
    usage = await client.call("daily usage", "GET", "usage", "/api/usage/daily-usage", person)
    if not person.unsure and usage["totalUsageMb"] * MIB != person.uploaded:
        wrong.append(f"the day's figure is {usage['totalUsageMb'] * MIB:.0f} bytes, {person.uploaded} were uploaded")
    for name, (size, expected) in person.kept.items():
        if name not in listed:
            continue
        film = await client.fetch("whole video", listed[name]["filepath"])
        if (len(film), digest(film)) != (size, expected):
            wrong.append(f"{name} is not what was uploaded")
        if not await client.fetch("thumbnail", listed[name]["filepath"].replace(".mp4", ".jpg")):
            wrong.append(f"{name} has no thumbnail")
    return wrong


def memory_of(urls: dict[str, str]) -> dict[str, float]:
    """MB that those services keep which run on this machine and may be looked at: the processes and their children."""
    ports = {
        parts.port: name
        for name, url in urls.items()
        if (parts := urlsplit(url)).hostname in ("localhost", "127.0.0.1")
    }
    found: dict[str, float] = {}
    for process in psutil.process_iter():
        try:
            listening = {at.laddr.port for at in process.net_connections("tcp") if at.status == psutil.CONN_LISTEN}
            for port in listening & ports.keys():
                family = [process, *process.children(recursive=True)]
                found[ports[port]] = sum(one.memory_full_info().uss for one in family) / MIB
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


async def progress(report: Report, seconds: float) -> None:
    before = 0
    while True:
        await asyncio.sleep(1)
        now = time.monotonic() - report.began
        rate, before = report.requests - before, report.requests
        line = (
            f"{now:4.0f} of {seconds:.0f} s   {rate:4d} requests/s   {report.moved / 1e6:,.0f} MB watched"
            f"   {sum(report.refused.values())} refused   {sum(report.errors.values())} errors"
        )
        sys.stdout.write(f"\r{line}" if sys.stdout.isatty() else f"{line}\n" if round(now) % 10 == 0 else "")
        sys.stdout.flush()


def table(report: Report) -> str:
    lines = [f"{'route':20} {'requests':>9} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'most ms':>8}"]
    for route, taken in sorted(report.taken.items()):
        cuts = quantiles(taken, n=100, method="inclusive") if len(taken) > 1 else [taken[0]] * 99
        p50, p95, p99 = (cuts[number - 1] * 1000 for number in (50, 95, 99))
        lines.append(f"{route:20} {len(taken):9d} {p50:8.1f} {p95:8.1f} {p99:8.1f} {max(taken) * 1000:8.1f}")
    return "\n".join(lines)


async def main() -> int:
    parser = argparse.ArgumentParser(prog="load", description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two actions of a person, on average")
    options = parser.parse_args()
    urls = {
        name: os.environ.get(f"{name.upper()}_SERVICE_URL", f"http://127.0.0.1:{port}").rstrip("/")
        for name, port in PORTS.items()
    }
    report = Report()
    seconds = options.minutes * 60
    day = datetime.now(UTC).date()
    timeout = aiohttp.ClientTimeout(total=120, connect=30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        client = Client(session, urls, report)
        try:
            await client.call("health", "GET", "video", "/health", None)
        except (Failed, Refused):
            sys.stderr.write(
                f"load: nobody answers at {urls['video']}: start them with `make run`, or set *_SERVICE_URL\n"
            )
            return 2
        show(f"{options.users} people register and sign in")
        people = await asyncio.gather(*[arrive(client, number) for number in range(options.users)])
        report.taken.clear()
        report.began = time.monotonic()
        ticker = asyncio.create_task(progress(report, seconds))
        until = report.began + seconds
        early: dict[str, float] = {}

        async def note() -> None:
            await asyncio.sleep(seconds / 4)
            early.update(await asyncio.to_thread(memory_of, urls))

        await asyncio.gather(note(), *[live(client, person, until, options.pause) for person in people])
        ticker.cancel()
        took, requests = time.monotonic() - report.began, report.requests
        rows = table(report)
        late = await asyncio.to_thread(memory_of, urls)
        show(f"\n\n{rows}\n\n{requests / took:.0f} requests/s; now the books are compared")
        limit = asyncio.Semaphore(16)

        async def compare(person: Person) -> list[str]:
            async with limit:
                return [f"{person.email}: {line}" for line in await settle(client, person)]

        wrong = [line for lines in await asyncio.gather(*map(compare, people)) for line in lines]
    if datetime.now(UTC).date() != day:
        show("midnight (UTC) has passed: the day's figures begin anew, and cannot be compared")
        wrong = [line for line in wrong if "the day's figure" not in line]
    for name in sorted(late.keys() & early.keys()):
        show(f"{name}-service keeps {late[name]:.0f} MB, after a quarter of the time {early[name]:.0f} MB")
    for title, counted in (("refused", report.refused), ("ERROR", report.errors)):
        for what, number in counted.most_common():
            show(f"{title} {number} times: {what}")
    show(
        "".join(f"WRONG {line}\n" for line in wrong[:20]) + f"{len(people)} people's books: {len(wrong)} figures differ"
    )
    return 1 if wrong or report.errors else 0


def show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
