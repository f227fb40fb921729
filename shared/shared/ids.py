"""Ids for what is written in great numbers."""

import random
import time
import uuid


def time_ordered_id() -> uuid.UUID:
    """A UUID of version 7 (RFC 9562, 5.7): the millisecond, then 74 random bits.

    An index over ids that begin with the time grows at its end. Over random ones each row is a page of its own to
    read, to write and to write again at the checkpoint: with a million rows that is more than all the rest together.
    It tells things apart and is no secret.
    """
    millisecond = time.time_ns() // 1_000_000
    high, low = divmod(random.getrandbits(74), 1 << 62)
    return uuid.UUID(int=(millisecond & (1 << 48) - 1) << 80 | 7 << 76 | high << 64 | 2 << 62 | low)
