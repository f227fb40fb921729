"""`docker compose up` serves the journey, in containers that may do next to nothing, and loses nothing."""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
import videos
from containers.engine import NAMES, Failed, inside, inspect, logs, state, stop, wait_until_healthy
from containers.house import House
from containers.memory import in_mib, memory, watched
from e2e.books import audit
from e2e.people import Person
from e2e.processes import wait_for
from e2e.test_journey import (  # the very same, found here again and run over containers
    figures as books,
)
from e2e.test_journey import (
    test_a_bare_video_element_can_watch_it_and_seek,
    test_everything_done_appears_in_the_own_logs_newest_first,
    test_everything_that_the_page_does,
    test_what_was_watched_is_counted_for_the_one_who_watched,
)
from e2e.test_memory import upload_at_once

from shared.settings import MIB

__all__ = [
    "test_a_bare_video_element_can_watch_it_and_seek",
    "test_everything_done_appears_in_the_own_logs_newest_first",
    "test_everything_that_the_page_does",
    "test_what_was_watched_is_counted_for_the_one_who_watched",
]

UPLOADS = 16
AT_REST = 90 * MIB
# Kills all that runs in the container but its first process, which then ends too, and itself.
MURDER = "import os, signal; os.kill(-1, signal.SIGKILL)"
CONFINED = """
import json, os
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
def writes(path):
    try:
        open(path + "/probe", "w").close()
    except OSError as error:
        return error.strerror
    os.remove(path + "/probe")
    return True
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    "no new privileges": status["NoNewPrivs"],
    "writes": [path for path in ("/", "/app", "/etc", "/usr", "/var/tmp", "/tmp", "/data") if writes(path) is True],
    "root": next(line.split()[3].split(",")[0] for line in open("/proc/mounts") if line.split()[1] == "/"),
}))
"""


def test_each_rests_in_90_mb(services: House, figures: list[str]) -> None:
    time.sleep(3)
    used = memory(services)
    figures.append(f"at rest: {in_mib(used)}")
    assert {name: bytes_ for name, bytes_ in used.items() if bytes_ > AT_REST} == {}


def test_each_may_do_nothing_that_it_need_not(services: House) -> None:
    for container in services:
        found = json.loads(inside(container.id, CONFINED))
        assert found["uid"] == 10001
        assert set(found["capabilities"].values()) == {0}, container.name
        assert found["no new privileges"] == "1"
        assert found["writes"] == ["/tmp", "/data"]
        assert found["root"] == "ro"
        asked = inspect(container.id)["HostConfig"]
        assert asked["Memory"] > 0
        assert not asked["Privileged"]
        assert asked["RestartPolicy"]["Name"] == "unless-stopped"


def test_sixteen_uploads_at_once_keep_the_memory_limits(services: House, figures: list[str], tmp_path: Path) -> None:
    people = [Person(services) for _ in range(UPLOADS)]
    film = tmp_path / "film.mp4"
    film.write_bytes(videos.exactly(50 * MIB))
    began = time.monotonic()
    with watched(services) as highest:
        statuses = upload_at_once(services, people, film)  # type: ignore[arg-type]
    took = time.monotonic() - began
    film.unlink()
    assert statuses == [200] * UPLOADS
    figures.append(f"under {UPLOADS} uploads of 50 MB ({took:.0f} s): {in_mib(highest)} at most")
    for container in services:
        now = inspect(container.id)
        assert not now["State"]["OOMKilled"], container.name
        assert now["RestartCount"] == 0, container.name
    for person in people:
        assert person.delete_all().status_code == 200


@pytest.mark.parametrize("name", NAMES)
def test_one_that_is_killed_comes_back_with_its_data(services: House, name: str) -> None:
    container = services[name]
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(200_000)
    kept = ada.upload(film, "Kept").json()["file"]
    before = (books(ada), ada.videos())
    restarts = inspect(container.id)["RestartCount"]
    with suppress(Failed):  # the command dies with the container, as a rule before it can end
        inside(container.id, MURDER)
    wait_for(lambda: inspect(container.id)["RestartCount"] == restarts + 1)
    wait_until_healthy(container.id)
    assert (books(ada), ada.videos()) == before
    assert services.client.get(kept["filepath"]).content == film
    assert ada.login().status_code == 200
    ada.delete_all()
    assert audit(services, ada.id) == []  # type: ignore[arg-type]


def test_stopped_they_end_by_themselves_and_what_they_keep_survives_new_containers(
    services: House, figures: list[str]
) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(200_000)
    kept = ada.upload(film, "Kept").json()["file"]
    before = (books(ada), ada.videos())
    took = {container.name: stop(container.id) for container in services}
    figures.append("docker stop: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items()) + " s")
    assert {name: seconds for name, seconds in took.items() if seconds >= 8} == {}
    said = {container.name: logs(container.id) for container in services}
    assert {name: text for name, text in said.items() if services.secret in text or "Traceback" in text} == {}

    old = {container.id for container in services}
    services.compose("down", "--timeout", "5")
    began = time.monotonic()
    services.up()
    figures.append(f"compose up until all five are healthy: {time.monotonic() - began:.1f} s")
    for container in services:
        assert state(container.id)["Health"]["Status"] == "healthy"
    assert old.isdisjoint(container.id for container in services)
    assert (books(ada), ada.videos()) == before
    assert services.client.get(kept["filepath"]).content == film
    assert ada.login().status_code == 200
