"""Videos pass through in constant memory, however many come at once."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import psutil
import videos
from e2e.people import Form, Person
from e2e.services import Fresh, Services

from shared.settings import MIB

UPLOADS = 8
RISE = 32 * MIB
SAMPLES = 10
ROUNDS = 10  # on a busy machine few samples are taken during one
PROGRAM = Path(__file__).with_name("uploader.py")


def test_eight_uploads_of_50_mb_at_once_take_32_mb_at_most(fresh: Fresh, tmp_path: Path) -> None:
    services = fresh(DAILY_BANDWIDTH_MB=10_000)
    people = [Person(services) for _ in range(UPLOADS)]
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(videos.exactly(50 * MIB))
    small.write_bytes(videos.exactly(MIB))
    try:
        # Warm: every code path and connection has been in use.
        for _ in range(2):
            assert upload_at_once(services, people, small) == [200] * UPLOADS
            for person in people:
                person.delete_all()
        with Watch(services) as watch:
            idle = watch.settled()
            for _ in range(ROUNDS):
                assert upload_at_once(services, people, large) == [200] * UPLOADS
                if watch.samples >= SAMPLES:
                    break
                for person in people:
                    person.delete_all()
        assert watch.samples >= SAMPLES
        assert watch.highest - idle <= RISE, f"{idle / MIB:.1f} MB idle, {watch.highest / MIB:.1f} MB at most"
    finally:
        large.unlink()


class Watch:
    """The memory of all services and their children together: what is shared between processes counts once."""

    def __init__(self, services: Services) -> None:
        self._roots = [psutil.Process(service.pid) for service in services]
        self._stop = Event()
        self._thread = Thread(target=self._watch)
        self.highest = self.samples = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def settled(self) -> int:
        """Idle is what a second of doing nothing ends with."""
        time.sleep(1)
        self.highest = self.samples = 0
        return self.now()

    def now(self) -> int:
        return sum(memory(process) for root in self._roots for process in [root, *root.children(recursive=True)])

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.highest = max(self.highest, self.now())
            self.samples += 1


def memory(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        rollup = Path(f"/proc/{process.pid}/smaps_rollup")
        if not rollup.exists():
            return int(process.memory_info().rss)  # counts what is shared in each of them
        for line in rollup.read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def upload_at_once(services: Services, people: list[Person], film: Path) -> list[int]:
    form = Form(b"")
    order = {
        "port": services["video"].port,
        "tokens": [person.token for person in people],
        "film": str(film),
        "head": form.head.decode("latin-1"),
        "tail": form.tail.decode("latin-1"),
        "content_type": form.content_type,
    }
    program = subprocess.run(
        [sys.executable, PROGRAM], input=json.dumps(order), stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    statuses: list[int] = json.loads(program.stdout)
    return statuses
