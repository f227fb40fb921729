"""A server whose judges do to themselves, by the name of the file, what an attacker might make ffmpeg do."""

import os
import signal
import socket
import time
from pathlib import Path

from storage_service import probe

honest, serve = probe.probe, probe.serve_one
connections: list[socket.socket] = []


def serve_one(connection: socket.socket) -> None:
    connections.append(connection)
    serve(connection)


def suffer(path: str) -> probe.Probe:
    match Path(path).name:
        case "burns":
            while True:
                pass
        case "eats":
            raise AssertionError([bytearray(2**20) for _ in range(1000)])
        case "sleeps":
            time.sleep(60)
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "stutters":
            connections[0].sendall(b'{"content_type": "video/mp4", "dur')
            os._exit(0)
        case "floods":
            while True:
                connections[0].sendall(bytes(65536))
        case "blunders":
            raise AttributeError
    return honest(path)


if __name__ == "__main__":
    probe.serve_one, probe.probe, probe.CPU_SECONDS = serve_one, suffer, 1
    probe.main()
