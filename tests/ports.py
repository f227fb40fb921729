"""Ports for servers that a test starts."""

import socket
import sys


class HeldPort:
    """A free port of 127.0.0.1 that nothing else is given until it is closed, also while no server listens there.

    A bound socket that does not listen keeps it. On Linux a server that sets SO_REUSEADDR, as all do that the tests
    start, may bind the port beside it; the kernel gives the port to no outgoing connection, and to no bind to port 0.
    Other systems refuse the server, so there the port is let go at once.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def close(self) -> None:
        self._socket.close()
