"""What containers hold in memory, as the engine counts it: without the cache of files, which the kernel takes back."""

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from containers.engine import DOCKER, docker
from containers.house import House

from shared.settings import MIB

UNITS = {"B": 1, "KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB}


def memory(services: House) -> dict[str, int]:
    said = docker("stats", "--no-stream", "--format", "{{json .}}", *services.everything.values())
    return dict(_read(services, line) for line in said.splitlines())


@contextmanager
def watched(services: House) -> Iterator[dict[str, int]]:
    """The most that each used, by a look every second."""
    highest = dict.fromkeys(services.everything, 0)
    command = [DOCKER, "stats", "--format", "{{json .}}", *services.everything.values()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                start = line.find("{")  # behind what clears a terminal
                if start >= 0 and "--" not in line:
                    name, used = _read(services, line[start : line.rindex("}") + 1])
                    highest[name] = max(highest[name], used)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield highest
        finally:
            process.terminate()
            process.wait(10)
            reader.join(10)


def in_mib(used: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {bytes_ / MIB:.0f}" for name, bytes_ in used.items()) + " MiB"


def _read(services: House, line: str) -> tuple[str, int]:
    read: Any = json.loads(line)
    (name,) = [name for name, container in services.everything.items() if container.startswith(read["ID"])]
    number = read["MemUsage"].split("/")[0].strip()
    digits = number.rstrip("BKMGi")
    return name, int(float(digits) * UNITS[number.removeprefix(digits)])
