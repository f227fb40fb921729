"""The service's end of the socket over which a judge is lent a file."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from storage_service.lending import SPAN, WANTED, LentFile


@dataclass
class Lender:
    """``asked`` is every range that was asked for."""

    content: bytes
    asked: list[tuple[int, int]] = field(default_factory=list)

    @contextmanager
    def lend(self) -> Iterator[LentFile]:
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._serve, args=(ours,))
        thread.start()
        with closing(theirs):
            yield LentFile(theirs, len(self.content))
        thread.join()

    @property
    def sent(self) -> int:
        return sum(length for _, length in self.asked)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming:
            while incoming.read(1) == WANTED:
                start, length = SPAN.unpack(incoming.read(SPAN.size))
                self.asked.append((start, length))
                connection.sendall(self.content[start : start + length])
