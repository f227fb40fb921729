"""The Docker engine by its own commands: what DOCKER and DOCKER_HOST say, or ``docker`` on PATH. Each has its time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.processes import free_ports

DOCKER = os.environ.get("DOCKER", "docker")
BUILD_ARGS = os.environ.get("DOCKER_BUILD_ARGS", "").split()
COMPOSE = Path(sys.executable).with_name("docker-compose")
NAMES = ("user", "video", "storage", "usage", "logging")


class Failed(AssertionError):
    """A command of the engine ended otherwise than it should; the text is what it printed."""


def run(
    *command: str | Path,
    seconds: float = 60,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
) -> str:
    """Its standard output."""
    try:
        ran = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | (env or {}),
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{command} took longer than {seconds} s: {late.stdout!r} {late.stderr!r}") from None
    if ran.returncode:
        raise Failed(f"{command} ended with {ran.returncode}:\n{ran.stdout[-4000:]}\n{ran.stderr[-8000:]}")
    return ran.stdout


def docker(*arguments: str | Path, seconds: float = 60, text: str | None = None) -> str:
    return run(DOCKER, *arguments, seconds=seconds, text=text)


def inspect(what: str) -> Any:
    (found,) = json.loads(docker("inspect", what))
    return found


def build(folder: Path, image: str, dockerfile: str = "Dockerfile", context: str = "..") -> None:
    """As the README has it: from the service's own folder."""
    run(DOCKER, "build", *BUILD_ARGS, "-f", dockerfile, "-t", image, context, cwd=folder, seconds=600)


def inside(container: str, program: str, *arguments: str, seconds: float = 60) -> str:
    """What a Python program prints in there."""
    return docker("exec", container, "python", "-c", program, *arguments, seconds=seconds)


def state(container: str) -> Any:
    return inspect(container)["State"]


def wait_until_healthy(container: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while (now := state(container))["Health"]["Status"] != "healthy":
        said = f"{now}\n{logs(container)}"
        assert now["Status"] in ("running", "restarting", "created"), said
        assert time.monotonic() < deadline, f"not healthy within {seconds} s: {said}"
        time.sleep(0.1)


def logs(container: str) -> str:
    ran = subprocess.run([DOCKER, "logs", container], capture_output=True, text=True, timeout=60, check=False)
    return ran.stdout + ran.stderr


def stop(container: str) -> float:
    """SIGTERM; how many seconds it took. It must not have come to SIGKILL, which the engine sends after 10 s."""
    started = time.monotonic()
    docker("stop", container)
    took = time.monotonic() - started
    status = state(container)["ExitCode"]
    assert status in (0, 143), f"{container} ended with {status}:\n{logs(container)[-4000:]}"
    return took


@contextmanager
def network() -> Iterator[str]:
    """Of our own, as an engine may have no default one."""
    name = f"short-video-test-{os.getpid()}"
    docker("network", "create", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextmanager
def started(image: str, network: str, *options: str) -> Iterator[tuple[str, int]]:
    """A container on its own, and the port of this machine where it is published."""
    (port,) = free_ports(1)
    container = docker("run", "--detach", "--network", network, "-p", f"127.0.0.1:{port}:3000", *options, image).strip()
    try:
        yield container, port
    finally:
        docker("rm", "--force", "--volumes", container)


def seconds_until(happened: Callable[[], object], patience: float = 60) -> float:
    start = time.monotonic()
    while not happened():
        assert time.monotonic() - start < patience, "it has not happened"
        time.sleep(0.05)
    return time.monotonic() - start
