"""Files that are watched stay open and mapped for a while.

A player fetches a film in ranges. To open and map it for each of them, and to let the system find its pages anew, takes
a tenth of what a range of 1 MiB takes; most of that is spent in finding the pages. A mapping is safe here because an
object is written once and only ever unlinked.
"""

import mmap
import os
from collections import OrderedDict
from pathlib import Path

MOST = 32
# Smaller ones, as thumbnails are, come once to a viewer and would only drive out the films.
LEAST = 1_048_576


class OpenFile:
    """A file of ``size`` bytes and its ``content``, closed with the last reference to it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.descriptor).st_size
        self.content = memoryview(mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ) if self.size else b"")

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class OpenFiles:
    """The films that were asked for last."""

    def __init__(self) -> None:
        self._films: OrderedDict[Path, OpenFile] = OrderedDict()

    def open(self, path: Path) -> OpenFile:
        """Raises ``FileNotFoundError``."""
        found = self._films.get(path)
        if found is None:
            found = OpenFile(path)
            if found.size < LEAST:
                return found
            self._films[path] = found
            if len(self._films) > MOST:
                self._films.popitem(last=False)
        self._films.move_to_end(path)
        return found

    def forget(self, path: Path) -> None:
        """It was removed; its bytes are free when those who are being sent it are done."""
        self._films.pop(path, None)
