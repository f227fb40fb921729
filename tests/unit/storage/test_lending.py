"""A file that the service lends: the judge reads it as if it were his own, and little of it has to come."""

import io
import random
import socket
from collections.abc import Callable
from contextlib import closing

import pytest
import videos
from unit.storage.lender import Lender

from storage_service.lending import BLOCK, BLOCKS_KEPT, MOST_AT_ONCE, LentFile
from storage_service.probe import judge

CONTENT = random.Random(3).randbytes(40 * BLOCK + 1234)


def test_it_reads_like_a_file_wherever_one_seeks() -> None:
    chance = random.Random(4)
    own = io.BytesIO(CONTENT)
    with Lender(CONTENT).lend() as raw, io.BufferedReader(raw) as lent:
        for _ in range(300):
            whence = chance.choice([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
            offset = chance.randrange(len(CONTENT) + 100) if whence == io.SEEK_SET else chance.randrange(-9000, 9000)
            if whence == io.SEEK_CUR and own.tell() + offset < 0:
                continue
            if whence == io.SEEK_END and len(CONTENT) + offset < 0:
                continue
            assert lent.seek(offset, whence) == own.seek(offset, whence)
            length = chance.choice([0, 1, 16, 32_768, BLOCK, 3 * BLOCK])
            assert lent.read(length) == own.read(length)
            assert lent.tell() == own.tell()
        lent.seek(0)
        assert lent.read() == CONTENT
        with pytest.raises(OSError, match="Invalid"):
            lent.seek(-1)


def test_no_question_reaches_beyond_the_file_or_is_longer_than_agreed() -> None:
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, len(CONTENT)):
        lender = Lender(CONTENT[:size])
        with lender.lend() as raw, io.BufferedReader(raw) as lent:
            assert lent.read() == CONTENT[:size]
            assert lent.read(1) == b""
        assert all(0 < length <= MOST_AT_ONCE and start + length <= size for start, length in lender.asked)


def test_who_reads_on_and_on_asks_for_more_and_more_at_a_time_and_for_nothing_twice() -> None:
    lender = Lender(CONTENT)
    with lender.lend() as raw, io.BufferedReader(raw) as lent:
        while lent.read(16):
            pass
    assert [length // BLOCK for _, length in lender.asked[:5]] == [1, 2, 4, 8, 8]
    assert lender.sent == len(CONTENT)


def test_who_jumps_gets_one_block_and_keeps_the_last_ones() -> None:
    lender = Lender(CONTENT)
    with lender.lend() as raw, io.BufferedReader(raw) as lent:
        for _ in range(3):
            for block in range(0, 2 * (BLOCKS_KEPT // 2), 2):
                lent.seek(block * BLOCK)
                lent.read(16)
    assert lender.sent == BLOCKS_KEPT // 2 * BLOCK


def test_a_service_that_goes_away_is_a_broken_connection() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with closing(theirs), pytest.raises(ConnectionError):
        LentFile(theirs, 10).readinto(bytearray(1))


def padded(film: bytes, size: int) -> bytes:
    padding = size - len(film)
    return film + padding.to_bytes(4) + b"free" + bytes(padding - 8)


def behind(size: int) -> bytes:
    """A film whose index stands behind everything else; the pictures stay where the index says that they are."""
    film = videos.mp4()
    index = film.rindex(b"moov") - 4
    padding = size - len(film)
    return film[:index] + padding.to_bytes(4) + b"free" + bytes(padding - 8) + film[index:]


@pytest.mark.parametrize(
    ("make", "blocks"),
    [
        pytest.param(lambda size: padded(videos.mp4(moov_at_end=False), size), 4, id="index in front"),
        pytest.param(behind, 5, id="index at the end"),
    ],
)
def test_of_a_large_film_only_what_tells_of_it_has_to_come(make: Callable[[int], bytes], blocks: int) -> None:
    film = make(50 * 2**20)
    lender = Lender(film)
    with lender.lend() as raw, io.BufferedReader(raw) as lent:
        found = judge(lent)
    assert found == judge(io.BytesIO(film))
    assert lender.sent <= blocks * BLOCK


def test_of_a_recording_whose_lengths_are_unknown_all_comes_and_twice_at_most() -> None:
    film = videos.webm(seconds=5, live=True, audio=True)
    lender = Lender(film)
    with lender.lend() as raw, io.BufferedReader(raw) as lent:
        assert judge(lent) == judge(io.BytesIO(film))
    assert lender.sent <= 2 * len(film) + 2 * BLOCK
