"""The audit: whether rows, files, ledgers and counters tell one story, exactly, once nothing is under way any more.

``audit`` reads every database and folder itself, then asks the public routes whether they say the same.
"""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from e2e.engines import Row
from e2e.services import Services

from shared.settings import MIB

LEFTOVERS = (
    ("user", "SELECT uploading FROM users WHERE id = ? AND uploading IS NOT NULL"),
    ("video", "SELECT * FROM videos WHERE user_id = ?"),
    ("storage", "SELECT * FROM storage_objects WHERE user_id = ? AND state <> 'deleted'"),
    ("storage", "SELECT * FROM storage_ledger WHERE user_id = ? AND (kept > 0 OR reserved > 0)"),
    ("usage", "SELECT * FROM usage_reservations WHERE user_id = ?"),
    ("usage", "SELECT * FROM usage_days WHERE user_id = ? AND uploads > 0"),
)


@dataclass(frozen=True)
class Film:
    """A row of the catalogue, live or deleted; ``size`` in bytes."""

    filename: str
    user: str
    size: int
    uploaded: date
    deleted: date | None


def audit(services: Services, *people: uuid.UUID) -> list[str]:
    """What is wrong, one sentence each. Nothing may be under way: no upload, no lease, nothing unswept.

    The public routes are asked about these ``people``; of nobody in particular: about everybody.
    """
    films = [_film(row) for row in _rows(services, "video", "SELECT * FROM videos")]
    return [
        *_nothing_under_way(services),
        *_files(services, films),
        *_ledger(services, films),
        *_days(services, films),
        *_public(services, films, {str(person) for person in people}),
    ]


def nothing_left_of(services: Services, person_id: uuid.UUID) -> list[str]:
    """What a refused upload of somebody who has no video has left; at once, before any lease runs out or any sweep."""
    user = str(person_id)
    wrong = [f"{name}: {dict(row)}" for name, query in LEFTOVERS for row in _rows(services, name, query, user)]
    mine = _rows(services, "storage", "SELECT filename FROM storage_objects WHERE user_id = ?", user)
    files = {name.partition(".")[0]: name for name in services.engine.stored()}
    return wrong + [f"file {files[row['filename']]}" for row in mine if row["filename"] in files]


def _nothing_under_way(services: Services) -> Iterator[str]:
    for row in _rows(services, "video", "SELECT * FROM videos_outbox"):
        yield f"the outbox still owes {row['kind']} {row['body']} after {row['attempts']} attempts"
    for row in _rows(services, "storage", "SELECT * FROM storage_objects WHERE state NOT IN ('kept', 'deleted')"):
        yield f"object {row['filename']} is still {row['state']}"
    for row in _rows(services, "usage", "SELECT * FROM usage_reservations"):
        yield f"usage still reserves {row['granted']} for {row['upload_id']}"


def _files(services: Services, films: list[Film]) -> Iterator[str]:
    """Row, object and both files: none without the others."""
    live = {film.filename: film for film in films if film.deleted is None}
    kept = {
        row["filename"]: row for row in _rows(services, "storage", "SELECT * FROM storage_objects WHERE state = 'kept'")
    }
    files = services.engine.stored()
    for filename in live.keys() - kept.keys():
        yield f"live video {filename} has no kept object"
    for filename in kept.keys() - live.keys():
        yield f"kept object {filename} has no live video"
    for filename in live.keys() & kept.keys():
        film, row = live[filename], kept[filename]
        sizes = {film.size, row["size"], files.get(f"{filename}.video")}
        if len(sizes) != 1:
            yield f"{filename} has {film.size} bytes in the catalogue, {row['size']} in the ledger, {sizes} in all"
        if film.user != row["user_id"]:
            yield f"{filename} belongs to {film.user} and to {row['user_id']}"
        if not files.get(f"{filename}.jpg"):
            yield f"live video {filename} has no thumbnail"
    for name in files.keys() - {f"{filename}.{kind}" for filename in kept for kind in ("video", "jpg")}:
        yield f"file {name} is nobody's"


def _ledger(services: Services, films: list[Film]) -> Iterator[str]:
    owed = Counter[str]()
    for film in films:
        owed[film.user] += 0 if film.deleted else film.size
    ledger = {row["user_id"]: row for row in _rows(services, "storage", "SELECT * FROM storage_ledger")}
    for user in owed.keys() | ledger.keys():
        kept, reserved = (ledger[user]["kept"], ledger[user]["reserved"]) if user in ledger else (0, 0)
        if (kept, reserved) != (owed[user], 0):
            yield f"the ledger of {user} has {kept} kept and {reserved} reserved, where {owed[user]} are kept"


def _days(services: Services, films: list[Film]) -> Iterator[str]:
    """An upload counts on the day it began, so on that of its row or the one before."""
    events, read_days = _events_and_days(services)
    expected: dict[tuple[str, str], Counter[str]] = {}
    for (kind, _), row in events.items():
        day = expected.setdefault((row["user_id"], row["day"]), Counter())
        day[{"upload": "uploads", "deletion": "deletions", "stream": "streams"}[kind]] += 1
        day[{"upload": "uploaded", "deletion": "nothing", "stream": "streamed"}[kind]] += row["size"]
    days = {(row["user_id"], row["day"]): row for row in read_days}
    for key in days.keys() | expected.keys():
        for counter in ("uploads", "uploaded", "deletions", "streamed"):
            counted = days[key][counter] if key in days else 0
            if counted != expected.get(key, Counter())[counter]:
                yield f"day {key} has {counter} {counted}, its events tell {expected.get(key)}"
    for film in films:
        upload, deletion = events.pop(("upload", film.filename), None), events.pop(("deletion", film.filename), None)
        if upload is None or (upload["user_id"], upload["size"]) != (film.user, film.size):
            yield f"{film} was counted as {upload and dict(upload)}"
        elif date.fromisoformat(upload["day"]) not in (film.uploaded, film.uploaded - timedelta(days=1)):
            yield f"{film} was counted on {upload['day']}"
        if (deletion and deletion["day"]) != (film.deleted and film.deleted.isoformat()):
            yield f"{film}'s deletion was counted as {deletion and dict(deletion)}"
    for kind, identity in events:
        if kind != "stream":
            yield f"usage counted the {kind} of {identity}, which is no video"


def _events_and_days(services: Services) -> tuple[dict[tuple[str, str], Row], list[Row]]:
    """As of one moment: what was watched may be reported just between two looks."""
    for _ in range(5):
        events = _rows(services, "usage", "SELECT * FROM usage_events")
        days = _rows(services, "usage", "SELECT * FROM usage_days")
        if len(events) == len(_rows(services, "usage", "SELECT * FROM usage_events")):
            break
    return {(row["kind"], row["id"]): row for row in events}, days


def _public(services: Services, films: list[Film], people: set[str]) -> Iterator[str]:
    """What their pages are told, against what the audit has seen."""
    days = {(row["user_id"], row["day"]): row for row in _rows(services, "usage", "SELECT * FROM usage_days")}
    for user in people or {row["id"] for row in _rows(services, "user", "SELECT id FROM users")}:
        headers = {"Authorization": f"Bearer {services.token(uuid.UUID(user))}"}

        def ask(service: str, path: str, headers: dict[str, str] = headers) -> Any:
            answer = services.client.get(services[service].url + path, headers=headers)
            return answer.json() if answer.status_code == 200 else {"failed": answer.text}

        live = [film for film in films if film.user == user and film.deleted is None]
        stored, size = ask("storage", "/api/storage/usage"), sum(film.size for film in live)
        if stored.get("totalSizeMb") != size / MIB:
            yield f"the page of {user} says {stored} for {size} bytes"
        used = ask("usage", "/api/usage/daily-usage")
        today = datetime.fromisoformat(used["resetsAt"]).astimezone(UTC).date() - timedelta(days=1)
        row = days.get((user, today.isoformat()))
        told = (used["totalUsageMb"], used["uploads"], used["deletions"])
        if told != ((row["uploaded"] / MIB, row["uploads"], row["deletions"]) if row else (0, 0, 0)):
            yield f"the page of {user} says {used} for {row and dict(row)}"
        listed = ask("video", f"/api/videos/user/{user}?limit=100")
        if listed["total"] != len(live) or {video["filename"] for video in listed["videos"]} != {
            film.filename for film in live[:100]
        }:
            yield f"the page of {user} lists {listed['total']} videos, where {len(live)} are live"
        everybody = ask("video", "/api/videos/stream?limit=1")
        if everybody["total"] != sum(film.deleted is None for film in films):
            yield f"the start page says {everybody['total']} videos"


def _film(row: Row) -> Film:
    deleted = row["deleted_at"] and datetime.fromisoformat(row["deleted_at"]).date()
    uploaded = datetime.fromisoformat(row["uploaded_at"]).date()
    return Film(row["filename"], row["user_id"], round(row["size_mb"] * MIB), uploaded, deleted)


def _rows(services: Services, name: str, query: str, *values: str) -> list[Row]:
    return services.engine.rows(name, query, *values)
