"""The whole journey over HTTP: upload, lists, figures, playing, deleting, as the page goes it."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
import videos
from contract.video_storage.house import House, Person, film, wait_until

MB = 1_048_576
UPLOAD = "http://video-service/api/videos/upload"
VIDEOS = "http://video-service/api/videos"
STORAGE = "http://storage-service/api/storage/usage"
USAGE = "http://usage-service/api/usage/daily-usage"
A_VIDEO = {
    "id", "user_id", "filename", "filepath", "title", "uploaded_at", "deleted_at", "size_mb", "duration", "width",
    "height",
}  # fmt: skip

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_upload_is_answered_when_everything_it_promises_can_be_read(house: House, ann: Person) -> None:
    video = film(251_034)
    answer = await ann.upload(video, " My film ")
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"message", "file"}
    entry = body["file"]
    assert entry.keys() == A_VIDEO
    assert (entry["user_id"], entry["title"], entry["deleted_at"]) == (str(ann.id), "My film", None)
    assert (entry["size_mb"], entry["width"], entry["height"]) == (251_034 / MB, 64, 48)
    assert entry["duration"] == pytest.approx(0.5, abs=0.1)
    assert re.fullmatch(r"[A-Za-z0-9_-]{20,64}", entry["filename"])
    assert datetime.fromisoformat(entry["uploaded_at"]).utcoffset() == timedelta(0)
    # What the page fetches then, once and without retry.
    assert (await ann.get(f"{VIDEOS}/stream"))["videos"][0] == entry
    assert await ann.get(f"{VIDEOS}/user/{ann.id}") == {"videos": [entry], "total": 1, "next": None}
    assert await ann.get(STORAGE) == {"totalSizeMb": 251_034 / MB, "maxStorageMb": 1, "usagePercentage": "23.94"}
    usage = await ann.get(USAGE)
    assert (usage["totalUsageMb"], usage["dailyLimitMb"], usage["isThresholdExceeded"]) == (251_034 / MB, 2, False)
    assert (await house.client.get(entry["filepath"])).content == video
    thumbnail = await house.client.get(entry["filepath"].replace(".mp4", ".jpg", 1))
    assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/jpeg")
    assert thumbnail.content.startswith(b"\xff\xd8\xff")
    assert await ann.get(f"{VIDEOS}/stream/{entry['filename']}") == {"url": entry["filepath"]}


async def test_after_a_deletion_everything_is_gone_at_once_but_what_counts_for_the_day(
    house: House, ann: Person
) -> None:
    entry = await ann.uploaded(film())
    size = len(film()) / MB
    answer = await ann.ask("DELETE", f"{VIDEOS}/delete/{entry['filename']}")
    assert answer.status_code == 200
    assert isinstance(answer.json()["message"], str)
    assert await ann.get(f"{VIDEOS}/user/{ann.id}") == {"videos": [], "total": 0, "next": None}
    assert (await ann.get(STORAGE))["totalSizeMb"] == 0
    usage = await ann.get(USAGE)
    assert (usage["totalUsageMb"], usage["uploads"], usage["deletions"]) == (size, 1, 1)
    for url in (entry["filepath"], entry["filepath"].replace(".mp4", ".jpg")):
        assert (await house.client.get(url)).status_code == 404
    for method, path in (("GET", "stream"), ("DELETE", "delete")):
        assert (await ann.ask(method, f"{VIDEOS}/{path}/{entry['filename']}")).status_code == 404
    listed = [video["filename"] for video in (await ann.get(f"{VIDEOS}/stream?limit=100"))["videos"]]
    assert entry["filename"] not in listed


async def test_delete_all_deletes_what_is_ones_own_and_says_how_much(house: House, ann: Person, ben: Person) -> None:
    for person in (ann, ann, ann, ben):
        await person.uploaded(film())
    answer = await ann.ask("DELETE", f"{VIDEOS}/delete-all")
    assert answer.status_code == 200
    assert answer.json()["deleted"] == 3
    assert isinstance(answer.json()["message"], str)
    assert (await ann.get(f"{VIDEOS}/user/{ann.id}"))["total"] == 0
    assert (await ben.get(f"{VIDEOS}/user/{ben.id}"))["total"] == 1
    assert (await ann.get(STORAGE))["usagePercentage"] == "0.00"
    assert (await ann.get(USAGE))["deletions"] == 3
    assert (await ann.ask("DELETE", f"{VIDEOS}/delete-all")).json()["deleted"] == 0


async def test_lists_come_in_pages_newest_first(ann: Person) -> None:
    names = [(await ann.uploaded(film(), f"Number {number} of {ann.id}"))["filename"] for number in range(18)][::-1]

    async def page(path: str) -> tuple[list[str], int]:
        answer = await ann.get(f"{VIDEOS}/{path}")
        assert [*answer] == ["videos", "total", "next"]
        return [video["filename"] for video in answer["videos"]], answer["total"]

    mine = f"user/{ann.id}"
    assert await page(mine) == (names[:4], 18)
    assert await page(f"{mine}?start=16") == (names[16:], 18)
    assert await page(f"{mine}?start=18") == await page(f"{mine}?start=99999999999999999999") == ([], 18)
    assert await page(f"{mine}?start=1&limit=2") == (names[1:3], 18)
    everybodys, total = await page("stream")
    assert (everybodys, total >= 18) == (names[:16], True)
    assert (await page("stream?start=16"))[0][:2] == names[16:]
    assert (await page(f"stream?start={total}")) == ([], total)
    assert (await page("stream?limit=100"))[0][:18] == names
    assert await page(f"stream?q=NUMBER%207%20of%20{ann.id}") == ([names[10]], 1)
    assert await page(f"stream?q=%20{ann.id}%20&start=17") == ([names[17]], 18)
    assert await page("stream?q=%25%25%25") == ([], 0)
    assert await page(f"{mine}?q=NUMBER%207") == ([names[10]], 1)
    for path in (f"{mine}?limit=4", f"stream?limit=4&q={ann.id}"):
        walked, goes_on = [], ""
        while goes_on is not None:
            answer = await ann.get(f"{VIDEOS}/{path}" + (f"&start=3&after={goes_on}" if goes_on else ""))
            walked += [video["filename"] for video in answer["videos"]]
            assert answer["total"] == 18
            goes_on = answer["next"]
        assert walked == names


@pytest.mark.parametrize("query", ["start=-1", "start=x", "start=1.5", "start=", "limit=0", "limit=101", "limit=x"])
async def test_what_is_no_page_is_a_422(ann: Person, query: str) -> None:
    for path in ("stream", f"user/{ann.id}"):
        assert (await ann.ask("GET", f"{VIDEOS}/{path}?{query}")).status_code == 422
        refused = await ann.ask("GET", f"{VIDEOS}/{path}?after=anything")
        assert (refused.status_code, refused.json()["message"]) == (422, "after: must be what a page gave as `next`.")
    assert (await ann.ask("GET", f"{VIDEOS}/stream?q=%00")).status_code == 422
    assert (await ann.ask("GET", f"{VIDEOS}/stream?q={'x' * 256}")).status_code == 422


async def test_nobody_sees_or_deletes_what_is_another_users(house: House, ann: Person, ben: Person) -> None:
    entry = await ann.uploaded(film())
    assert (await ben.ask("GET", f"{VIDEOS}/user/{ann.id}")).status_code == 403
    assert (await ben.ask("DELETE", f"{VIDEOS}/delete/{entry['filename']}")).status_code == 403
    assert (await ben.get(f"{VIDEOS}/stream?limit=100"))["videos"][0]["filename"] == entry["filename"]
    admin = Person(ben.id, _admin_token(house, ben), house.client)
    assert (await admin.get(f"{VIDEOS}/user/{ann.id}"))["total"] == 1
    assert (await admin.ask("DELETE", f"{VIDEOS}/delete/{entry['filename']}")).status_code == 200
    assert (await ann.get(STORAGE))["totalSizeMb"] == 0
    assert (await ann.get(USAGE))["deletions"] == 1


def _admin_token(house: House, person: Person) -> str:
    user = house.tokens.user(person.token)
    return house.tokens.for_user(user.model_copy(update={"role": "admin"}), 60)


@pytest.mark.parametrize(
    ("make", "content_type"),
    [
        (lambda: videos.mp4(0.5, 64, 48), "video/mp4"),
        (lambda: videos.mov(0.5), "video/quicktime"),
        (lambda: videos.mkv(0.5), "video/x-matroska"),
    ],
    ids=["mp4", "mov", "mkv"],
)
async def test_a_media_url_ends_in_mp4_whatever_the_film_is_and_the_content_type_tells_the_truth(
    house: House, ann: Person, ben: Person, make: Any, content_type: str
) -> None:
    entry = await ann.uploaded(make())
    for url in (entry["filepath"], (await ben.get(f"{VIDEOS}/stream/{entry['filename']}"))["url"]):
        assert url.startswith("http://storage-service/media/")
        assert url.endswith(f"/{entry['filename']}.mp4")
        assert (url.count(".mp4"), url.count(".")) == (1, 1)
        answer = await house.client.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
        assert answer.content == make()
        assert (await house.client.get(url.replace(".mp4", ".jpg", 1))).status_code == 200


async def test_what_was_done_is_in_the_log(house: House, ann: Person) -> None:
    entry = await ann.uploaded(film())
    await ann.get(f"{VIDEOS}/stream")
    await ann.get(f"{VIDEOS}/user/{ann.id}")
    await ann.get(f"{VIDEOS}/stream/{entry['filename']}")
    await ann.get(STORAGE)
    await ann.get(USAGE)
    await ann.ask("DELETE", f"{VIDEOS}/delete/{entry['filename']}")
    await ann.ask("DELETE", f"{VIDEOS}/delete-all")
    wanted = {
        ("REGISTER", "UserAccountService"),
        ("LOGIN", "UserAccountService"),
        ("UPLOAD_VIDEO", "VideoUploadService"),
        ("FETCH_VIDEOS", "VideoFetchService"),
        ("FETCH_USER_VIDEOS", "VideoFetchService"),
        ("STREAM_VIDEO", "VideoStreamService"),
        ("CHECK_STORAGE", "StorageManagementService"),
        ("CHECK_BANDWIDTH", "UsageMonitoringService"),
        ("DELETE_VIDEO", "VideoDeleteService"),
        ("DELETE_ALL_VIDEOS", "VideoDeleteService"),
    }

    async def all_are_there() -> bool:
        logs = (await ann.get(f"http://logging-service/api/logs/user/{ann.id}"))["logs"]
        return {(log["action_type"], log["service_name"]) for log in logs} == wanted

    await wait_until(all_are_there)


async def test_every_service_is_ready_when_its_peers_are(house: House) -> None:
    for service, app in house.switchboard.apps.items():
        assert (await house.client.get(f"http://{service}/health")).json() == {"status": "ok", "service": service}
        ready = await house.client.get(f"http://{service}/ready")
        assert ready.status_code == 200, ready.text
        assert set(ready.json()["checks"].values()) == {"ok"}
        assert app.title == service
