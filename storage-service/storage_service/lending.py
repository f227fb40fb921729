"""How a judge is given a file: by its path, or lent by the service over the socket between the two.

    service ── PATH, the path, the end ──▶ judge          service ── LENT, its size ──────────▶ judge
                                                           service ◀── WANTED, where, how many ── judge   as often as he
                                                           service ── so many bytes ───────────▶ judge   likes

A judge reads in small steps, and the service fetches from far away. So he asks for blocks: one, and twice as many as
before while he reads on and on. Nothing of the service is imported here, for a judge has nothing of it.
"""

import errno
import io
import os
import socket
import struct
from collections import OrderedDict
from typing import Any

PATH, LENT, WANTED = b"P", b"L", b"?"
SIZE = struct.Struct(">Q")
SPAN = struct.Struct(">QI")

BLOCK = 256 * 1024
MOST_AT_ONCE = 8 * BLOCK
BLOCKS_KEPT = 24  # 6 MiB of the little memory that a judge has


class LentFile(io.RawIOBase):
    """For an ``io.BufferedReader``, which makes the small steps."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        self._connection = connection
        self._size = size
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # the one used last is last
        self._next = -1  # the block behind those that were asked for last
        self._ahead = BLOCK

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        number, skip = divmod(self._position, BLOCK)
        part = self._block(number)[skip : skip + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._ahead = min(self._ahead * 2, MOST_AT_ONCE) if number == self._next else BLOCK
            start = number * BLOCK
            run = self._fetch(start, min(self._ahead, self._size - start))
            for self._next, at in enumerate(range(0, len(run), BLOCK), number + 1):
                self._blocks[self._next - 1] = bytes(run[at : at + BLOCK])
            while len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, start: int, length: int) -> memoryview:
        self._connection.sendall(WANTED + SPAN.pack(start, length))
        run = memoryview(bytearray(length))
        at = 0
        while at < length:
            if not (took := self._connection.recv_into(run[at:])):
                raise ConnectionError("the service is gone")
            at += took
        return run
