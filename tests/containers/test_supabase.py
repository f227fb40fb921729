"""The same journey over PostgreSQL, PostgREST and an emulator of Google Cloud Storage, as the README starts them."""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import videos
from containers.engine import NAMES, docker, inside, inspect, logs, wait_until_healthy
from containers.house import House
from containers.memory import in_mib, memory, watched
from e2e.books import audit
from e2e.people import Person
from e2e.processes import wait_for
from e2e.test_journey import (
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

OVERLAYS = ("supabase",)
UPLOADS = 16
# With each part that arrives the emulator reads all that it has of the object: 16 times 50 MB at once it cannot do.
SIZE = 10 * MIB
AT_REST = 130 * MIB
# As anybody on the inside might try: the status of a read of all users with this key.
READ_USERS = """
import http.client, sys
gateway = http.client.HTTPConnection("gateway", 8000, timeout=10)
key = {"Authorization": "Bearer " + sys.argv[1]} if sys.argv[1] else {}
gateway.request("GET", "/rest/v1/users?select=id", headers=key)
print(gateway.getresponse().status)
"""


def test_rows_are_in_postgresql_objects_in_the_bucket_and_nothing_is_in_the_services_own_volumes(
    services: House,
) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(3 * MIB + 1)  # of several parts
    kept = ada.upload(film, "Kept").json()["file"]
    (row,) = services.engine.rows("video", "SELECT title, size_mb FROM videos WHERE filename = ?", kept["filename"])
    assert row == {"title": "Kept", "size_mb": len(film) / MIB}
    (row,) = services.engine.rows("user", "SELECT username FROM users WHERE id = ?", str(ada.id))
    assert row == {"username": "Ada"}
    assert services.engine.stored()[f"{kept['filename']}.video"] == len(film)
    for container in services:
        assert inside(container.id, "import os; print(*os.listdir('/data'))").split() in ([], [".lock"]), container.name


def test_a_viewer_is_sent_to_a_published_address_that_lets_him_read_and_no_more(services: House) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(MIB)
    kept = ada.upload(film).json()["file"]
    moved = httpx.get(kept["filepath"], trust_env=False)
    assert moved.status_code == 302
    origin = f"http://localhost:{services.ports['bucket']}"
    address = moved.headers["location"]
    assert address.startswith(f"{origin}/short-videos/videos/{kept['filename']}.mp4?")
    watched_ = httpx.get(address, headers={"Origin": "http://page.example"}, trust_env=False)
    assert hashlib.sha256(watched_.content).digest() == hashlib.sha256(film).digest()
    assert watched_.headers["access-control-allow-origin"] == "*"
    assert int(httpx.head(address, trust_env=False).headers["content-length"]) == len(film)
    for method, url, status in (
        ("DELETE", address, 403),
        ("PUT", address, 403),
        ("POST", f"{origin}/upload/storage/v1/b/short-videos/o?uploadType=media&name=videos%2Fx", 404),
        ("GET", f"{origin}/storage/v1/b/short-videos/o", 404),
        ("GET", f"{origin}/storage/v1/b", 404),
    ):
        assert httpx.request(method, url, trust_env=False).status_code == status, (method, url)
    ada.delete_all()
    assert httpx.get(address, trust_env=False).status_code == 404


def test_a_video_that_exactly_fills_the_storage_is_taken_and_one_byte_more_is_not(services: House) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    assert ada.upload(videos.exactly(30 * MIB)).status_code == 200
    refused = ada.upload(videos.exactly(20 * MIB + 1))
    assert (refused.status_code, refused.json()["code"]) == (413, "storage_limit")
    assert ada.upload(videos.exactly(20 * MIB)).status_code == 200
    assert books(ada) == (50 * MIB, 50 * MIB, 2)
    assert ada.delete_all().json()["deleted"] == 2
    assert audit(services, ada.id) == []  # type: ignore[arg-type]


def test_the_database_is_open_to_the_services_key_and_to_no_other(services: House) -> None:
    env = dict(line.split("=", 1) for line in (services.source / ".env").read_text().splitlines())
    key = env["SUPABASE_KEY"]
    forged = key[:-4] + ("AAAA" if not key.endswith("AAAA") else "BBBB")
    found = [inside(services["user"].id, READ_USERS, given).strip() for given in (key, forged, "")]
    assert found == ["200", "401", "401"]
    for name in ("database", "rest", "gateway", "bucket"):
        published = inspect(services.everything[name])["HostConfig"]["PortBindings"] or {}
        assert set(published) == ({"4443/tcp"} if name == "gateway" else set()), name


def test_migrations_may_run_again(services: House) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    services.compose("run", "--rm", "migrations")
    assert ada.login().status_code == 200


def test_each_is_confined(services: House) -> None:
    for name, container in services.everything.items():
        asked = inspect(container)["HostConfig"]
        assert asked["ReadonlyRootfs"], name
        assert asked["CapDrop"] == ["ALL"], name
        assert asked["SecurityOpt"] == ["no-new-privileges:true"], name
        assert asked["Memory"] > 0, name
    for name in ("database", "gateway", "bucket"):
        assert docker("exec", services.everything[name], "id", "-u").strip() != "0", name


def test_each_service_rests_in_130_mb(services: House, figures: list[str]) -> None:
    time.sleep(3)
    used = memory(services)
    figures.append(f"supabase, at rest: {in_mib(used)}")
    assert {name: used[name] for name in NAMES if used[name] > AT_REST} == {}


def test_sixteen_uploads_at_once_keep_the_memory_limits(services: House, figures: list[str], tmp_path: Path) -> None:
    people = [Person(services) for _ in range(UPLOADS)]  # type: ignore[arg-type]
    film = tmp_path / "film.mp4"
    film.write_bytes(videos.exactly(SIZE))
    began = time.monotonic()
    with watched(services) as highest:
        statuses = upload_at_once(services, people, film)  # type: ignore[arg-type]
    took = time.monotonic() - began
    film.unlink()
    assert statuses == [200] * UPLOADS
    figures.append(f"supabase, under {UPLOADS} uploads of {SIZE // MIB} MB ({took:.0f} s): {in_mib(highest)} at most")
    for name, container in services.everything.items():
        now = inspect(container)
        assert not now["State"]["OOMKilled"], name
        assert now["RestartCount"] == 0, name
    for person in people:
        assert person.delete_all().status_code == 200


@pytest.mark.parametrize("name", ["database", "rest", "gateway", "bucket"])
def test_one_that_is_killed_comes_back_with_its_data(services: House, name: str) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(200_000)
    kept = ada.upload(film, "Kept").json()["file"]
    before = (books(ada), ada.videos())
    container = services.everything[name]
    docker("restart", "--time", "0", container)  # SIGKILL, at once
    if "Health" in inspect(container)["State"]:
        wait_until_healthy(container)

    def as_before() -> bool:
        with suppress(AssertionError):  # meanwhile a call is a 503
            return (books(ada), ada.videos()) == before
        return False

    wait_for(as_before, 30)
    wait_for(lambda: services.client.get(kept["filepath"]).status_code == 200)
    assert services.client.get(kept["filepath"]).content == film
    wait_for(lambda: ada.login().status_code == 200)
    wait_for(lambda: ada.upload(film).status_code == 200)
    assert ada.delete_all().json()["deleted"] == 2
    assert audit(services, ada.id) == []  # type: ignore[arg-type]


def test_no_secret_is_in_any_log(services: House) -> None:
    env = dict(line.split("=", 1) for line in (services.source / ".env").read_text().splitlines())
    assert len(env) == 5
    said = {name: logs(container) for name, container in services.everything.items()}
    assert [(name, secret) for name, text in said.items() for secret, value in env.items() if value in text] == []


def test_all_survives_new_containers_also_behind_the_edge(services: House, figures: list[str]) -> None:
    ada = Person(services, "Ada")  # type: ignore[arg-type]
    film = videos.exactly(200_000)
    kept = ada.upload(film, "Kept").json()["file"]
    before = books(ada)
    services.compose("down", "--timeout", "10")
    services.overlays = ("supabase", "edge")
    figures.append(f"compose + supabase + edge: {services.up():.1f} s until all are healthy")
    assert books(ada) == before
    (found,) = ada.videos()["videos"]
    assert found["filename"] == kept["filename"]
    url = httpx.URL(found["filepath"])
    assert url.port == services.ports["edge"]
    watched_ = services.client.get(url)
    assert (watched_.content, watched_.url.port) == (film, services.ports["bucket"])
    assert ada.upload(film).status_code == 200
    assert ada.delete_all().json()["deleted"] == 2
    assert audit(services, ada.id) == []  # type: ignore[arg-type]
