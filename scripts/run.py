"""Start what the Procfile names, tell when all of it answers, and stop it together. `make run` calls this."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
from services import (
    ROOT,
    Service,
    complete_env_files,
    environment,
    folder,
    read_procfile,
    read_services,
    refuse_busy_ports,
)

START_TIMEOUT = 60.0  # seconds: a small machine starts five Pythons at once
STOP_TIMEOUT = 5.0
COLOURS = (36, 33, 32, 35, 31)  # of ANSI terminals: cyan, yellow, green, magenta, red


class Screen:
    """Prints the services' lines with their names in front, and the runner's own without one.

    A thread of its own writes, because a terminal that stands still (Ctrl-S, a pager) must not delay the stopping.
    ``closed`` is set when nothing can be written any more: the terminal is closed, or the reader of the pipe is gone.
    """

    def __init__(self, services: list[Service], closed: asyncio.Event) -> None:
        self._closed = closed
        self._writer = ThreadPoolExecutor(1)
        self._prefixes = {}
        width = max(len(service.name) for service in services)
        for number, service in enumerate(services):
            prefix = f"{service.name:<{width}} | "
            coloured = f"\033[{COLOURS[number % len(COLOURS)]}m{prefix}\033[0m"
            self._prefixes[service.name] = coloured if sys.stdout.isatty() else prefix

    async def copy(self, name: str, process: Process) -> None:
        """Print what the process prints, until its output ends."""
        assert process.stdout is not None
        rest = b""
        while data := await process.stdout.read(65_536):
            *lines, rest = (rest + data).split(b"\n")
            await self._print_as(name, lines)
        await self._print_as(name, [rest] if rest else [])

    async def say(self, text: str) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, lambda: print(text, flush=True))
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._closed.set()

    async def _print_as(self, name: str, lines: list[bytes]) -> None:
        if lines:
            await self.say("\n".join(self._prefixes[name] + line.decode(errors="replace") for line in lines))


class Runner:
    """Starts all, and stops all on a signal, when one ends by itself, or when the terminal is gone."""

    def __init__(self, services: list[Service]) -> None:
        self._services = services
        self._stop = asyncio.Event()
        self._screen = Screen(services, self._stop)
        self._processes: dict[str, Process] = {}
        self._failures: list[str] = []

    async def run(self) -> bool:
        """True if it ended because it was told to."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        async with asyncio.TaskGroup() as tasks:
            copies = []
            try:
                for service in self._services:
                    process = await self._start(service)
                    copies.append(tasks.create_task(self._screen.copy(service.name, process)))
                    tasks.create_task(self._attend(service.name, process))
                announcement = tasks.create_task(self._announce())
                await self._stop.wait()
                announcement.cancel()
            finally:
                await self._stop_all()
            # What the services said last. A process that left its service's session may hold the pipe for longer.
            _, unfinished = await asyncio.wait(copies, timeout=STOP_TIMEOUT)
            for copy in unfinished:
                copy.cancel()
        for failure in self._failures:
            await self._screen.say(f"make run: {failure}")
        return not self._failures

    async def _start(self, service: Service) -> Process:
        process = self._processes[service.name] = await asyncio.create_subprocess_shell(
            service.command,
            cwd=ROOT,
            env=environment(service, self._services),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,  # Ctrl-C reaches the runner only, and one call kills what the service has started
        )
        return process

    async def _attend(self, name: str, process: Process) -> None:
        status = await process.wait()
        if not self._stop.is_set():
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            self._failures.append(f"{folder(name)} ended by itself ({how}), so all were stopped")
            self._stop.set()

    async def _announce(self) -> None:
        """Print where the services are, when all of them answer."""
        waiting = self._services
        deadline = time.monotonic() + START_TIMEOUT
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while waiting := [service for service in waiting if not await healthy(client, service)]:
                if time.monotonic() > deadline:
                    late = ", ".join(health_url(service) for service in waiting)
                    self._failures.append(f"no answer within {START_TIMEOUT:.0f} s from {late}")
                    self._stop.set()
                    return
                await asyncio.sleep(0.05)
        await self._screen.say(table(self._services))

    async def _stop_all(self) -> None:
        """SIGTERM, and SIGKILL for what is still there after STOP_TIMEOUT."""
        self._send_all(signal.SIGTERM)
        endings = [asyncio.create_task(process.wait()) for process in self._processes.values()]
        if endings:
            await asyncio.wait(endings, timeout=STOP_TIMEOUT)
        killed = self._send_all(signal.SIGKILL)
        await asyncio.gather(*endings)
        for name in killed:
            await self._screen.say(f"{folder(name)} did not stop within {STOP_TIMEOUT:.0f} s: killed")

    def _send_all(self, number: signal.Signals) -> list[str]:
        """To every service that runs, and to what it has started; their names."""
        running = {name: process for name, process in self._processes.items() if process.returncode is None}
        for process in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        return list(running)


def health_url(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}/health"


async def healthy(client: httpx.AsyncClient, service: Service) -> bool:
    try:
        return (await client.get(health_url(service))).status_code == 200
    except httpx.HTTPError:
        return False


def table(services: list[Service]) -> str:
    rows = [("service", "URL", "docs")]
    rows += [(folder(service.name), service.url, f"{service.url}/docs") for service in services]
    lines = [f"  {name:<18} {url:<24} {docs}" for name, url, docs in rows]
    return "\n".join(["", *lines, "", "  Ctrl-C stops all.", ""])


def main() -> int:
    # A service may log any character, whatever the terminal's encoding.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    commands = read_procfile()
    complete_env_files(list(commands))
    services = read_services(commands)
    refuse_busy_ports(services)
    return 0 if asyncio.run(Runner(services).run()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # before anything was started
