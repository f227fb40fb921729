"""The objects that were found a moment ago: a film is fetched in ranges, many in a second, and asks for one row.

What this process deletes it forgets at once. What another process deletes is found here for a moment more, but its
bytes are removed before that deletion is answered, and without them nobody is told of it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from storage_service.store import StoredObject

MOMENT = timedelta(seconds=2)
MOST = 1024


class Recent:
    """``generation`` changes with every deletion: what was asked for before one must not be remembered after it."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[StoredObject, datetime]] = {}
        self.generation = 0

    def get(self, filename: str, now: datetime) -> StoredObject | None:
        found, until = self._found.get(filename, (None, now))
        return found if now < until else None

    def remember(self, found: StoredObject, asked_at: datetime, generation: int) -> None:
        if generation == self.generation:
            if len(self._found) >= MOST:
                self._found.clear()
            self._found[found.filename] = (found, asked_at + MOMENT)

    def forget(self, filenames: Iterable[str]) -> None:
        self.generation += 1
        for filename in filenames:
            self._found.pop(filename, None)
