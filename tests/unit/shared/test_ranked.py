"""Any page of a list is what OFFSET would give, whatever was inserted, taken away or undone before."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise

import pytest

from shared import ranked
from shared.ranked import EVERYBODY, Ranked

USERS = ["ann", "ben", "eve"]
LISTS = [EVERYBODY, *USERS, "nobody"]
RANKED = Ranked("things", "at", listed="gone IS NULL")
Insert = Callable[[list[tuple[str, str]]], None]


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.row_factory = sqlite3.Row
        database.execute("CREATE TABLE things (seq INTEGER PRIMARY KEY, user_id TEXT, at TEXT, gone TEXT)")
        database.execute("CREATE INDEX things_by_user ON things (user_id, at) WHERE gone IS NULL")
        database.execute("CREATE INDEX things_by_time ON things (at) WHERE gone IS NULL")
        for statement in RANKED.migration().split(";\n"):
            database.execute(statement)
        yield database


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of a few rows, so that a few hundred make a whole tree."""
    monkeypatch.setitem(ranked._MOST, ranked._COARSE, 40)
    monkeypatch.setitem(ranked._MOST, ranked._FINE, 8)


@pytest.fixture
def insert(database: sqlite3.Connection) -> Insert:
    def insert(rows: list[tuple[str, str]]) -> None:
        database.executemany("INSERT INTO things (user_id, at) VALUES (?, ?)", rows)
        RANKED.added(database, rows)

    return insert


def remove(database: sqlite3.Connection, seqs: list[int]) -> None:
    marks = ", ".join("?" * len(seqs))
    RANKED.removed(
        database,
        database.execute(f"SELECT user_id, at FROM things WHERE gone IS NULL AND seq IN ({marks})", seqs).fetchall(),
    )
    database.execute(f"UPDATE things SET gone = 'x' WHERE seq IN ({marks})", seqs)


def time(number: int) -> str:
    return f"{number:012}"


def listed(database: sqlite3.Connection, whose: str) -> list[int]:
    return [
        seq
        for (seq,) in database.execute(
            "SELECT seq FROM things WHERE gone IS NULL AND ? IN ('', user_id) ORDER BY at DESC, seq DESC", (whose,)
        )
    ]


def page(database: sqlite3.Connection, whose: str, start: int, length: int) -> list[int]:
    total, before, skip = RANKED.seek(database, whose, start)
    if start >= total:
        return []
    return [
        seq
        for (seq,) in database.execute(
            """SELECT seq FROM things WHERE gone IS NULL AND ? IN ('', user_id) AND at < ?
               ORDER BY at DESC, seq DESC LIMIT ? OFFSET ?""",
            (whose, before, length, skip),
        )
    ]


def stretches(database: sqlite3.Connection, whose: str, level: int) -> dict[str, int]:
    return dict(
        tuple(row)
        for row in database.execute(
            "SELECT first, rows FROM things_ranks WHERE list = ? AND level = ? ORDER BY first", (whose, level)
        )
    )


def verify(database: sqlite3.Connection, starts: int = 12) -> None:
    for whose in LISTS:
        true = listed(database, whose)
        assert RANKED.seek(database, whose, 0)[0] == len(true)
        for start in {0, len(true) - 1, len(true), 10**30, *(random.randrange(len(true) + 1) for _ in range(starts))}:
            if start >= 0:
                length = random.randint(1, 20)
                assert page(database, whose, start, length) == true[start : start + length]
        lengths, coarse, fine = (stretches(database, whose, level) for level in range(3))
        assert lengths == ({"": len(true)} if true else {})
        if len(true) <= ranked._MOST[ranked._FINE]:
            assert coarse == fine == {}
            continue
        assert coarse.keys() <= fine.keys()
        for level, counted in ((ranked._COARSE, coarse), (ranked._FINE, fine)):
            firsts = [*counted, ranked.END]
            assert firsts[0] == ""
            for first, end in pairwise(firsts):
                moments = [
                    rows
                    for (rows,) in database.execute(
                        """SELECT count(*) FROM things
                           WHERE gone IS NULL AND ? IN ('', user_id) AND at >= ? AND at < ? GROUP BY at""",
                        (whose, first, end),
                    )
                ]
                assert counted[first] == sum(moments)
                # No longer than may be, but for what cannot be parted.
                inseparable = moments if level == ranked._FINE else [fine[edge] for edge in fine if first <= edge < end]
                assert sum(moments) - max(inseparable, default=0) <= ranked._MOST[level]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(12))
def test_any_page_is_what_offset_gives(database: sqlite3.Connection, insert: Insert, seed: int) -> None:
    random.seed(seed)
    now = 1_000_000
    for _ in range(60):
        database.execute("BEGIN")
        if random.random() < 0.65:
            kind = random.choice(["in order", "anywhere", "one moment", "few moments", "behind all"])
            count = random.choice([1, 5, 60, 150])
            numbers = {
                "in order": range(now, now + count),
                "anywhere": random.sample(range(2_000_000), count),
                "one moment": [now] * count,
                "few moments": random.choices([5, 500_000, now], k=count),
                "behind all": range(1000, 1000 - count, -1),
            }[kind]
            users = random.choice([USERS, USERS[:1], USERS[:2]])
            insert([(random.choice(users), time(number)) for number in numbers])
            now += count
        elif there := listed(database, random.choice(LISTS)):
            some = random.sample(there, min(len(there), random.choice([1, 10, 100])))
            if random.random() < 0.3:  # those that lie together
                at = random.randrange(len(there))
                some = there[at : at + random.choice([10, 200])]
            if random.random() < 0.1:
                some = there
            remove(database, some)
        database.execute("ROLLBACK" if random.random() < 0.2 else "COMMIT")
        verify(database)
    database.execute("BEGIN")
    RANKED.count_anew(database)
    database.execute("COMMIT")
    verify(database)
    insert([(random.choice(USERS), time(random.randrange(2_000_000))) for _ in range(200)])
    remove(database, random.sample(listed(database, EVERYBODY), 100))
    verify(database)


@pytest.mark.parametrize("order", ["in order", "anywhere"])
def test_the_way_to_any_page_is_short(database: sqlite3.Connection, insert: Insert, order: str) -> None:
    random.seed(3)
    numbers = [*range(100_000)]
    if order == "anywhere":
        random.shuffle(numbers)
    for at in range(0, len(numbers), 400):
        insert([("ann" if number % 2 else "ben", time(number)) for number in numbers[at : at + 400]])
    for whose, length in ((EVERYBODY, 100_000), ("ann", 50_000)):
        for start in (*range(0, length, 997), length - 1):
            assert RANKED.seek(database, whose, start)[2] < 512
        coarse, fine = stretches(database, whose, 1), stretches(database, whose, 2)
        assert len(coarse) <= length / 16_384 * 2 + 1
        edges = [*coarse, ranked.END]
        for first, end in pairwise(edges):
            assert sum(1 for edge in fine if first <= edge < end) <= 100
    true = listed(database, EVERYBODY)
    for start in random.sample(range(100_000), 50):
        assert page(database, EVERYBODY, start, 16) == true[start : start + 16]


@pytest.mark.usefixtures("small")
def test_what_is_taken_away_leaves_no_stretch_for_each_that_once_was(
    database: sqlite3.Connection, insert: Insert
) -> None:
    for round_ in range(100):
        insert([("ann", time(round_ * 100 + number)) for number in range(100)])
        if (old := listed(database, "ann")[300:]) != []:
            remove(database, old)
    assert len(listed(database, "ann")) == 300
    # Of two neighbours at least one and a half are half full, but where a coarse stretch begins.
    assert len(stretches(database, "ann", ranked._COARSE)) <= 300 / 40 * 4 + 2
    assert len(stretches(database, "ann", ranked._FINE)) <= 300 / 8 * 4 + 2 * 300 / 40 * 4
    verify(database)


def test_rows_of_one_moment_stay_together_however_many(database: sqlite3.Connection, insert: Insert) -> None:
    insert([("ann", time(5))] * 3000)
    insert([("ann", time(number)) for number in range(10) for _ in range(300)])
    verify(database)


@pytest.mark.usefixtures("small")
def test_a_table_that_is_full_already_is_counted(database: sqlite3.Connection) -> None:
    random.seed(1)
    for count in (0, 1, 8, 9, 40, 41, 900):
        database.execute("DELETE FROM things")
        database.execute("DROP TABLE things_ranks")
        database.executemany(
            "INSERT INTO things (user_id, at, gone) VALUES (?, ?, ?)",
            [
                (
                    random.choice(USERS),
                    time(random.choice([7, random.randrange(10**6)])),
                    random.choice([None, None, "x"]),
                )
                for _ in range(count)
            ],
        )
        for statement in RANKED.migration().split(";\n"):
            database.execute(statement)
        verify(database, 60)
