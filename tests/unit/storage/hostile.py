"""A server whose judges do to themselves what an attacker might make ffmpeg do, by a file's name or how it begins."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import BinaryIO

from storage_service import lending, probe

honest, serve, judge = probe.probe, probe.serve_one, probe.judge
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


ASKED = {
    b"beyond": (0, 2**20),
    b"before": (2**64 - 1, 1),
    b"nothing": (0, 0),
    b"everything": (0, 2**32 - 1),
}


def ask(file: BinaryIO) -> probe.Probe:
    match file.read(16).strip():
        case b"endless":
            while True:
                connections[0].sendall(lending.WANTED + lending.SPAN.pack(0, 1))
                connections[0].recv(1)
        case b"half":
            connections[0].sendall(lending.WANTED + b"\0")
            os._exit(0)
        case b"sleeps":
            time.sleep(60)
        case kind if kind in ASKED:
            connections[0].sendall(lending.WANTED + lending.SPAN.pack(*ASKED[kind]))
            time.sleep(60)
    file.seek(0)
    return judge(file)


if __name__ == "__main__":
    probe.serve_one, probe.probe, probe.judge, probe.CPU_SECONDS = serve_one, suffer, ask, 1
    probe.main()
