"""One service as a process of its own: started, frozen, stopped, killed, and never left behind."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

import psutil

START_SECONDS = 60.0  # a machine may be busy; on a quiet one it takes one

# Kills what it was told of when this process ends, in whatever way: its standard input closes then.
GUARD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
living = set()
for line in sys.stdin:
    living ^= {int(line)}
for pid in living:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Service:
    """One process of one service; ``output`` is what all its lives have printed."""

    def __init__(self, name: str, folder: Path, port: int, environment: dict[str, str], guard: "Guard") -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.data = folder / name
        self.output = folder / f"{name}-{port}.out"
        self.command = [sys.executable, "-m", f"{name}_service"]
        self._environment = environment | {"PORT": str(port), "DATA_DIR": str(self.data)}
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start it, and do not wait for it."""
        assert self._process is None, f"{self.name} is running"
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.output.parent,  # where there is no .env
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._guard.toggle(self._process.pid)

    def wait_until_up(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            status = self._process.poll()
            assert status is None, f"{self.name} ended with {status}:\n{self.said()}"
            assert time.monotonic() < deadline, f"{self.name} does not answer:\n{self.said()}"
            time.sleep(0.02)

    def start(self) -> None:
        self.launch()
        self.wait_until_up()

    def answers(self) -> bool:
        with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", self.port, timeout=2)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def kill(self) -> None:
        self._end(signal.SIGKILL, 10)

    def stop(self, seconds: float = 30) -> float:
        """SIGTERM; how many seconds it took."""
        started = time.monotonic()
        self._end(signal.SIGTERM, seconds)
        return time.monotonic() - started

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def down(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections, and never answers."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def _end(self, sign: signal.Signals, seconds: float) -> None:
        """And its children, which must not outlive it for long."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            children = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        process.send_signal(sign)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end within {seconds} s:\n{self.said()}") from None
        finally:
            self._guard.toggle(process.pid)
            deadline = time.monotonic() + 5
            while (orphans := [child for child in children if _lives(child)]) and time.monotonic() < deadline:
                time.sleep(0.01)
            for orphan in orphans:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
        assert not orphans, f"{self.name} left processes behind: {orphans}"


class Guard:
    """Sees to it that no process outlives this one."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", GUARD], stdin=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def toggle(self, pid: int) -> None:
        """It lives; told again: it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % pid)
        self._process.stdin.flush()


def wait_for(happened: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def free_ports(count: int) -> list[int]:
    """Below those that the system gives to outgoing connections, lest one takes the port of a service that is down."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
