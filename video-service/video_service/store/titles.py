"""Part of a title, found without reading every title: SQLite's full-text index over all that is three signs long.

It holds what is live, under the number of its row. It finds what ``instr`` finds, no more and no less: trigrams that
follow one another are that part of the title. (It takes U+FFFE and U+FFFF for U+FFFD, so what has one of these is left
to ``instr``, and so is what is shorter than three signs.)
"""

import re
import sqlite3
from collections.abc import Iterable

FEW = 5000
"""So many are looked up and sorted. More than that lie so close that the list itself is read until a page is full."""

INDEX = "INSERT INTO videos_titles (rowid, title_key) SELECT seq, title_key FROM videos WHERE deleted_at IS NULL"
TABLE = """
    CREATE VIRTUAL TABLE videos_titles USING fts5 (
        title_key, content = '', columnsize = 0, tokenize = 'trigram case_sensitive 1'
    )"""
_UNKNOWN_TO_IT = re.compile("[\0\ufffd-\uffff]")


def phrase(part: str) -> str | None:
    """What to ask the index for; None if it cannot tell."""
    if len(part) < 3 or _UNKNOWN_TO_IT.search(part):
        return None
    return '"' + part.replace('"', '""') + '"'


def few(connection: sqlite3.Connection, asked: str) -> list[int] | None:
    """The rows that have it; None if there are more than a few."""
    found = connection.execute(
        "SELECT rowid FROM videos_titles WHERE videos_titles MATCH ? LIMIT ?", (asked, FEW + 1)
    ).fetchall()
    return [row["rowid"] for row in found] if len(found) <= FEW else None


def count(connection: sqlite3.Connection, asked: str) -> int:
    query = "SELECT count(*) FROM videos_titles WHERE videos_titles MATCH ?"
    (number,) = connection.execute(query, (asked,)).fetchone()
    return int(number)


def added(connection: sqlite3.Connection, seq: int, title_key: str) -> None:
    connection.execute("INSERT INTO videos_titles (rowid, title_key) VALUES (?, ?)", (seq, title_key))


def removed(connection: sqlite3.Connection, rows: Iterable[tuple[int, str]]) -> None:
    """The index has no titles, and is told what to forget."""
    connection.executemany("INSERT INTO videos_titles (videos_titles, rowid, title_key) VALUES ('delete', ?, ?)", rows)


def index_anew(connection: sqlite3.Connection) -> None:
    """For whoever has written rows past the service."""
    connection.execute("INSERT INTO videos_titles (videos_titles) VALUES ('delete-all')")
    connection.execute(INDEX)
