"""One person's way through the product, as the page goes it: every figure is right straight after the answer."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import videos
from e2e.books import audit
from e2e.engines import Engine
from e2e.people import Person
from e2e.processes import wait_for
from e2e.services import Fresh, Services, running

from shared.settings import MIB


@pytest.fixture(scope="module")
def services(new_engine: Callable[[], Engine | None]) -> Iterator[Services]:
    with running(new_engine()) as services:
        yield services


def test_everything_that_the_page_does(services: Services) -> None:
    ada = Person(services, "Ada")
    account = ada.get("user", f"/api/users/user/{ada.id}").json()["user"]
    assert (account["id"], account["email"], account["username"]) == (str(ada.id), ada.email, "Ada")
    assert figures(ada) == (0, 0, 0)

    first, second = videos.mp4(), videos.webm()
    uploaded = ada.upload(first, "First").json()["file"]
    assert figures(ada) == (len(first), len(first), 1)
    assert ada.videos() == {"videos": [uploaded], "total": 1, "next": None}
    assert uploaded["title"] == "First"
    assert uploaded["size_mb"] == len(first) / MIB
    assert uploaded["user_id"] == str(ada.id)
    assert uploaded["deleted_at"] is None
    assert is_recent(uploaded["uploaded_at"])

    later = ada.upload(second, "Second", title_first=True).json()["file"]
    assert figures(ada) == (len(first + second), len(first + second), 2)
    assert ada.videos() == {"videos": [later, uploaded], "total": 2, "next": None}, "newest first"
    assert ada.videos(start=1) == {"videos": [uploaded], "total": 2, "next": None}
    assert ada.videos(start=2) == {"videos": [], "total": 2, "next": None}
    everybody = ada.get("video", "/api/videos/stream").json()
    assert everybody["videos"][:2] == [later, uploaded]
    assert everybody["total"] >= 2

    assert ada.delete(uploaded["filename"]).status_code == 200
    assert figures(ada) == (len(second), len(first + second), 1), "a deleted upload still counts towards the day"
    assert ada.videos() == {"videos": [later], "total": 1, "next": None}
    assert services.client.get(uploaded["filepath"]).status_code == 404
    assert ada.delete(uploaded["filename"]).status_code == 404
    assert ada.get("video", f"/api/videos/stream/{uploaded['filename']}").status_code == 404

    ada.upload(first)
    answer = ada.delete_all()
    assert (answer.status_code, answer.json()["deleted"]) == (200, 2)
    assert figures(ada) == (0, len(first + second + first), 0)
    assert ada.videos() == {"videos": [], "total": 0, "next": None}
    assert ada.usage()["deletions"] == 3
    assert ada.delete_all().json()["deleted"] == 0
    assert audit(services, ada.id) == []


@pytest.mark.parametrize(
    ("video", "content_type"),
    [
        (videos.mp4, "video/mp4"),
        (videos.mov, "video/quicktime"),
        (videos.webm, "video/webm"),
        (videos.mkv, "video/x-matroska"),
    ],
    ids=["mp4", "mov", "webm", "mkv"],
)
def test_a_bare_video_element_can_watch_it_and_seek(services: Services, video: Any, content_type: str) -> None:
    """With no header and no cookie; the thumbnail's URL is made as the page makes it."""
    film = video()
    uploaded = Person(services).upload(film).json()["file"]
    url = uploaded["filepath"]
    assert url.count(".mp4") == 1
    assert url.endswith(f"{uploaded['filename']}.mp4")
    # Of another person who opened the page, too.
    other = Person(services).get("video", f"/api/videos/stream/{uploaded['filename']}").json()["url"]
    assert services.client.get(other).content == film

    whole = services.client.get(url)
    assert (whole.status_code, whole.content) == (200, film)
    # A bucket is told by the signed URL what to say; the emulator does not listen.
    assert whole.url.params.get("response-content-type", whole.headers["content-type"]) == content_type
    size = len(film)
    for asked, start, stop in (
        ("bytes=0-", 0, size),
        ("bytes=0-0", 0, 1),
        ("bytes=100-299", 100, 300),
        (f"bytes=500-{size + 5}", 500, size),
        ("bytes=-10", size - 10, size),
    ):
        part = services.client.get(url, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, film[start:stop]), asked
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    beyond = services.client.get(url, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")

    picture = services.client.get(url.replace(".mp4", ".jpg", 1))
    assert picture.status_code == 200
    assert picture.url.params.get("response-content-type", picture.headers["content-type"]) == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")


def test_what_was_watched_is_counted_for_the_one_who_watched(services: Services) -> None:
    ada, bob = Person(services, "Ada"), Person(services, "Bob")
    filename = ada.upload(videos.exactly(300_000)).json()["file"]["filename"]
    url = bob.get("video", f"/api/videos/stream/{filename}").json()["url"]
    services.client.get(url)
    services.client.get(url, headers={"Range": "bytes=0-99999"})
    services.client.head(url)
    wait_for(lambda: bob.usage()["streamedMb"] == 400_000 / MIB)
    assert ada.usage()["streamedMb"] == 0
    assert bob.usage()["totalUsageMb"] == 0, "the daily limit is on uploads"


def test_everything_done_appears_in_the_own_logs_newest_first(services: Services) -> None:
    ada = Person(services, "Ada")
    ada.login("a wrong password")
    filename = ada.upload(videos.mp4()).json()["file"]["filename"]
    for service, path in (
        ("video", "/api/videos/stream"),
        ("video", f"/api/videos/user/{ada.id}"),
        ("video", f"/api/videos/stream/{filename}"),
        ("storage", "/api/storage/usage"),
        ("usage", "/api/usage/daily-usage"),
    ):
        assert ada.get(service, path).status_code == 200
    ada.delete(filename)
    ada.delete_all()
    expected = [
        ("DELETE_ALL_VIDEOS", "VideoDeleteService"),
        ("DELETE_VIDEO", "VideoDeleteService"),
        ("CHECK_BANDWIDTH", "UsageMonitoringService"),
        ("CHECK_STORAGE", "StorageManagementService"),
        ("STREAM_VIDEO", "VideoStreamService"),
        ("FETCH_USER_VIDEOS", "VideoFetchService"),
        ("FETCH_VIDEOS", "VideoFetchService"),
        ("UPLOAD_VIDEO", "VideoUploadService"),
        ("LOGIN", "UserAccountService"),
        ("LOGIN", "UserAccountService"),
        ("REGISTER", "UserAccountService"),
    ]

    def logs() -> Any:
        return ada.get("logging", f"/api/logs/user/{ada.id}").json()

    # They are sent after the answer, so they may be a moment late.
    wait_for(lambda: logs()["total"] == len(expected))
    assert [(log["action_type"], log["service_name"]) for log in logs()["logs"]] == expected
    assert all(log["user_id"] == str(ada.id) and is_recent(log["created_at"]) for log in logs()["logs"])
    other = Person(services)
    assert other.get("logging", f"/api/logs/user/{ada.id}").status_code == 403
    assert other.get("logging", "/api/logs/all").status_code == 403


def test_all_data_survives_a_restart_of_all_five(
    fresh: Fresh, film: bytes, new_engine: Callable[[], Engine | None]
) -> None:
    services = fresh(engine=new_engine())
    ada = Person(services, "Ada")
    kept = ada.upload(film, "Kept").json()["file"]
    ada.delete(ada.upload(film, "Deleted").json()["file"]["filename"])
    before = (figures(ada), ada.videos())
    wait_for(lambda: ada.get("logging", f"/api/logs/user/{ada.id}").json()["total"] == 9)
    for service in services:
        service.stop()
    services.start(*services)
    assert (figures(ada), ada.videos()) == before
    assert services.client.get(kept["filepath"]).content == film
    assert ada.login().status_code == 200
    assert ada.get("logging", f"/api/logs/user/{ada.id}").json()["total"] >= 9
    assert audit(services) == []


def figures(person: Person) -> tuple[float, float, int]:
    """Bytes stored, bytes uploaded today, videos listed."""
    storage, usage = person.storage(), person.usage()
    assert storage["usagePercentage"] == f"{storage['totalSizeMb'] / storage['maxStorageMb'] * 100:.2f}"
    return storage["totalSizeMb"] * MIB, usage["totalUsageMb"] * MIB, person.videos()["total"]


def is_recent(moment: str) -> bool:
    return abs((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()) < 60
