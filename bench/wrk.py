"""wrk, for small requests: many a second from one thread."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wire import Wrong

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass
class Flow:
    """``rate`` is in requests a second, latencies in seconds."""

    rate: float
    requests: int
    p50: float
    p99: float


def wrk(
    url: str, headers: Mapping[str, str], *, connections: int, seconds: float = 2, script: Path | None = None
) -> Flow:
    """As many requests as the server answers. Raises ``Wrong`` if one was not answered with 2xx or 3xx."""
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s", "--latency"]
    command += ["--timeout", "30s"]  # by default a request of 2 s is an error, which it can take on a busy machine
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    if script is not None:
        command += ["--script", str(script)]
    ran = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 60, check=False)
    said = ran.stdout
    if ran.returncode or "Non-2xx" in said or "Socket errors" in said:
        raise Wrong(f"wrk {url}: {said} {ran.stderr}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    requests = re.search(r"(\d+) requests in", said)
    if not rate or not requests:
        raise Wrong(f"wrk {url}: {said}")
    return Flow(float(rate[1]), int(requests[1]), _latency(said, 50), _latency(said, 99))


def _latency(said: str, percentile: int) -> float:
    found = re.search(rf"^\s+{percentile}%\s+([\d.]+)(us|ms|s)", said, re.MULTILINE)
    if not found:
        raise Wrong(said)
    return float(found[1]) * _SECONDS[found[2]]
