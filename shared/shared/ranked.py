"""Lists in SQLite of which any page is found as fast as the first, and which know how long they are.

``OFFSET`` walks over all that it skips: 18 ms for 200,000 rows. So beside the table stand counts, an order statistic
tree of fixed depth: how many rows a list has, how many of them lie in each stretch of time, and in each of the finer
stretches that those are made of. A page's place is found by summing stretches from the nearer end on; what is left to
skip is never more than one fine stretch (rows of one and the same moment are never parted, however many they are).

    everybody   20,000 ┬ 2026-11-01 …  16,384 ┬ 2026-11-01 …  512
                       │                      ├ 2026-11-02 …  512
                       └ 2026-11-20 …   3,616 ┴ …

A list that fits into one fine stretch has its length alone. Who adds rows or takes them away says so in the same
transaction. (PostgreSQL keeps ``OFFSET``: what it may walk over there is for that database's owner to decide.)
"""

# ruff: noqa: S608  the statements are put together of words of ours only
import sqlite3
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator

EVERYBODY = ""
"""The list of all rows; every other list has the name of the user whose rows it holds."""
END = "~"
"""Behind every time."""

_LENGTH, _COARSE, _FINE = 0, 1, 2
# Part of the schema: a list has stretches if, and only if, it is longer than the finest may be.
_MOST = {_COARSE: 16_384, _FINE: 512}


class Ranked:
    """The lists of one table, newest first, then last inserted: everybody's rows, and each user's.

    The table has ``seq``, ``user_id`` and ``time`` (``to_text``); a row is in its lists while ``listed`` holds, and for
    each kind of list there is an index in its order.
    """

    def __init__(self, table: str, time: str, listed: str = "TRUE") -> None:
        self._table = table
        self._time = time
        self._listed = listed
        self._ranks = f"{table}_ranks"

    # --- reading ---

    def seek(self, connection: sqlite3.Connection, whose: str, start: int) -> tuple[int, str, int]:
        """How many rows the list has, and how to come to the one at ``start``: skip so many of those before a time."""
        cursor = connection.cursor()
        cursor.row_factory = None  # tuples: there may be a hundred
        found = cursor.execute(
            f"SELECT rows FROM {self._ranks} WHERE list = ? AND level = 0 AND first = ''", (whose,)
        ).fetchone()
        total: int = found[0] if found else 0
        first, before, skip, rows = "", END, start, total
        if 0 < start < total and total > _MOST[_FINE]:
            for level in (_COARSE, _FINE):
                walk, order = (_from_the_newest, "DESC") if skip < rows // 2 else (_from_the_oldest, "ASC")
                stretches = cursor.execute(
                    f"""SELECT first, rows FROM {self._ranks}
                        WHERE list = ? AND level = ? AND first >= ? AND first < ? ORDER BY first {order}""",
                    (whose, level, first, before),
                )
                first, before, skip, rows = walk(stretches, before, skip, rows)
        return total, before, skip

    # --- writing ---

    def added(self, connection: sqlite3.Connection, rows: Iterable[tuple[str, str]]) -> None:
        """Rows were inserted: the user and the time of each."""
        for whose, times in _lists(rows):
            (length,) = connection.execute(
                f"""INSERT INTO {self._ranks} VALUES (?, {_LENGTH}, '', ?)
                    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows RETURNING rows""",
                (whose, len(times)),
            ).fetchone()
            if length <= _MOST[_FINE]:
                continue
            if length - len(times) <= _MOST[_FINE]:
                for level in (_FINE, _COARSE):
                    self._insert(connection, whose, level, "", length)
                grown = {level: [("", length)] for level in (_FINE, _COARSE)}
            else:
                grown = {level: self._spread(connection, whose, level, times, 1) for level in (_FINE, _COARSE)}
            for level in (_FINE, _COARSE):  # in this order: a coarse stretch is parted where a fine one is
                for first, count in grown[level]:
                    if count > _MOST[level]:
                        self._part(connection, whose, level, first, count)

    def removed(self, connection: sqlite3.Connection, rows: Iterable[tuple[str, str]]) -> None:
        """Rows that were in their lists are so no more."""
        for whose, times in _lists(rows):
            length = self._change(connection, whose, _LENGTH, "", -len(times))
            if length == 0:
                connection.execute(f"DELETE FROM {self._ranks} WHERE list = ?", (whose,))
            elif length <= _MOST[_FINE]:
                connection.execute(f"DELETE FROM {self._ranks} WHERE list = ? AND level > 0", (whose,))
            else:
                for level in (_COARSE, _FINE):
                    for first, _ in self._spread(connection, whose, level, times, -1):
                        self._join(connection, whose, level, first)

    def _spread(
        self, connection: sqlite3.Connection, whose: str, level: int, times: list[str], sign: int
    ) -> list[tuple[str, int]]:
        """Count ``times``, which are sorted, where they belong; the stretches that changed, with what they now have."""
        firsts = [
            first
            for (first,) in connection.execute(
                f"""SELECT first FROM {self._ranks} WHERE list = :whose AND level = :level AND first <= :newest AND
                        first >= (SELECT max(first) FROM {self._ranks}
                                  WHERE list = :whose AND level = :level AND first <= :oldest)
                    ORDER BY first""",
                {"whose": whose, "level": level, "oldest": times[0], "newest": times[-1]},
            ).fetchall()
        ]
        edges = [0, *(bisect_left(times, first) for first in firsts[1:]), len(times)]
        changed = []
        for number, first in enumerate(firsts):
            if change := edges[number + 1] - edges[number]:
                changed.append((first, self._change(connection, whose, level, first, sign * change)))
        return changed

    def _part(self, connection: sqlite3.Connection, whose: str, level: int, first: str, rows: int) -> None:
        """Cut pieces off until none is too long. The newest stretch grows at its end, so what is cut off it is full."""
        newer = self._beside(connection, whose, level, first, newer=True)
        end = newer[0] if newer else END
        while rows > _MOST[level]:
            most = min(_MOST[level], rows // 2) if newer else _MOST[level]
            cut = self._row_cut if level == _FINE else self._stretch_cut
            found = cut(connection, whose, first, end, most)
            if found is None:
                return
            edge, older_rows = found
            connection.execute(
                f"UPDATE {self._ranks} SET rows = ? WHERE list = ? AND level = ? AND first = ?",
                (older_rows, whose, level, first),
            )
            rows -= older_rows
            first = edge
            self._insert(connection, whose, level, first, rows)

    def _row_cut(
        self, connection: sqlite3.Connection, whose: str, first: str, end: str, most: int
    ) -> tuple[str, int] | None:
        """The time at which to cut so that ``most`` rows, or fewer, come before it, and how many they are."""
        time, rows = self._time, f"FROM {self._table} WHERE {self._of(whose)} AND {self._time} < :end AND {self._time}"
        values = {"whose": whose, "first": first, "end": end, "most": most}
        found = connection.execute(
            f"SELECT {time} {rows} >= :first ORDER BY {time} LIMIT 1 OFFSET :most", values
        ).fetchone()
        if found and found[0] == first:  # so many of one moment: behind them
            found = connection.execute(f"SELECT {time} {rows} > :first ORDER BY {time} LIMIT 1", values).fetchone()
        if found is None:
            return None
        edge: str = found[0]
        (older,) = connection.execute(f"SELECT count(*) {rows} >= :first", values | {"end": edge}).fetchone()
        return edge, older

    def _stretch_cut(
        self, connection: sqlite3.Connection, whose: str, first: str, end: str, most: int
    ) -> tuple[str, int] | None:
        """The same for a coarse stretch, along its fine ones."""
        fine = connection.execute(
            f"""SELECT first, rows FROM {self._ranks}
                WHERE list = ? AND level = ? AND first >= ? AND first < ? ORDER BY first""",
            (whose, _FINE, first, end),
        ).fetchall()
        if len(fine) == 1:
            return None
        older = fine[0]["rows"]
        for edge, rows in fine[1:-1]:
            if older + rows > most:
                return edge, older
            older += rows
        return fine[-1]["first"], older

    def _join(self, connection: sqlite3.Connection, whose: str, level: int, first: str) -> None:
        """Make one of a stretch that has lost rows and a neighbour, if together they are half of what one may be."""
        for newer in (True, False):
            mine = self._at(connection, whose, level, first)
            other = self._beside(connection, whose, level, first, newer=newer)
            if mine is None or other is None or mine + other[1] > _MOST[level] // 2:
                continue
            older, edge, rows = (first, *other) if newer else (other[0], first, mine)
            if level == _FINE and self._at(connection, whose, _COARSE, edge) is not None:
                continue  # a coarse stretch begins there
            connection.execute(
                f"DELETE FROM {self._ranks} WHERE list = ? AND level = ? AND first = ?", (whose, level, edge)
            )
            self._change(connection, whose, level, older, rows)

    def _at(self, connection: sqlite3.Connection, whose: str, level: int, first: str) -> int | None:
        found = connection.execute(
            f"SELECT rows FROM {self._ranks} WHERE list = ? AND level = ? AND first = ?", (whose, level, first)
        ).fetchone()
        return found["rows"] if found else None

    def _beside(
        self, connection: sqlite3.Connection, whose: str, level: int, first: str, *, newer: bool
    ) -> tuple[str, int] | None:
        which = "first > ? ORDER BY first" if newer else "first < ? ORDER BY first DESC"
        found = connection.execute(
            f"SELECT first, rows FROM {self._ranks} WHERE list = ? AND level = ? AND {which} LIMIT 1",
            (whose, level, first),
        ).fetchone()
        return (found["first"], found["rows"]) if found else None

    def _change(self, connection: sqlite3.Connection, whose: str, level: int, first: str, change: int) -> int:
        """Count so many more, or less; how many it has then."""
        (rows,) = connection.execute(
            f"UPDATE {self._ranks} SET rows = rows + ? WHERE list = ? AND level = ? AND first = ? RETURNING rows",
            (change, whose, level, first),
        ).fetchone()
        return int(rows)

    def _insert(self, connection: sqlite3.Connection, whose: str, level: int, first: str, rows: int) -> None:
        connection.execute(f"INSERT INTO {self._ranks} VALUES (?, ?, ?, ?)", (whose, level, first, rows))

    def _of(self, whose: str) -> str:
        return self._listed if whose == EVERYBODY else f"{self._listed} AND user_id = :whose"

    # --- counting what is there ---

    def migration(self) -> str:
        """The table of counts, for a table that may hold rows already."""
        return ";\n".join(
            [
                f"""CREATE TABLE {self._ranks} (
                        list TEXT NOT NULL,
                        level INTEGER NOT NULL,
                        first TEXT NOT NULL,
                        rows INTEGER NOT NULL CHECK (rows >= 0),
                        PRIMARY KEY (list, level, first)
                    ) STRICT, WITHOUT ROWID""",
                *self._counting(),
            ]
        )

    def count_anew(self, connection: sqlite3.Connection) -> None:
        """For whoever has written rows past the service."""
        connection.execute(f"DELETE FROM {self._ranks}")
        for statement in self._counting():
            connection.execute(statement)

    def _counting(self) -> Iterator[str]:
        ranks, rows = self._ranks, f"FROM {self._table} WHERE {self._listed}"
        for whose, of in (("user_id", "list <> ''"), ("''", "list = ''")):
            yield f"INSERT INTO {ranks} SELECT {whose}, {_LENGTH}, '', count(*) {rows} GROUP BY 1"
            # An edge lies at every so many rows, in front of all of that moment: ``below`` is what is older.
            yield f"""
                WITH long AS (
                    SELECT list, rows FROM {ranks} WHERE level = {_LENGTH} AND rows > {_MOST[_FINE]} AND {of}
                ),
                placed AS (
                    SELECT {whose} AS list, {self._time} AS first,
                        rank() OVER old - 1 AS below, row_number() OVER old AS place
                    {rows} WINDOW old AS (PARTITION BY {whose} ORDER BY {self._time})
                ),
                edges AS (
                    SELECT list, '' AS first, 0 AS below FROM long
                    UNION
                    SELECT list, first, below FROM placed WHERE place > 1 AND place % {_MOST[_FINE]} = 1
                )
                INSERT INTO {ranks} SELECT list, {_FINE}, edges.first,
                    lead(below, 1, long.rows) OVER (PARTITION BY list ORDER BY edges.first) - below
                FROM edges JOIN long USING (list)"""
        yield f"""
            WITH fine AS (
                SELECT list, first, sum(rows) OVER (PARTITION BY list ORDER BY first) - rows AS below
                FROM {ranks} WHERE level = {_FINE}
            ),
            parts AS (
                SELECT list, first, below, below / {_MOST[_COARSE]} AS part,
                    lag(below / {_MOST[_COARSE]}, 1, -1) OVER (PARTITION BY list ORDER BY first) AS part_before
                FROM fine
            )
            INSERT INTO {ranks} SELECT list, {_COARSE}, parts.first,
                lead(below, 1, length.rows) OVER (PARTITION BY list ORDER BY parts.first) - below
            FROM parts JOIN {ranks} AS length USING (list) WHERE length.level = {_LENGTH} AND part <> part_before"""


# Both walk over the stretches before a time, which have ``rows`` rows in all, to the one that has the row at ``skip``:
# where it begins and ends, what is left to skip in it, and how many rows it has.
_Stretches = Iterable[tuple[str, int]]
_Place = tuple[str, str, int, int]


def _from_the_newest(stretches: _Stretches, before: str, skip: int, rows: int) -> _Place:
    first, count = "", rows
    for first, count in stretches:
        if skip < count:
            break
        skip -= count
        before = first
    return first, before, skip, count


def _from_the_oldest(stretches: _Stretches, before: str, skip: int, rows: int) -> _Place:
    first, count, passed = "", rows, 0
    for edge, more in stretches:
        if passed >= rows - skip:
            before = edge
            break
        first, count = edge, more
        passed += count
    return first, before, passed - (rows - skip), count


def _lists(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """The times of each list, sorted."""
    lists: defaultdict[str, list[str]] = defaultdict(list)
    for user_id, time in rows:
        lists[user_id].append(time)
    everybodys = [time for times in lists.values() for time in times]
    for whose, times in [*lists.items(), (EVERYBODY, everybodys)]:
        if times:
            yield whose, sorted(times)
