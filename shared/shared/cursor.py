"""Where a page of a list ends, as ``next`` gives it and ``after`` takes it: a place from which the list goes on.

The list is in the order of time and, among rows of one time, in the order of writing. A place between two rows stays
where it is however many rows are added or deleted before it, and an index finds it at once; an offset does neither.
"""

import base64
from datetime import datetime
from typing import NamedTuple, Self

from shared.clock import to_text


class Cursor(NamedTuple):
    """The ``time`` (as ``to_text`` has it) and the number ``seq`` of the last row of a page."""

    time: str
    seq: int

    def encoded(self) -> str:
        return base64.urlsafe_b64encode(f"{self.time} {self.seq}".encode()).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """What ``encoded`` gave; raises ``ValueError`` for every other text."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            time, seq = raw.decode("ascii").split(" ")
            cursor = cls(to_text(datetime.fromisoformat(time)), int(seq))
        except (ValueError, OverflowError):
            cursor = None
        if cursor is None or not 0 <= cursor.seq < 2**63 or cursor.encoded() != text:
            raise ValueError("must be what a page gave as `next`")
        return cursor
